"""The model card of a version, in Markdown, for the people who decide on its use.

Follows: Mitchell et al., "Model Cards for Model Reporting", FAT* 2019, as far as a run knows the answers.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from medclip_keras.config import RunConfig
from medclip_keras.evaluation.comparison import named_estimates
from medclip_keras.evaluation.metrics import Estimate
from medclip_keras.evaluation.results import UNTRAINED, Json
from medclip_keras.evaluation.table import value_text, with_interval
from medclip_keras.records.manifest import Manifest
from medclip_keras.serving.blessing import Blessing
from medclip_keras.serving.validate import Validation

_USE = """\
For research on chest radiographs and reports: to rank images against findings or sentences, to find similar
images and sentences, and as a starting point of other models. It is not a medical device, it was not examined
by an authority, and no decision on a patient may rest on its answers."""
_LIMITS = """\
- The figures hold for the held-out records named above. Other scanners, projections, populations, languages
  and prevalences give others: measure with `python -m medclip_keras.evaluate --saved_model …` before use.
- Labels were read from reports by rules, or come from the archive; their errors are in the model and in its
  figures. Findings that the concept table lacks, or that the training data never show, are unknown to it.
- Scores compare prompts with each other. They are no probabilities and no severities.
- Any picture gets an answer: the model does not notice that it is no chest radiograph.
- A model of patients' data may reveal whose data it saw. Treat it as those data."""
_SYNTHETIC = "**Trained on synthetic images and reports: it says nothing about medicine.**"


def model_card(
    run: Json,
    config: RunConfig,
    *,
    num_parameters: int,
    records: Sequence[Manifest],
    metrics: Json | None,
    blessing: Blessing,
    validation: Validation,
) -> str:
    """Markdown.

    Args:
        run: the content of run.json, with "step" and "exported", a date.
        config: its configuration.
        num_parameters: of both encoders.
        records: manifests of the records that the model was trained on, as far as they are at hand.
        metrics: the content of metrics.json, if it is of these weights.
        blessing: of these weights.
        validation: of this version.
    """
    license = config.export.license or (
        "not stated (`export.license` of the run states it). The terms of the training data hold for the "
        "weights too; those of credentialed archives, such as MIMIC-CXR, forbid to pass them on"
    )
    parts = [
        f"# {_cell(config.name)}",
        *([_SYNTHETIC] if config.data.phantom else []),
        _table(("", ""), _facts(run, config, num_parameters)),
        "## Data",
        *_data(records),
        "## Figures",
        *_figures(metrics),
        "## Blessing",
        blessing.status.capitalize() + ("" if blessing.status.endswith(".") else "."),
        "\n".join(f"- {_cell(str(verdict))}" for verdict in blessing.verdicts),
        "## Validation",
        *_validation(validation),
        "## Intended use",
        _USE,
        "## Limits",
        _LIMITS,
        "## Licence",
        f"Weights: {license}.\n\nCode: medclip_keras, Apache-2.0.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(run: Json, config: RunConfig, num_parameters: int) -> Iterable[tuple[str, ...]]:
    image, text = config.model.image, config.model.text
    yield "exported", str(run["exported"])
    yield "step, seed", f"{run['step']:,}, {config.seed}"
    yield "image encoder", f"{image.backbone}, {image.image_size} pixels, {image.preset or 'no preset'}"
    sizes = f"{text.num_layers} layers of {text.hidden_dim}"
    yield "text encoder", text.preset or f"{sizes}, no preset"
    yield "embedding", f"{config.model.projection_dim} dimensions"
    yield "parameters", f"{num_parameters:,}"
    yield "objective", config.objective.name
    yield "concept table", config.data.concepts
    found = run.get("versions", {})
    yield (
        "trained with",
        ", ".join(f"{name} {found[name]}" for name in ("medclip_keras", "commit") if name in found),
    )


def _data(records: Sequence[Manifest]) -> list[str]:
    if not records:
        return ["The records that it was trained on are not at hand, or its weights were converted."]
    rows = []
    for manifest in records:
        counts = (
            manifest.splits.get(split, {}).get("num_records", 0) for split in ("train", "valid", "test")
        )
        rows.append((manifest.source, manifest.kind, *(f"{count:,}" for count in counts)))
    return [_table(("archive", "records", "train", "valid", "test"), rows), "Splits are by patient."]


def _figures(metrics: Json | None) -> list[str]:
    if metrics is None:
        return ["These weights were not evaluated (`python -m medclip_keras.evaluate --workdir …`)."]
    trained, untrained = named_estimates(metrics), named_estimates(metrics, UNTRAINED)
    rows = [
        (name, with_interval(estimate), value_text(untrained.get(name)), value_text(_baseline(metrics, name)))
        for name, estimate in trained.items()
    ]
    note = f"Split: {metrics.get('split', 'unknown')}. Intervals are of a bootstrap over patients."
    return [_table(("metric", "value [95 % CI]", "untrained", "baseline"), rows), note]


def _baseline(metrics: Json, name: str) -> Estimate | None:
    """Baseline of a metric, without a look at the images; of a class's metrics that of the AUROC alone."""
    if ".by_class." in name and not name.endswith(".auroc"):
        return None
    for data_set, tasks in metrics["data"].items():
        for task, found in tasks.items():
            value = found.get("baseline", {}).get(name.rpartition(".")[2])
            if name.startswith(f"{data_set}.{task}.") and value is not None:
                return Estimate(value)
    return None


def _validation(validation: Validation) -> list[str]:
    said = f"Answers in a clean process differ from the model's by at most {validation.difference:.1e}."
    rows = [(name, f"{value:.1f}") for name, value in validation.milliseconds.items()]
    return [said, *([_table(("endpoint", "one request of one row, ms"), rows)] if rows else [])]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: Any) -> str:
    """Text that neither ends a cell nor begins another block.

    >>> _cell("a|b\\nc")
    'a\\\\|b c'
    """
    return " ".join(str(value).replace("|", "\\|").split())
