"""Writes a report that says what a study shows."""

from dataclasses import dataclass

import numpy as np

from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources.phantom.cohort import FINDINGS, Study

_NAMES = {
    "Atelectasis": ("atelectasis", "atelectatic change"),
    "Cardiomegaly": ("cardiomegaly", "cardiac enlargement"),
    "Consolidation": ("consolidation", "consolidative opacity"),
    "Edema": ("pulmonary edema", "interstitial edema"),
    "Pleural Effusion": ("pleural effusion", "pleural fluid"),
    "Pneumothorax": ("pneumothorax",),
    "Nodule": ("pulmonary nodule", "lung nodule"),
    "Fracture": ("rib fracture",),
    "Support Devices": ("central venous catheter", "endotracheal tube"),
    "Emphysema": ("emphysema",),
}


@dataclass(frozen=True)
class WrittenReport:
    """A report's text and, by concept name, what it says."""

    text: str
    states: dict[str, LabelState]


def write_report(study: Study, rng: np.random.Generator) -> WrittenReport:
    """Writes one report."""
    present = {finding.name: finding for finding in study.findings}
    states = dict.fromkeys((*FINDINGS, "No Finding"), LabelState.NOT_MENTIONED)
    sentences = []
    for name in rng.permutation(FINDINGS):
        word = str(rng.choice(_NAMES[name]))
        if name in present:
            states[name] = LabelState.POSITIVE
            sentences.append(f"There is {present[name].side} {word}.".replace("  ", " "))
        elif rng.random() < 0.4:
            states[name] = LabelState.NEGATIVE
            sentences.append(f"There is no {word}.")
    impression = " ".join(sentences[:2])
    if not set(present) - {"Support Devices"}:
        states["No Finding"] = LabelState.POSITIVE
        impression = "No acute cardiopulmonary abnormality."
    text = f"FINDINGS: {' '.join(sentences)}\n\nIMPRESSION: {impression}\n"
    return WrittenReport(text, states)
