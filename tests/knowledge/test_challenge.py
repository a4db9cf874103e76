"""Sentences of our own, one phenomenon each, beside what a reader of reports would take from them.

`challenge.jsonl` holds a sentence (or a short report) a line: its phenomenon, its text, the state of every
finding that it speaks of, the `assertion` where "historical" is the point, `late` where it was written after
the extractor was tuned, and `fails`, why the extractor reads it in another way. What was expected was written
before the first runs, which read 173 of the first 198 rightly and 109 of the 119 late ones, without linking.
"""

import collections
import json
import pathlib

import pytest

from medclip_keras.knowledge.assertion import HISTORICAL, NEGATIVE, POSITIVE, UNCERTAIN
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.knowledge.labeller import ReportLabeller
from medclip_keras.knowledge.linking import Linking
from medclip_keras.knowledge.sections import split_sections
from medclip_keras.knowledge.states import LabelState

ROWS = [
    json.loads(line)
    for line in pathlib.Path(__file__).with_name("challenge.jsonl").read_text(encoding="utf-8").splitlines()
]
TABLE = load_table("chest21")


@pytest.fixture(scope="module")
def linking() -> ReportLabeller:
    """Reads as `beam_jobs.label_reports` does: the dictionary, and misspelled words linked to it."""
    return ReportLabeller(TABLE, Linking())


@pytest.fixture(scope="module")
def dictionary() -> ReportLabeller:
    return ReportLabeller(TABLE)


def is_right(labeller: ReportLabeller, row: dict, blind_to: str = "") -> bool:
    """Whether every state is the expected one, no finding is missing, and none is added.

    `blind_to` an assertion takes its mentions for positive ones.
    """
    mentions = labeller.label(split_sections(row["text"])).mentions
    mentions = [
        mention._replace(assertion=POSITIVE) if mention.assertion == blind_to else mention
        for mention in mentions
    ]
    states = {
        name: LabelState(state).name.lower()
        for name, state in zip(TABLE.names, labeller.states(mentions), strict=True)
        if state
    }
    said = {(mention.name, mention.assertion) for mention in mentions}
    return states == row["expected"] and said.issuperset(row.get("assertion", {}).items())


def expected_to_fail(row: dict):
    """A failure that is listed must stay one: where it begins to pass, its line is to be mended."""
    marks = [pytest.mark.xfail(reason=row["fails"], strict=True)] if "fails" in row else []
    return pytest.param(row, marks=marks, id=f"{row['phenomenon']}: {row['text'][:60]}")


@pytest.mark.parametrize("row", [expected_to_fail(row) for row in ROWS])
def test_challenge_sentence_has_the_expected_states(linking, row):
    assert is_right(linking, row)


def test_linking_gains_only_misspelled_sentences(linking, dictionary):
    lost = {row["phenomenon"] for row in ROWS if is_right(linking, row) and not is_right(dictionary, row)}
    assert lost == {"misspelling"}


@pytest.mark.parametrize("assertion", [NEGATIVE, UNCERTAIN, HISTORICAL])
def test_challenge_detects_a_missing_assertion(dictionary, assertion):
    seen = sum(is_right(dictionary, row) for row in ROWS)
    assert sum(is_right(dictionary, row, blind_to=assertion) for row in ROWS) < seen - 10


def test_challenge_rows_are_unique_and_valid():
    assert len({row["text"] for row in ROWS}) == len(ROWS) >= 300
    assert sum(row.get("late", False) for row in ROWS) * 3 >= len(ROWS)
    assert sum("fails" in row for row in ROWS) <= 0.05 * len(ROWS)
    for row in ROWS:
        assert row.keys() <= {"phenomenon", "text", "expected", "assertion", "late", "fails"}
        assert set(row["expected"]) <= set(TABLE.names)
        assert set(row["expected"].values()) <= {"positive", "negative", "uncertain"}
        assert set(row.get("assertion", {})) <= set(row["expected"])
        assert row.get("fails", "a reason")


def test_every_phenomenon_has_early_and_late_sentences():
    early, late = (
        collections.Counter(row["phenomenon"] for row in ROWS if row.get("late", False) is is_late)
        for is_late in (False, True)
    )
    assert early.keys() == late.keys()
    assert min((early + late).values()) >= 3
    assert {state for row in ROWS for state in row["expected"].values()} == {
        *("positive", "negative", "uncertain")
    }
