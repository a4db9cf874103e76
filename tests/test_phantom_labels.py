"""The label of a phantom report, found from its text by the job, beside the states it was written from."""

import dataclasses
import json

import numpy as np
import pytest

from beam_jobs import label_reports
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import phantom

NUM_REPORTS = 600
NAMES = (*phantom.FINDINGS, "No Finding")


@dataclasses.dataclass(frozen=True)
class Phantoms:
    """Reports with their truth, and the lines that the job wrote of them, by report."""

    truth: dict[str, dict[str, LabelState]]
    lines: dict[str, dict]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Phantoms:
    """600 reports of a seed that nobody looked at while the extractor was written."""
    root = tmp_path_factory.mktemp("phantoms")
    archive, mentions = root / "archive", root / "mentions"
    phantom.write_phantom(archive, seed=20_260, num_paired=0, num_image_only=0, num_text_only=NUM_REPORTS)
    label_reports.run(
        source="phantom", input=str(archive), output=str(root / "records"), mentions=str(mentions)
    )
    lines = [json.loads(line) for path in mentions.iterdir() for line in path.read_text().splitlines()]
    return Phantoms(phantom.report_truth(archive), {line["report_id"]: line for line in lines})


def said(line: dict) -> dict[str, LabelState]:
    """What the job found in a report, by finding."""
    found = {name: LabelState[state.upper()] for name, state in line["findings"].items()}
    return {name: found.get(name, LabelState.NOT_MENTIONED) for name in NAMES}


def test_every_report_has_its_line(phantoms):
    assert len(phantoms.truth) == NUM_REPORTS
    assert phantoms.lines.keys() == phantoms.truth.keys()


def test_truth_has_every_state_of_every_finding(phantoms):
    for name in phantom.FINDINGS:
        states = {states[name] for states in phantoms.truth.values()}
        missing = {LabelState.UNCERTAIN} if name == "Support Devices" else set()
        assert states == set(LabelState) - {LabelState.UNLABELLED} - missing
    assert {s["No Finding"] for s in phantoms.truth.values()} == {
        LabelState.POSITIVE,
        LabelState.NOT_MENTIONED,
    }


def test_labels_are_the_states_that_the_reports_were_written_from(phantoms):
    right = [said(line) == phantoms.truth[key] for key, line in phantoms.lines.items()]
    assert np.mean(right) >= 0.99
