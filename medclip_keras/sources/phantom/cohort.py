"""Draw patients: their examinations, and the findings of each examination."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

EVALUATED = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
FURTHER = ("Pneumothorax", "Nodule", "Fracture", "Support Devices", "Emphysema")
FINDINGS = EVALUATED + FURTHER

_TOGETHER = (  # findings that one disease brings along
    ("Cardiomegaly", "Edema"),
    ("Cardiomegaly", "Edema", "Pleural Effusion"),
    ("Edema", "Pleural Effusion"),
    ("Atelectasis", "Pleural Effusion"),
    ("Atelectasis", "Consolidation"),
    ("Consolidation", "Pleural Effusion"),
    ("Atelectasis", "Cardiomegaly"),
    ("Cardiomegaly", "Consolidation"),
)
_FURTHER_RATES = (0.09, 0.11, 0.09, 0.16, 0.09)
_SPLITS = {"train": 0.7, "valid": 0.1, "test": 0.2}  # shares of the patients
_MIDLINE = ("Cardiomegaly", "Support Devices")
_BILATERAL = ("Edema", "Emphysema")


@dataclass(frozen=True)
class PhantomFinding:
    """One finding of one study.

    Attributes:
        name: its name in the concept table.
        side: "left", "right", "bilateral", or "" for what lies in the middle.
        severity: 0 (slight) to 1 (severe).
        zone: "upper", "mid" or "lower".
    """

    name: str
    side: str
    severity: float
    zone: str


@dataclass(frozen=True)
class Study:
    """One examination of one patient.

    Attributes:
        split: "train", "valid" or "test"; the patient's.
        findings: present in this study.
        resolved: names of findings that the patient's previous study had and this one has not.
        number: 0 for the patient's first study.
    """

    study_id: str
    patient_id: str
    split: str
    findings: tuple[PhantomFinding, ...]
    resolved: tuple[str, ...] = ()
    number: int = 0


def device_kinds(finding: PhantomFinding) -> tuple[str, ...]:
    """The devices of a finding of Support Devices, in image and report alike.

    >>> device_kinds(PhantomFinding("Support Devices", "", 0.9, "lower"))
    ('pacemaker', 'stomach tube')
    """
    first = {"upper": "endotracheal tube", "mid": "venous line", "lower": "pacemaker"}[finding.zone]
    return (first, "stomach tube") if finding.severity > 0.6 else (first,)


def draw_studies(rng: np.random.Generator, num_studies: int, prefix: str) -> Iterator[Study]:
    """Draw patients with one to four studies each, `num_studies` in total."""
    study, patient = 0, 0
    (splits,) = rng.spawn(1)
    while study < num_studies:
        patient_id = f"{prefix}p{patient:05d}"
        split = str(splits.choice(list(_SPLITS), p=list(_SPLITS.values())))
        previous: tuple[PhantomFinding, ...] = ()
        for number in range(rng.choice(4, p=(0.55, 0.25, 0.13, 0.07)) + 1):
            if study == num_studies:
                return
            findings = _next_findings(rng, previous) if number else _first_findings(rng)
            names = {finding.name for finding in findings}
            resolved = tuple(finding.name for finding in previous if finding.name not in names)
            yield Study(f"{prefix}s{study:05d}", patient_id, split, findings, resolved, number)
            previous = findings
            study += 1
        patient += 1


def _first_findings(rng: np.random.Generator) -> tuple[PhantomFinding, ...]:
    kind = rng.random()
    if kind < 0.27:
        names = ["Support Devices"] if rng.random() < 0.1 else []
        return tuple(_draw_finding(rng, name) for name in names)
    names = []
    if kind < 0.55:
        names.append(EVALUATED[rng.integers(5)])
    elif kind < 0.85:
        names.extend(_TOGETHER[rng.integers(len(_TOGETHER))])
    rates = np.array(_FURTHER_RATES) * (1 if names else 3)
    names.extend(name for name, rate in zip(FURTHER, rates, strict=True) if rng.random() < rate)
    names = names or [FURTHER[rng.integers(5)]]
    return tuple(_draw_finding(rng, name) for name in names)


def _next_findings(
    rng: np.random.Generator, previous: tuple[PhantomFinding, ...]
) -> tuple[PhantomFinding, ...]:
    """Draw new findings, or (half of the time) keep most previous findings with changed severity."""
    if rng.random() < 0.5 or not previous:
        return _first_findings(rng)
    kept = [finding for finding in previous if rng.random() < 0.65]
    changed = np.clip([f.severity + rng.normal(0, 0.2) for f in kept], 0, 1)
    return tuple(replace(f, severity=float(s)) for f, s in zip(kept, changed, strict=True))


def _draw_finding(rng: np.random.Generator, name: str) -> PhantomFinding:
    side = str(rng.choice(("left", "right", "bilateral"), p=(0.4, 0.4, 0.2)))
    if name in _MIDLINE:
        side = ""
    elif name in _BILATERAL:
        side = "bilateral"
    zone = str(rng.choice(("upper", "mid", "lower")))
    return PhantomFinding(name, side, float(rng.random()), zone)
