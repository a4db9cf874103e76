"""Writes a report of a study: what is told, denied, hedged or called resolved, and in which words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources.phantom import nouns, phrases
from medclip_keras.sources.phantom.cohort import FINDINGS, PhantomFinding, Study, device_kinds
from medclip_keras.sources.phantom.nouns import Entries

LABELS = (*FINDINGS, "No Finding")
_DEVICES = "Support Devices"
_SIZED = ("Pleural Effusion", "Pneumothorax")
_IN_A_ZONE = ("Atelectasis", "Consolidation", "Nodule")


@dataclass(frozen=True)
class WrittenReport:
    """A report.

    Attributes:
        text: the report.
        states: what the text says, by concept name. Several mentions: positive before uncertain before
            negative; resolved counts as negative; the indication does not count. `No Finding` is positive
            where the text states overall normality and asserts or suspects nothing but devices.
        late: whether an entry of the grammar's late third was used.
    """

    text: str
    states: dict[str, LabelState]
    late: bool


def write_report(study: Study, rng: np.random.Generator) -> WrittenReport:
    """Writes one report."""
    writer = _Writer(rng, study)
    present = [finding for finding in study.findings if finding.name != _DEVICES]
    hedged = [f for f in present if f.severity < 0.35 and rng.random() < 0.3]
    told = [finding for finding in present if finding not in hedged]
    body = writer.tell(told) + writer.hedge(hedged) + writer.devices(study)
    body += writer.doubt_or_resolve(study)
    body += writer.deny(num_told=len(body))
    body += writer.pick_some(phrases.FILLERS, 3)
    body = [body[i] for i in rng.permutation(len(body))]
    suspected = writer.any_abnormal()
    chronic = told and {f.name for f in told} <= {"Nodule", "Emphysema", "Fracture"}
    if not suspected:
        conclusion = [writer.pick(phrases.NORMAL)]
        writer.note("No Finding", LabelState.POSITIVE)
    else:
        conclusion = writer.conclude(told, hedged)
        if chronic and rng.random() < 0.3:  # "no acute abnormality" beside an old one is not normality
            conclusion.append(writer.pick(phrases.NOT_ACUTE))
    text = writer.lay_out(body, conclusion)
    return WrittenReport(text, writer.states, writer.late)


class _Writer:
    """Chooses words, and keeps account of what they say."""

    def __init__(self, rng: np.random.Generator, study: Study):
        self.rng, self.late = rng, False
        self.present = {finding.name for finding in study.findings}
        self.states = dict.fromkeys(LABELS, LabelState.NOT_MENTIONED)

    def pick(self, entries: Entries) -> str:
        index = self.rng.integers(len(entries.early) + len(entries.late))
        self.late |= bool(index >= len(entries.early))
        return (*entries.early, *entries.late)[index]

    def pick_some(self, entries: Entries, most: int) -> list[str]:
        return sorted({self.pick(entries) for _ in range(self.rng.integers(most + 1))})

    def note(self, name: str, state: LabelState) -> None:
        self.states[name] = state

    def any_abnormal(self) -> bool:
        states = {state for name, state in self.states.items() if name not in (_DEVICES, "No Finding")}
        return bool(states & {LabelState.POSITIVE, LabelState.UNCERTAIN})

    def tell(self, findings: Sequence[PhantomFinding]) -> list[str]:
        """Sentences that assert findings, now and then two in one, or one and the denial of another."""
        sentences, waiting = [], list(findings)
        while waiting:
            finding = waiting.pop()
            self.note(finding.name, LabelState.POSITIVE)
            chance = self.rng.random()
            if waiting and chance < 0.25:
                other = waiting.pop()
                self.note(other.name, LabelState.POSITIVE)
                sentences.append(self.fill(self.pick(phrases.POSITIVE_BOTH), finding, self.phrase(other)[0]))
            else:
                sentences.append(self.tell_one(finding))
            one_sided = finding.side in ("left", "right") and finding.name in _SIZED
            if one_sided and self.rng.random() < 0.2:
                side = {"left": "right", "right": "left"}[finding.side]
                noun = self.noun(nouns.DENIED, finding.name)
                sentences.append(_sentence(self.pick(phrases.OTHER_SIDE).format(side=side, noun=noun)))
        return sentences

    def tell_one(self, finding: PhantomFinding) -> str:
        if finding.name in nouns.STATEMENTS and self.rng.random() < 0.5:
            statement = self.pick(nouns.STATEMENTS[finding.name])
            degree = self.graded(phrases.ADVERBS, finding)
            return _sentence(statement.format(degree=degree).replace("  ", " "))
        if self.rng.random() < 0.15:
            absent = [name for name in nouns.DENIED if name not in self.present]
            if absent:
                denied = absent[self.rng.integers(len(absent))]
                self.note(denied, LabelState.NEGATIVE)
                frame = self.pick(phrases.POSITIVE_THEN_NEGATIVE)
                return self.fill(frame, finding, self.noun(nouns.DENIED, denied))
        return self.fill(self.pick(phrases.POSITIVE), finding)

    def hedge(self, findings: Iterable[PhantomFinding]) -> list[str]:
        """Sentences that suspect findings."""
        sentences = []
        for finding in findings:
            self.note(finding.name, LabelState.UNCERTAIN)
            sentences.append(self.fill(self.pick(phrases.UNCERTAIN), finding))
        return sentences

    def devices(self, study: Study) -> list[str]:
        """A sentence for each device, or for one that is gone."""
        sentences = []
        for finding in study.findings:
            if finding.name == _DEVICES:
                self.note(_DEVICES, LabelState.POSITIVE)
                kinds = [self.pick(nouns.DEVICES[kind]) for kind in device_kinds(finding)]
                sentences += [kind.format(n=self.rng.integers(2, 7)) for kind in kinds]
        if not sentences and _DEVICES in study.resolved:
            self.note(_DEVICES, LabelState.NEGATIVE)
            sentences.append(self.pick(nouns.REMOVED_DEVICES))
        return sentences

    def doubt_or_resolve(self, study: Study) -> list[str]:
        """Mentions of findings that are not there: suspected without cause, or of the previous study."""
        sentences = []
        for name in nouns.NOUNS:
            if self.states[name] != LabelState.NOT_MENTIONED:
                continue
            if name in study.resolved and self.rng.random() < 0.7:
                self.note(name, LabelState.NEGATIVE)
                noun = self.noun(nouns.DENIED, name)
                sentences.append(_sentence(self.pick(phrases.HISTORICAL).format(noun=noun)))
            elif self.rng.random() < 0.02:
                self.note(name, LabelState.UNCERTAIN)
                noun = self.noun(nouns.DENIED, name)
                frame = self.pick(phrases.UNCERTAIN)
                sentences.append(_sentence(frame.format(**{"phrase": noun, "is": "is"})))
        return sentences

    def deny(self, num_told: int) -> list[str]:
        """About as many sentences that deny findings as there are others."""
        absent = [n for n in nouns.DENIED if n not in self.present]
        absent = [n for n in absent if self.states[n] == LabelState.NOT_MENTIONED]
        absent = [absent[i] for i in self.rng.permutation(len(absent))]
        sentences = []
        for _ in range(self.rng.integers(1, num_told + 3)):
            if not absent:
                break
            several = len(absent) > 2 and self.rng.random() < 0.35
            names, absent = (absent[:3], absent[3:]) if several else (absent[:1], absent[1:])
            sentences.append(self.deny_several(names) if several else self.deny_one(names[0]))
        return sentences

    def deny_one(self, name: str) -> str:
        self.note(name, LabelState.NEGATIVE)
        if name in nouns.NORMAL_STATEMENTS and self.rng.random() < 0.7:
            return self.pick(nouns.NORMAL_STATEMENTS[name])
        noun = self.noun(nouns.DENIED, name)
        return _sentence(self.pick(phrases.NEGATIVE).format(noun=noun))

    def deny_several(self, names: Sequence[str]) -> str:
        frame = self.pick(phrases.NEGATIVE_SEVERAL)
        keys = [key for key in ("noun", "also", "third") if "{" + key + "}" in frame]
        words = {}
        for key, name in zip(keys, names, strict=False):
            self.note(name, LabelState.NEGATIVE)
            words[key] = self.noun(nouns.DENIED, name)
        return _sentence(frame.format(**words))

    def conclude(self, told: Sequence[PhantomFinding], hedged: Sequence[PhantomFinding]) -> list[str]:
        """The impression of an abnormal study: what matters, once more."""
        sentences = [self.fill("{phrase}.", finding) for finding in told if self.rng.random() < 0.85]
        sentences += self.hedge(finding for finding in hedged if self.rng.random() < 0.85)
        return sentences or [self.fill("{phrase}.", finding) for finding in told[:1]] or self.hedge(hedged)

    def noun(self, table: dict[str, Entries], name: str) -> str:
        return self.pick(table[name]).partition("|")[0]

    def graded(self, words: Sequence[Entries], finding: PhantomFinding) -> str:
        if self.rng.random() < 0.35:
            return ""
        return self.pick(words[min(int(finding.severity * 3), 2)])

    def phrase(self, finding: PhantomFinding) -> tuple[str, str, str]:
        """The finding with severity, side and place; its article; its verb."""
        singular, _, plural = self.pick(nouns.NOUNS[finding.name]).partition("|")
        several = bool(plural) and finding.side == "bilateral"
        noun = plural if several else singular
        degree = self.graded(phrases.SIZES if finding.name in _SIZED else phrases.DEGREES, finding)
        degree = "" if finding.name in ("Fracture", "Nodule") else degree
        side = finding.side if finding.name not in ("Edema", "Emphysema") else ""
        zone = self.pick(phrases.ZONES[finding.zone]) if finding.name in _IN_A_ZONE else ""
        if zone and self.rng.random() < 0.4:
            place = "both lungs" if side == "bilateral" else f"the {side} {zone}"
            words = [degree, noun, f"in {place}"]
        else:
            words = [degree, side, zone, noun]
        text = " ".join(word for word in words if word)
        article = "" if several or not plural else ("an " if text[0] in "aeiou" else "a ")
        return text, article, "are" if several else "is"

    def fill(self, frame: str, finding: PhantomFinding, also: str = "") -> str:
        text, article, verb = self.phrase(finding)
        return _sentence(
            frame.format(**{"phrase": text, "a_phrase": article + text, "is": verb, "also": also})
        )

    def lay_out(self, body: list[str], conclusion: list[str]) -> str:
        """The sections in order, in one of the forms that reports come in."""
        form = self.rng.random()
        if form < 0.1:  # free text
            text = " ".join([*body, *conclusion])
        else:
            sections = [("findings", body), ("impression", conclusion)]
            if form < 0.2:
                sections = [("impression", [*conclusion, *body])]
            elif form < 0.26:
                sections = [("findings", [*body, *conclusion])]
            sections = [*self.preamble(), *sections]
            text = "\n\n".join(self.section(name, sentences) for name, sentences in sections if sentences)
        return (text.upper() if self.rng.random() < 0.07 else text) + "\n"

    def preamble(self) -> list[tuple[str, list[str]]]:
        """What stands before the findings; the indication names findings that nobody has seen."""
        name = str(self.rng.choice(list(nouns.NOUNS)))
        indication = self.pick(phrases.INDICATIONS).format(noun=self.noun(nouns.NOUNS, name))
        parts = [("exam", str(self.rng.choice(phrases.EXAMS))), ("indication", indication)]
        parts.append(("comparison", str(self.rng.choice(phrases.COMPARISONS))))
        return [(name, [text]) for name, text in parts if self.rng.random() < 0.75]

    def section(self, name: str, sentences: list[str]) -> str:
        heading = self.pick(phrases.HEADINGS[name])
        if name == "impression" and self.rng.random() < 0.3:
            sentences = [f"{number}. {text}" for number, text in enumerate(sentences, 1)]
            return f"{heading}:\n" + "\n".join(sentences)
        return f"{heading}: " + " ".join(sentences)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
