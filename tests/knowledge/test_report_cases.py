"""Inputs made after public complaints about labellers of reports, each with its right labels.

`report_cases.jsonl` holds an input a line: `expected` the states of its findings ("a or b" allows both; all
others must not be mentioned), `ignored` the findings that may have any state. Three inputs of 100 kB stand in
it as their beginning; `LONG` makes them. `report_variants.jsonl` holds sentences of our own in the same form,
at least six for each cause of a failure, in three lots: 192 of 206, 179 of 192 and 147 of 155 were right at
the first run.
"""

import collections
import gc
import json
import pathlib
import time
from collections.abc import Iterator

import pytest

from medclip_keras.knowledge.concepts import load_table
from medclip_keras.knowledge.labeller import ReportLabeller
from medclip_keras.knowledge.linking import Linking
from medclip_keras.knowledge.sections import Section, split_sections
from medclip_keras.knowledge.states import LabelState

LONG = {
    "c266": "No pneumothorax. Small left effusion. " * 2700,
    "c268": "a" * 100_000 + " No effusion.",
    "c271": "pneumothorax and " * 6000 + "effusion is not seen",
}
FAILS = {
    "c155": "none, after a semicolon: its finding stands in another sentence",
    "c217": "a word that lacks its space before a known word",
    "c277": "Kerley lines are a sign of edema, on purpose",
}


def rows_of(name: str) -> list[dict]:
    lines = pathlib.Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


ROWS, VARIANTS = rows_of("report_cases.jsonl"), rows_of("report_variants.jsonl")


@pytest.fixture(scope="module")
def labellers() -> dict[str, ReportLabeller]:
    """By table; they read as `beam_jobs.label_reports` does."""
    return {name: ReportLabeller(load_table(name), Linking()) for name in {row["table"] for row in ROWS}}


@pytest.fixture
def without_collections() -> Iterator[None]:
    """No garbage collection, which would take as long as reading 100 kB."""
    gc.disable()
    yield
    gc.enable()


def problems(labeller: ReportLabeller, row: dict) -> list[str]:
    states = labeller.label(split_sections(LONG.get(row.get("id", ""), row["text"]))).states
    found = {
        name: LabelState(state).name.lower().replace("_", " ")
        for name, state in zip(labeller.table.names, states, strict=True)
        if name not in row["ignored"]
    }
    expected = {name: row["expected"].get(name, "not mentioned") for name in found}
    return [f"{n}: {s}, not {expected[n]}" for n, s in found.items() if s not in expected[n].split(" or ")]


def expected_to_fail(row: dict):
    reason = FAILS.get(row["id"])
    marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
    return pytest.param(row, marks=marks, id=f"{row['id']} {row['phenomenon']}: {row['text'][:50]}")


@pytest.mark.parametrize("row", [expected_to_fail(row) for row in ROWS])
def test_report_has_the_right_labels(labellers, row):
    assert problems(labellers[row["table"]], row) == []


@pytest.mark.parametrize("row", VARIANTS, ids=lambda row: f"{row['phenomenon']}: {row['text'][:50]}")
def test_variant_has_the_right_labels(labellers, row):
    assert problems(labellers["chest21"], row) == []


def test_every_phenomenon_has_six_variants():
    counts = collections.Counter(row["phenomenon"] for row in VARIANTS)
    assert min(counts.values()) >= 6
    assert len({row["text"] for row in VARIANTS}) == len(VARIANTS)


def test_nineteen_of_twenty_cases_are_right():
    assert len({row["id"] for row in ROWS}) == len(ROWS) == 206
    assert len(FAILS) <= 0.05 * len(ROWS)


@pytest.mark.parametrize(
    "text",
    [
        LONG["c271"],
        "No " + "pneumothorax and " * 6000 + "effusion.",
        "no effusion, " * 8000,
        "effusion (resolved) " * 5000,
        "No effusion on the right, small on the left, " * 2300,
        "right effusion not seen left effusion seen " * 2400,
        "so is effusion " * 6000,
        "enlarged heart " * 6500,
    ],
    ids=lambda text: text[:24],
)
def test_a_sentence_costs_time_in_proportion_to_its_length(labellers, text, without_collections):
    def seconds(length: int) -> float:
        started = time.thread_time()
        labels = labellers["chest21"].label([Section("findings", text[:length])])
        assert len(labels.mentions) > length / 50
        return time.thread_time() - started

    seconds(2000)
    # Quadratic costs would be 64 times those of an eighth. Seconds: tests/benchmarks/label_speed.py.
    assert seconds(len(text)) < 24 * max(seconds(len(text) // 8 + k) for k in range(3))


def test_a_denial_runs_through_a_list_of_any_length(labellers):
    for text in (LONG["c271"], "No " + "pneumothorax and " * 6000 + "effusion."):
        states = {m.assertion for m in labellers["chest21"].label([Section("findings", text)]).mentions}
        assert states == {"negative"}
