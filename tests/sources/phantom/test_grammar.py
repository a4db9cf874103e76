"""The reports: what they say is what their states say, in varied words, half of them denials."""

import re

import numpy as np
import pytest

from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources.phantom import FINDINGS, wording
from medclip_keras.sources.phantom.cohort import PhantomFinding, Study, draw_studies
from medclip_keras.sources.phantom.grammar import write_report

POSITIVE, NEGATIVE, UNCERTAIN = LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN
DENIAL = re.compile(
    r"\b(no|not|without|negative|free|neither|absen\w+|fails|nothing|resol\w+|cleared|disappeared|removed"
    r"|normal in size|within normal)\b",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def written():
    """Pairs of a study and its report."""
    rng = np.random.default_rng(11)
    return [(study, write_report(study, rng)) for study in draw_studies(rng, 600, "g")]


def lists_in(value):
    """Every list of texts in a value of JSON types."""
    parts = list(value.values() if isinstance(value, dict) else value)
    return [parts] if isinstance(parts[0], str) else [found for part in parts for found in lists_in(part)]


def test_entries_differ_within_their_list():
    lists = lists_in(wording._WORDING)
    assert sum(map(len, lists)) > 200
    for entries in lists:
        assert len({entry.lower() for entry in entries}) == len(entries)


def test_write_report_is_decided_by_the_generator():
    study = next(draw_studies(np.random.default_rng(2), 1, "d"))
    first, again, other = (write_report(study, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first == again
    assert first.text != other.text


def test_states_cover_the_findings_and_never_contradict_the_study(written):
    for study, report in written:
        present = {finding.name for finding in study.findings}
        assert set(report.states) == {*FINDINGS, "No Finding"}
        for name in FINDINGS:
            state = report.states[name]
            assert state in (POSITIVE, UNCERTAIN) if name in present else state != POSITIVE


def test_no_finding_is_positive_only_beside_devices(written):
    normal = [(study, report) for study, report in written if report.states["No Finding"] == POSITIVE]
    assert 0.15 < len(normal) / len(written) < 0.35
    for study, report in normal:
        assert {finding.name for finding in study.findings} <= {"Support Devices"}
        assert UNCERTAIN not in report.states.values()


def test_every_state_occurs_for_every_finding(written):
    for name in FINDINGS:
        seen = {report.states[name] for _, report in written}
        expected = {POSITIVE, NEGATIVE, LabelState.NOT_MENTIONED, UNCERTAIN}
        assert seen == expected - ({UNCERTAIN} if name == "Support Devices" else set())


def naming_sentences(text):
    """Sentences after the indication that name a finding by one of the grammar's nouns."""
    text = re.sub(r"^(INDICATION|HISTORY|REASON FOR EXAM|EXAM\w*|STUDY|COMPARISON):.*$", "", text, flags=re.M)
    words = {w for t in (wording.NOUNS, wording.DENIED) for entries in t.values() for w in entries}
    words = {part.lower() for word in words for part in word.split("|")}
    sentences = re.split(r"[.\n]\s*", text)
    return [s for s in sentences if any(word in s.lower() for word in words)]


def test_half_of_the_sentences_that_name_a_finding_are_denials(written):
    sentences = [s for _, report in written for s in naming_sentences(report.text)]
    share = np.mean([bool(DENIAL.search(s)) for s in sentences])
    assert 0.4 < share < 0.6


def test_reports_vary_in_form_and_words(written):
    texts = [report.text for _, report in written]
    assert len(set(texts)) > 0.99 * len(texts)
    assert 0.03 < np.mean([text.isupper() for text in texts]) < 0.12
    unheaded = [text for text in texts if not re.search(r"FINDINGS|IMPRESSION|CONCLUSION", text)]
    assert 0.05 < len(unheaded) / len(texts) < 0.15
    for _, report in written:
        assert not re.search(r"[{}]|  |\.\.", report.text)


def write(findings, seed, resolved=()):
    return write_report(Study("s", "p", "train", tuple(findings), resolved), np.random.default_rng(seed))


def test_side_place_and_severity_are_written():
    finding = PhantomFinding("Pleural Effusion", "left", 0.9, "lower")
    texts = [write([finding], seed).text.lower() for seed in range(40)]
    assert all("left" in text for text in texts)
    assert any(re.search(r"\b(large|massive)\b", text) for text in texts)
    assert not any(re.search(r"\b(small|tiny|trace)\b[\w ]*(effusion|fluid|hydro)", text) for text in texts)


def test_the_other_side_is_denied_now_and_then_and_the_finding_stays_positive():
    denied = {"left": 0, "right": 0}
    for seed in range(120):
        report = write([PhantomFinding("Pneumothorax", "left", 0.9, "mid")], seed)
        assert report.states["Pneumothorax"] == POSITIVE
        for side in denied:
            pattern = rf"no {side} [a-z ]*pneumothorax|{side} hemithorax shows no"
            denied[side] += bool(re.search(pattern, report.text, re.IGNORECASE))
    assert denied["left"] == 0
    assert denied["right"] > 10


def test_slight_findings_are_sometimes_hedged_and_severe_ones_never():
    for severity, expected in ((0.1, {POSITIVE, UNCERTAIN}), (0.9, {POSITIVE})):
        edema = PhantomFinding("Edema", "bilateral", severity, "mid")
        assert {write([edema], seed).states["Edema"] for seed in range(40)} == expected


def test_a_resolved_finding_is_negative_and_the_chest_may_be_normal():
    reports = [write([], seed, resolved=("Edema",)) for seed in range(40)]
    told = [r for r in reports if re.search("resol|cleared|disappeared|no longer", r.text, re.IGNORECASE)]
    assert len(told) > 15
    assert all(r.states["Edema"] == NEGATIVE for r in told)
    assert any(r.states["No Finding"] == POSITIVE for r in told)


def test_the_indication_does_not_count():
    named = 0
    for seed in range(300):
        report = write([], seed)
        rest = re.sub(r"(INDICATION|HISTORY|REASON FOR EXAM): .*", "", report.text)
        if "mphysem" in report.text and "mphysem" not in rest:
            named += 1
            assert report.states["Emphysema"] == LabelState.NOT_MENTIONED
    assert named >= 5
