"""The validation of a dataset as one self-contained page."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from beam_jobs.validation.anomalies import Anomaly, Comparison
from beam_jobs.validation.facts import NUMBER, STATES, WORDS
from beam_jobs.validation.statistics import Statistics
from medclip_keras.pages import fill_template, html_table

_NUM_COMPARISONS = 12
_STATED = tuple(state for state in STATES if state != "not_mentioned")
_SPLITS = ("split", "records", "patients", "with a label", "with sentences", "sentences")
_IMAGES = ("frontal", "lateral", "repeated", "blank")
_NUMBERS = ("number", "split", "count", "mean", "standard deviation", "least", "median", "most")
_LABELS = ("concept", "split", *_STATED, "positive, %")
_COMPARISONS = ("feature", "value", "split", "compared with", "difference", "threshold", "p", "")


def render_page(
    title: str,
    note: str,
    statistics: Statistics,
    anomalies: Sequence[Anomaly],
    comparisons: Sequence[Comparison],
) -> str:
    """The page as HTML: the anomalies, the statistics, and the largest of the comparisons."""
    with_images = any("image" in split.lengths for split in statistics.values())
    tables = {
        "Splits": html_table(_SPLITS + _IMAGES * with_images, _split_rows(statistics, with_images)),
        "Numbers": html_table(_NUMBERS, _number_rows(statistics)),
        "Labels of the records": html_table(_LABELS, _label_rows(statistics, "label_states/")),
        "Labels of the sentences": html_table(_LABELS, _label_rows(statistics, "sentences/label_states/")),
        "Largest differences": html_table(_COMPARISONS, _comparison_rows(comparisons)),
    }
    values = {"title": title, "note": note, "anomalies": anomalies, "tables": tables}
    return fill_template("beam_jobs.validation", "page.html", **values)


def summarise(counts: Mapping[float, int]) -> tuple[float, ...]:
    """Count, mean, standard deviation, least, median and most of a number, given how often each value occurs.

    >>> [round(value, 2) for value in summarise({1.0: 2, 4.0: 1})]
    [3, 2.0, 1.41, 1.0, 1.0, 4.0]
    """
    values = np.sort(np.repeat(list(counts), list(counts.values())))
    return len(values), values.mean(), values.std(), values[0], values[(len(values) - 1) // 2], values[-1]


def _split_rows(statistics: Statistics, with_images: bool) -> Iterator[list[str]]:
    for name, split in statistics.items():
        totals, with_sentences = split.totals, split.totals["records"] - split.numbers[NUMBER][0]
        cells = [totals["records"], totals["patient_id"], totals["labelled"], with_sentences]
        cells.append(split.numbers[WORDS].total())
        if with_images:
            counts = split.categories.get("view", Counter()) + split.faults.get("image", Counter())
            cells += [counts[column] for column in _IMAGES]
        yield [name, *(f"{cell:,}" for cell in cells)]


def _number_rows(statistics: Statistics) -> Iterator[list[str]]:
    for name, split in statistics.items():
        for number, counts in split.numbers.items():
            if counts:
                count, *moments = summarise(counts)
                yield [number, name, f"{count:,}", *(f"{value:,.1f}" for value in moments)]


def _label_rows(statistics: Statistics, parent: str) -> Iterator[list[str]]:
    """A row for each concept and split, of the concepts that some record states."""
    names = dict.fromkeys(name for split in statistics.values() for name in split.categories)
    for name in filter(lambda name: name.startswith(parent), names):
        counts = {split: own.categories.get(name, Counter()) for split, own in statistics.items()}
        if any(own.keys() - {"not_mentioned", "unlabelled"} for own in counts.values()):
            for split, own in counts.items():
                share = 100 * own["positive"] / max(own.total() - own["unlabelled"], 1)
                stated = (f"{own[state]:,}" for state in _STATED)
                yield [name.removeprefix(parent), split, *stated, f"{share:.1f}"]


def _comparison_rows(comparisons: Sequence[Comparison]) -> Iterator[list[str]]:
    largest = sorted(comparisons, key=lambda one: (one.exceeds, one.difference.distance), reverse=True)
    for one in largest[:_NUM_COMPARISONS]:
        difference, verdict = one.difference, "anomaly" if one.exceeds else ""
        numbers = f"{difference.distance:.3f}", f"{one.threshold:g}", f"{difference.p_value:.1e}"
        yield [one.feature, difference.value, one.split, one.reference, *numbers, verdict]
