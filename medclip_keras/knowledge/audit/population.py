"""Strata of labelled reports, with the findings, rules, cues and sentences that a reviewer needs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from medclip_keras.knowledge.audit.sheet import STATES, Line
from medclip_keras.knowledge.labeller import ReportLabeller
from medclip_keras.knowledge.sections import Section
from medclip_keras.knowledge.states import StateVector

LINKED, RARE = "linking decided", "a rare rule decided"
_RARE = 500  # one report in so many, at most, has a rare rule
_LINKED_RULE = "linked: "  # the opening of the rule of a mention that linking found


@dataclass(frozen=True)
class LabelledReport:
    """A report record: key, sentences as sections, and the recorded states (num_findings,)."""

    key: str
    sentences: tuple[Section, ...]
    states: StateVector


@dataclass
class Strata:
    """The strata of each report, in the order of the records."""

    of_report: list[set[str]]
    num_differing: int  # reports that this version reads otherwise than their records say


def stratify(labeller: ReportLabeller, reports: Iterable[LabelledReport]) -> Strata:
    """Assign each report to its strata: finding and state, linking decided, a rare rule decided.

    Rules are aliases, and aliases with their cues. A rule is rare if at most one report in 500 has it.
    """
    strata: list[set[str]] = []
    rules: list[set[tuple[str, str]]] = []
    num_differing = 0
    for report in reports:
        labels = labeller.label(report.sentences)
        num_differing += not np.array_equal(labels.states, report.states)
        names = labeller.table.names
        strata.append({f"{names[k]} {STATES[report.states[k]]}" for k in np.flatnonzero(report.states)})
        rules.append({(m.rule, cue) for m in labels.mentions for cue in ("", m.cue)})
    counts = Counter(rule for own in rules for rule in own)
    most = max(1, len(strata) // _RARE)
    for own, used in zip(strata, rules, strict=True):
        own |= {LINKED} if any(alias.startswith(_LINKED_RULE) for alias, _ in used) else set()
        own |= {RARE} if any(counts[rule] <= most for rule in used) else set()
    return Strata(strata, num_differing)


def lines_of(labeller: ReportLabeller, report: LabelledReport, show_text: bool) -> list[Line]:
    """A line a finding that the records mention, with the rule and cue of a mention that gave its state."""
    labels = labeller.label(report.sentences)
    lines = []
    for position in np.flatnonzero(report.states):
        name, state = labeller.table.names[position], STATES[report.states[position]]
        evidence: Sequence[tuple[str, str, str]] = [
            (mention.rule, mention.cue, sentence.text)
            for sentence, own in zip(report.sentences, labels.section_mentions, strict=True)
            for mention in own
            if mention.name == name and STATES[labeller.states([mention])[position]] == state
        ]
        rule, cue, text = evidence[0] if evidence else ("", "", "")
        lines.append(Line(name, state, rule, cue, text if show_text else ""))
    return lines
