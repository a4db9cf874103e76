"""The statistics and anomalies of a dataset as one self-contained page that a person can read."""

import html
import math
import pathlib
import string
from collections.abc import Iterable, Mapping, Sequence

from tensorflow_metadata.proto.v0 import statistics_pb2

from beam_jobs.validation.anomalies import Anomaly, Comparison, num_patients
from beam_jobs.validation.statistics_proto import (
    BRIGHTNESS,
    NUMBER,
    STATES,
    WORDS,
    common_stats,
    custom,
    features_by_name,
    value_counts,
)

_Split = statistics_pb2.DatasetFeatureStatistics
_CHARTS = {
    BRIGHTNESS: "Mean brightness of an image, 0 to 255",
    WORDS: "Words of a sentence",
    NUMBER: "Sentences of a record",
}
# The order in which a bar shows them.
_BAR = ("positive", "uncertain", "negative", "not_mentioned")
_NUM_COMPARISONS = 12


def render_page(
    title: str,
    note: str,
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
    anomalies: Sequence[Anomaly],
    comparisons: Sequence[Comparison],
) -> str:
    """The page.

    Args:
        title: what the records are.
        note: what they were made from, in a line.
        statistics: of the dataset.
        anomalies: of `find_anomalies`.
        comparisons: between splits and runs.
    """
    splits = list(statistics.datasets)
    template = string.Template((pathlib.Path(__file__).parent / "page.html").read_text())
    sections = [
        _section("Splits", _splits(splits)),
        *(_section(name, _charts(splits, feature)) for feature, name in _CHARTS.items()),
        _section("Labels of the records", _labels(splits, "label_states")),
        _section("Labels of the sentences", _labels(splits, "sentences/label_states")),
        _section("Nearest to their bounds", _comparisons(comparisons)),
        _section("Fields", _fields(splits)),
    ]
    return template.substitute(
        title=html.escape(title),
        note=html.escape(note),
        verdict_class="bad" if anomalies else "good",
        verdict=_verdict(anomalies),
        sections="\n".join(filter(None, sections)),
    )


def _verdict(anomalies: Sequence[Anomaly]) -> str:
    if not anomalies:
        return "<h2>No anomaly</h2>"
    items = "".join(
        f"<li><code>{html.escape(one.name)}</code> {html.escape(one.sentence)}</li>" for one in anomalies
    )
    noun = "anomaly" if len(anomalies) == 1 else "anomalies"
    return f"<h2>{len(anomalies)} {noun}</h2><ul>{items}</ul>"


def _section(name: str, content: str) -> str:
    return f"<h2>{html.escape(name)}</h2>\n{content}" if content else ""


def _splits(splits: Sequence[_Split]) -> str:
    header = ["", "records", "patients", "with a label", "with sentences", "sentences"]
    with_images = any("image" in features_by_name(split) for split in splits)
    if with_images:
        header += ["frontal", "lateral", "other view", "the same picture again", "one shade"]
    rows = []
    for split in splits:
        features = features_by_name(split)
        texts = common_stats(features["sentences/text"])
        labelled = custom(features["label_states"]).get("labelled_records", 0)
        row = [split.num_examples, num_patients(split), labelled, texts.num_non_missing, texts.tot_num_values]
        if with_images:
            views, image = value_counts(features["view"]), custom(features["image"])
            known = [views.get(view, 0) for view in ("frontal", "lateral")]
            row += [*known, split.num_examples - sum(known)]
            row += [image.get("repeated", 0), image.get("blank", 0)]
        rows.append([split.name, *(f"{int(count):,}" for count in row)])
    return _table(header, rows)


def _labels(splits: Sequence[_Split], field: str) -> str:
    by_split = [(split.name, features_by_name(split)) for split in splits]
    names = [name for name in (by_split[0][1] if by_split else ()) if name.startswith(f"{field}/")]
    header, rows, silent = ["concept"], [], []
    for name, _ in by_split:
        header += [name, "positive"]
    for name in names:
        counts = [value_counts(features[name]) for _, features in by_split]
        concept = name.removeprefix(f"{field}/")
        if not any(sum(own.values()) - own.get("not_mentioned", 0) for own in counts):
            silent.append(concept)
            continue
        row = [html.escape(concept)]
        for own in counts:
            row += [_bar(own), _share(own.get("positive", 0), sum(own.values()))]
        rows.append(row)
    if not rows:
        return ""
    never = f'<p class="note">Never said: {html.escape(", ".join(silent))}.</p>' if silent else ""
    return _key() + _table(header, rows, escape=False) + never


def _bar(counts: Mapping[str, int]) -> str:
    total = max(sum(counts.values()), 1)
    parts = [(state, counts.get(state, 0)) for state in _BAR]
    said = ", ".join(f"{state.replace('_', ' ')} {count}" for state, count in parts)
    spans = "".join(
        f'<span class="{state}" style="width:{100 * n / total:.2f}%"></span>' for state, n in parts
    )
    return f'<div class="states" role="img" aria-label="{said}" title="{said}">{spans}</div>'


def _key() -> str:
    keys = "".join(f'<i class="{state}"></i>{state.replace("_", " ")}' for state in _BAR if state in STATES)
    return f'<p class="note key">{keys}</p>'


def _share(count: int, total: int) -> str:
    return f"{count:,} ({100 * count / max(total, 1):.1f} %)"


def _charts(splits: Sequence[_Split], name: str) -> str:
    figures = []
    for split in splits:
        feature = features_by_name(split).get(name)
        if feature is None or not feature.num_stats.histograms:
            continue
        stats = feature.num_stats
        caption = (
            f"mean {stats.mean:.1f}, standard deviation {stats.std_dev:.1f}, "
            f"{stats.min:.0f} to {stats.max:.0f}"
        )
        chart = _svg(stats.histograms[0].buckets, f"{name} in {split.name}: {caption}")
        figures.append(f"<figure><h3>{split.name}</h3>{chart}<figcaption>{caption}</figcaption></figure>")
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def _svg(buckets: Sequence, label: str) -> str:
    width, height, step = 330, 110, 330 / len(buckets)
    most = max(bucket.sample_count for bucket in buckets) or 1
    parts = [f'<line x1="0" y1="{height}" x2="{width}" y2="{height}"/>']
    for position, bucket in enumerate(buckets):
        tall = (height - 4) * bucket.sample_count / most
        said = f"{_bin(bucket)}: {int(bucket.sample_count):,}"
        parts.append(
            f'<rect x="{position * step + 1:.1f}" y="{height - tall:.1f}" width="{step - 2:.1f}" '
            f'height="{tall:.1f}"><title>{said}</title></rect>'
        )
        every = 2 if len(buckets) > 13 else 1
        if position % every == 0:
            x, anchor = (position * step, "start") if position == 0 else ((position + 0.5) * step, "middle")
            parts.append(f'<text x="{x:.1f}" y="{height + 13}" text-anchor="{anchor}">{_bin(bucket)}</text>')
    return (
        f'<svg width="{width}" height="{height + 18}" viewBox="0 0 {width} {height + 18}" role="img" '
        f'aria-label="{html.escape(label)}">{"".join(parts)}</svg>'
    )


def _bin(bucket) -> str:
    if math.isinf(bucket.high_value):
        return f"{bucket.low_value:g}+"
    return f"{bucket.low_value:g}"


def _comparisons(comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return ""

    def nearness(one: Comparison) -> tuple[bool, float]:
        return one.exceeds, one.difference.distance / (one.threshold + one.difference.chance)

    rows = []
    for one in sorted(comparisons, key=nearness, reverse=True)[:_NUM_COMPARISONS]:
        against = "train" if one.kind == "skew" else f"{one.split} of the last run"
        what = one.difference.value.replace("_", " ") or "histogram"
        row = [one.feature, what, f"{one.split} against {against}", f"{one.difference.distance:.3f}"]
        rows.append(
            [*row, f"{one.threshold:g} + {one.difference.chance:.3f}", "anomaly" if one.exceeds else ""]
        )
    header = ["feature", "of", "compared", "difference", "allowed: threshold + chance", ""]
    note = (
        '<p class="note">Differences of shares, or Jensen-Shannon divergences of histograms in bits. '
        "Chance is what so few patients may differ by.</p>"
    )
    return note + _table(header, rows, left=(1, 2))


def _fields(splits: Sequence[_Split]) -> str:
    header = ["field"]
    for split in splits:
        header += [f"missing in {split.name}", "values a record", "different"]
    names = [f for f in features_by_name(splits[0]) if f.count("/") < 2] if splits else []
    rows = []
    for name in names:
        if name.startswith("label_states/") or name in _CHARTS:
            continue
        row = [name]
        for split in splits:
            feature = features_by_name(split).get(name)
            row += _field_cells(feature, split.num_examples) if feature else ["", "", ""]
        rows.append(row)
    return _table(header, rows)


def _field_cells(feature, num_records: int) -> list[str]:
    stats = common_stats(feature)
    fewest, most = stats.min_num_values, stats.max_num_values
    values = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    unique = getattr(getattr(feature, feature.WhichOneof("stats")), "unique", 0)
    missing = _share(stats.num_missing, num_records) if stats.num_missing else "–"
    return [missing, values, f"{unique:,}" if unique else ""]


def _table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, escape: bool = True, left: tuple[int, ...] = ()
) -> str:
    def line(tag: str, cells: Sequence[str], escaped: bool) -> str:
        shown = [html.escape(cell) if escaped else cell for cell in cells]
        kinds = [' class="left"' if k in left else "" for k in range(len(shown))]
        return (
            "<tr>"
            + "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, shown, strict=True))
            + "</tr>"
        )

    body = "".join(line("td", row, escape) for row in rows)
    return f'<div class="scroll"><table>{line("th", header, True)}{body}</table></div>'
