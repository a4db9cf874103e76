"""Write the report of a study: assert, deny, suspect and resolve findings in varied words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources.phantom import wording
from medclip_keras.sources.phantom.cohort import FINDINGS, PhantomFinding, Study, device_kinds
from medclip_keras.sources.phantom.wording import SENTENCES, Entries

LABELS = (*FINDINGS, "No Finding")
_DEVICES = "Support Devices"
_SIZED = ("Pleural Effusion", "Pneumothorax")
_IN_A_ZONE = ("Atelectasis", "Consolidation", "Nodule")


@dataclass(frozen=True)
class WrittenReport:
    """A report with its labels.

    Attributes:
        text: the report.
        states: what the text says, by concept name. Several mentions: positive before uncertain before
            negative; resolved counts as negative; the indication does not count. `No Finding` is positive
            where the text states overall normality and asserts or suspects nothing but devices.
    """

    text: str
    states: dict[str, LabelState]


def write_report(study: Study, rng: np.random.Generator) -> WrittenReport:
    """Write the report of a study; the order of the draws is part of the seed."""
    writer = _Writer(rng, study)
    present = [finding for finding in study.findings if finding.name != _DEVICES]
    hedged = [f for f in present if f.severity < 0.35 and rng.random() < 0.3]
    told = [finding for finding in present if finding not in hedged]
    body = writer.assert_all(told) + writer.suspect(hedged) + writer.devices(study)
    body += writer.doubt_or_resolve(study)
    body += writer.deny(num_told=len(body))
    body += sorted({writer.pick(SENTENCES["filler"]) for _ in range(rng.integers(4))})
    body = [body[i] for i in rng.permutation(len(body))]
    if writer.any_abnormal():
        conclusion = writer.conclude(told, hedged)
        chronic = told and {f.name for f in told} <= {"Nodule", "Emphysema", "Fracture"}
        if chronic and rng.random() < 0.3:  # "no acute abnormality" beside an old finding is not normality
            conclusion.append(writer.pick(SENTENCES["not_acute"]))
    else:
        conclusion = [writer.pick(SENTENCES["normal"])]
        writer.states["No Finding"] = LabelState.POSITIVE
    return WrittenReport(writer.lay_out(body, conclusion), writer.states)


class _Writer:
    """Chooses words, and records the states that they express."""

    def __init__(self, rng: np.random.Generator, study: Study):
        self.rng = rng
        self.present = {finding.name for finding in study.findings}
        self.states = dict.fromkeys(LABELS, LabelState.NOT_MENTIONED)

    def pick(self, entries: Entries) -> str:
        return entries[self.rng.integers(len(entries))]

    def sentence(self, kind: str, **words: str) -> str:
        """A sentence of a kind; its words are drawn before its frame."""
        return _capitalise(self.pick(SENTENCES[kind]).format(**words))

    def any_abnormal(self) -> bool:
        states = {state for name, state in self.states.items() if name not in (_DEVICES, "No Finding")}
        return bool(states & {LabelState.POSITIVE, LabelState.UNCERTAIN})

    def assert_all(self, findings: Sequence[PhantomFinding]) -> list[str]:
        """Sentences that assert findings: one each, two in one, or one with the denial of another."""
        sentences, waiting = [], list(findings)
        while waiting:
            finding = waiting.pop()
            self.states[finding.name] = LabelState.POSITIVE
            chance = self.rng.random()
            if waiting and chance < 0.25:
                other = waiting.pop()
                self.states[other.name] = LabelState.POSITIVE
                frame = self.pick(SENTENCES["positive_both"])
                sentences.append(self.fill(frame, finding, self.phrase(other)[0]))
            else:
                sentences.append(self.assert_one(finding))
            one_sided = finding.side in ("left", "right") and finding.name in _SIZED
            if one_sided and self.rng.random() < 0.2:
                side = {"left": "right", "right": "left"}[finding.side]
                sentences.append(self.sentence("other_side", noun=self.denied(finding.name), side=side))
        return sentences

    def assert_one(self, finding: PhantomFinding) -> str:
        if finding.name in wording.STATEMENTS and self.rng.random() < 0.5:
            statement = self.pick(wording.STATEMENTS[finding.name])
            degree = self.graded("adverb", finding)
            return _capitalise(statement.format(degree=degree).replace("  ", " "))
        if self.rng.random() < 0.15:
            absent = [name for name in wording.DENIED if name not in self.present]
            if absent:
                denied = absent[self.rng.integers(len(absent))]
                self.states[denied] = LabelState.NEGATIVE
                frame = self.pick(SENTENCES["positive_then_negative"])
                return self.fill(frame, finding, self.denied(denied))
        return self.fill(self.pick(SENTENCES["positive"]), finding)

    def suspect(self, findings: Iterable[PhantomFinding]) -> list[str]:
        """Sentences that suspect findings."""
        sentences = []
        for finding in findings:
            self.states[finding.name] = LabelState.UNCERTAIN
            sentences.append(self.fill(self.pick(SENTENCES["uncertain"]), finding))
        return sentences

    def devices(self, study: Study) -> list[str]:
        """A sentence for each device, or for a removed device."""
        sentences = []
        for finding in study.findings:
            if finding.name == _DEVICES:
                self.states[_DEVICES] = LabelState.POSITIVE
                kinds = [self.pick(wording.DEVICES[kind]) for kind in device_kinds(finding)]
                sentences += [kind.format(n=self.rng.integers(2, 7)) for kind in kinds]
        if not sentences and _DEVICES in study.resolved:
            self.states[_DEVICES] = LabelState.NEGATIVE
            sentences.append(self.pick(SENTENCES["removed_device"]))
        return sentences

    def doubt_or_resolve(self, study: Study) -> list[str]:
        """Mentions of absent findings: suspected without cause, or resolved since the previous study."""
        sentences = []
        for name in wording.NOUNS:
            if self.states[name] != LabelState.NOT_MENTIONED:
                continue
            if name in study.resolved and self.rng.random() < 0.7:
                self.states[name] = LabelState.NEGATIVE
                sentences.append(self.sentence("historical", noun=self.denied(name)))
            elif self.rng.random() < 0.02:
                self.states[name] = LabelState.UNCERTAIN
                sentences.append(self.sentence("uncertain", phrase=self.denied(name), **{"is": "is"}))
        return sentences

    def deny(self, num_told: int) -> list[str]:
        """About as many denials as there are other sentences."""
        absent = [n for n in wording.DENIED if n not in self.present]
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
        self.states[name] = LabelState.NEGATIVE
        if name in wording.NORMAL_STATEMENTS and self.rng.random() < 0.7:
            return self.pick(wording.NORMAL_STATEMENTS[name])
        return self.sentence("negative", noun=self.denied(name))

    def deny_several(self, names: Sequence[str]) -> str:
        frame = self.pick(SENTENCES["negative_several"])
        keys = [key for key in ("noun", "also", "third") if "{" + key + "}" in frame]
        words = {}
        for key, name in zip(keys, names, strict=False):
            self.states[name] = LabelState.NEGATIVE
            words[key] = self.denied(name)
        return _capitalise(frame.format(**words))

    def conclude(self, told: Sequence[PhantomFinding], hedged: Sequence[PhantomFinding]) -> list[str]:
        """The impression of an abnormal study: its main findings again."""
        sentences = [self.fill("{phrase}.", finding) for finding in told if self.rng.random() < 0.85]
        sentences += self.suspect(finding for finding in hedged if self.rng.random() < 0.85)
        return sentences or [self.fill("{phrase}.", finding) for finding in told[:1]] or self.suspect(hedged)

    def denied(self, name: str) -> str:
        return self.pick(wording.DENIED[name])

    def graded(self, kind: str, finding: PhantomFinding) -> str:
        """A size, degree or adverb of the finding's severity, or nothing."""
        if self.rng.random() < 0.35:
            return ""
        return self.pick(wording.GRADES[kind][min(int(finding.severity * 3), 2)])

    def phrase(self, finding: PhantomFinding) -> tuple[str, str, str]:
        """The finding with severity, side and place; its article; its verb."""
        singular, _, plural = self.pick(wording.NOUNS[finding.name]).partition("|")
        several = bool(plural) and finding.side == "bilateral"
        noun = plural if several else singular
        degree = self.graded("size" if finding.name in _SIZED else "degree", finding)
        degree = "" if finding.name in ("Fracture", "Nodule") else degree
        side = finding.side if finding.name not in ("Edema", "Emphysema") else ""
        zone = self.pick(wording.ZONES[finding.zone]) if finding.name in _IN_A_ZONE else ""
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
        words = {"phrase": text, "a_phrase": article + text, "is": verb, "also": also}
        return _capitalise(frame.format(**words))

    def lay_out(self, body: list[str], conclusion: list[str]) -> str:
        """The sections in order, in one of the usual forms of reports."""
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
        """The sections before the findings; the indication names findings that no label counts."""
        name = str(self.rng.choice(list(wording.NOUNS)))
        frame = self.pick(SENTENCES["indication"])
        indication = frame.format(noun=self.pick(wording.NOUNS[name]).partition("|")[0])
        parts = [("exam", str(self.rng.choice(SENTENCES["exam"]))), ("indication", indication)]
        parts.append(("comparison", str(self.rng.choice(SENTENCES["comparison"]))))
        return [(name, [text]) for name, text in parts if self.rng.random() < 0.75]

    def section(self, name: str, sentences: list[str]) -> str:
        heading = self.pick(wording.HEADINGS[name])
        if name == "impression" and self.rng.random() < 0.3:
            sentences = [f"{number}. {text}" for number, text in enumerate(sentences, 1)]
            return f"{heading}:\n" + "\n".join(sentences)
        return f"{heading}: " + " ".join(sentences)


def _capitalise(text: str) -> str:
    return text[0].upper() + text[1:]
