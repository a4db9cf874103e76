"""The figures as rows of a table: one list for the terminal and for the HTML report."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich import box
from rich.table import Table

from medclip_keras.evaluation.metrics import Estimate
from medclip_keras.evaluation.run import TRAINED, UNTRAINED
from medclip_keras.evaluation.zero_shot import MODES

COLUMNS = ("", "trained [95 % CI]", "untrained", "chance")

_NAMES = {"accuracy": "accuracy", "auroc": "AUROC"}


@dataclass(frozen=True)
class Row:
    """One figure of the trained model, beside the untrained one and chance."""

    name: str
    trained: Estimate
    untrained: Estimate | None
    chance: float

    def cells(self) -> tuple[str, str, str, str]:
        """The row as text, for `COLUMNS`; of the untrained model the value without its interval."""
        untrained = _text(self.untrained).partition(" ")[0]
        return self.name, _text(self.trained), untrained, f"{self.chance:.3f}"


def rows(metrics: Mapping) -> list[Row]:
    """All rows of one data set's metrics: zero-shot figures of both modes, Precision@K, classifiers."""
    return [
        *_zero_shot_rows(metrics.get("zero_shot")),
        *_retrieval_rows(metrics.get("retrieval")),
        *_classifier_rows("linear probe", metrics.get("probe")),
        *_classifier_rows("supervised", metrics.get("supervised")),
    ]


def terminal_table(name: str, metrics: Mapping) -> Table:
    """The rows of one data set for the terminal."""
    table = Table(
        title=f"{name}: {sizes(metrics)}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for column in COLUMNS:
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for row in rows(metrics):
        table.add_row(*row.cells())
    return table


def sizes(metrics: Mapping) -> str:
    """How many images, patients, queries and sentences stand behind the figures."""
    parts = []
    classified = [metrics[task] for task in ("zero_shot", "probe", "supervised") if task in metrics]
    if classified:
        m = classified[0]  # all of them classify the same images
        parts.append(f"{m['num_images']} images of {m['num_patients']} patients")
    if "retrieval" in metrics:
        m = metrics["retrieval"]
        parts.append(f"{m['num_queries']} queries among {sum(m['num_candidates'].values())} sentences")
    for m in classified:
        if "num_training_images" in m:
            parts.append(f"{max(m['num_training_images'].values())} training images")
    return ", ".join(parts) or "nothing to evaluate"


def share_of_labels(share: str) -> str:
    """How a share of the labelled images is called.

    >>> share_of_labels("0.01"), share_of_labels("1")
    ('1 % of labels', 'all labels')
    """
    return "all labels" if share == "1" else f"{100 * float(share):g} % of labels"


def _zero_shot_rows(metrics: Mapping | None) -> list[Row]:
    if not metrics:
        return []
    found = []
    for mode in MODES:
        for key, chance in metrics["chance"].items():
            prefix = "macro " if key == "auroc" else ""
            name = f"zero-shot {prefix}{_NAMES[key]}, {mode}"
            found.append(_row(name, metrics, (mode, key), chance))
    if metrics["task"] == "multi_label":
        for mode in MODES:
            for name in metrics["num_positive"]:
                path = (mode, "by_class", name, "auroc")
                found.append(_row(f"  AUROC {name}, {mode}", metrics, path, metrics["chance"]["auroc"]))
    return found


def _classifier_rows(kind: str, metrics: Mapping | None) -> list[Row]:
    if not metrics:
        return []
    found = []
    for share in metrics["num_training_images"]:
        for key, chance in metrics["chance"].items():
            name = f"{kind} {'macro ' if key == 'auroc' else ''}{_NAMES[key]}{_unless_all(share)}"
            found.append(_row(name, metrics, (share, key), chance))
        if metrics["task"] == "multi_label":
            for name in metrics["num_positive"]:
                path = (share, "by_class", name, "auroc")
                label = f"  AUROC {name}, {kind}{_unless_all(share)}"
                found.append(_row(label, metrics, path, metrics["chance"]["auroc"]))
    return found


def _unless_all(share: str) -> str:
    return "" if share == "1" else f", {share_of_labels(share)}"


def _retrieval_rows(metrics: Mapping | None) -> list[Row]:
    if not metrics:
        return []
    return [
        _row(f"image → text precision@{key.rpartition('_')[2]}", metrics, (key,), chance)
        for key, chance in metrics["chance"].items()
    ]


def _row(name: str, metrics: Mapping, path: tuple[str, ...], chance: float) -> Row:
    found = {}
    for who in (TRAINED, UNTRAINED):
        node = metrics.get(who)
        for key in path if node else ():
            node = node[key]
        found[who] = Estimate.from_dict(node) if node else None
    return Row(name, found[TRAINED], found[UNTRAINED], chance)


def _text(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value != estimate.value:
        return "–"
    interval = f" [{estimate.low:.3f}, {estimate.high:.3f}]" if estimate.low == estimate.low else ""
    return f"{estimate.value:.3f}{interval}"
