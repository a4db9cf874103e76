"""The release of a trained model: bless, validate and push a version for TensorFlow Serving."""

import dataclasses
import datetime
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from etils import epath
from rich.console import Console

from medclip_keras.config import EvaluationConfig, ExportConfig
from medclip_keras.errors import refusal, require, require_no_pattern
from medclip_keras.evaluation.comparison import named_estimates, paired_differences
from medclip_keras.evaluation.metrics import Bootstrap, Estimate
from medclip_keras.evaluation.results import TRAINED, UNTRAINED, Json
from medclip_keras.measure import find_records, measure_records
from medclip_keras.provenance import versions
from medclip_keras.records.manifest import MANIFEST_NAME, read_manifest
from medclip_keras.serving.blessing import Blessing, bless, find_metrics
from medclip_keras.serving.calibration import find_calibration
from medclip_keras.serving.embedders import model_embedder, saved_model_embedder
from medclip_keras.serving.folding import fold, foldable
from medclip_keras.serving.layout import EXTRA, MODEL_CARD, RUN_FILE, TOKENS_ONLY
from medclip_keras.serving.manifest import write_manifest
from medclip_keras.serving.model_card import model_card
from medclip_keras.serving.requests import warmup_requests
from medclip_keras.serving.signatures import Endpoints, export_model
from medclip_keras.serving.validate import TOLERANCE, Validation, validate
from medclip_keras.serving.versions import MODEL, push, remove_older, served, staging
from medclip_keras.serving.warmup import write_warmup
from medclip_keras.subject import Subject
from medclip_keras.training.model import MedCLIP
from medclip_keras.training.restore import LoadedModel, load_model
from medclip_keras.training.run_json import read_run_json

_OVERRIDE = "To push it without a blessing: --set 'export.thresholds=[]'."


def export_workdir(
    workdir: epath.PathLike,
    output: epath.PathLike,
    *,
    loaded: LoadedModel | None = None,
    console: Console | None = None,
    settings: ExportConfig | None = None,
    keep: int = 0,
) -> epath.Path:
    """Bless, validate and push the next version of a model; a refused version never appears.

    Args:
        workdir: of the trained run.
        output: the folder of the versions; TensorFlow Serving's model base path.
        loaded: the workdir's model, if already loaded.
        console: receives the outcome.
        settings: thresholds and limits; default: the run's.
        keep: number of largest versions that stay after the push, beside the one that was served; 0: all.

    Returns:
        output/<version>, the largest integer version plus 1; output/tokens_only/<version> is its twin.

    Raises:
        ValueError: no trained model in the workdir, a threshold on a metric that does not exist or that the
            model does not keep, or a SavedModel whose answers are slow or differ from the model's.
    """
    require_no_pattern("--output", output)
    console, workdir = console or Console(), epath.Path(workdir)
    settings = settings or read_run_json(workdir).export
    metrics = _read_metrics(workdir, settings)
    with staging(output) as staged:
        loaded = loaded or load_model(workdir)
        before = served(output)
        blessing = _bless(workdir, loaded, metrics, settings, before)
        _say(console, *map(str, blessing.verdicts), f"The model is {blessing.status}.")
        _require_blessing(blessing)
        validation = _write(staged, workdir, loaded, settings, metrics, blessing)
        version = push(staged, output)
    difference = f"{validation.difference:.1e} (allowed: {TOLERANCE:.0e})"
    _say(
        console, f"Exported {version}; in a clean process it differs from the trained model by {difference}."
    )
    if validation.milliseconds:
        times = ", ".join(f"{name} {value:.0f} ms" for name, value in validation.milliseconds.items())
        _say(console, f"One request of one row takes there, after warm-up: {times}.")
    if keep and (removed := remove_older(output, keep, before)):
        _say(console, f"Removed: {', '.join(map(str, removed))}.")
    return version if "://" in str(version) else pathlib.Path(version)


def _read_metrics(workdir: epath.Path, settings: ExportConfig) -> Json | None:
    """The content of evaluation/metrics.json; None without it, or if no threshold needs it and it is damaged.

    Raises:
        ValueError: a threshold on a metric that it does not have.
    """
    path, thresholds = workdir / "evaluation" / "metrics.json", settings.thresholds
    evaluate = f"Evaluate first: python -m medclip_keras.evaluate --workdir {workdir}."
    if not path.exists():
        form = "of an evaluated workdir, with evaluation/metrics.json"
        require(not thresholds, "export.thresholds", form, str(workdir), f"{evaluate} {_OVERRIDE}")
        return None
    try:
        metrics: Json = json.loads(path.read_text())
        estimates = named_estimates(metrics)
    except (ValueError, KeyError, TypeError, AttributeError):
        if not thresholds:
            return None
        form = "a metrics.json that medclip_keras.evaluate wrote"
        raise refusal("workdir", form, str(path), evaluate) from None
    for threshold in thresholds:
        find_metrics(threshold.metric, estimates, list(metrics["data"]))
    return metrics


def _bless(
    workdir: epath.Path,
    loaded: LoadedModel,
    metrics: Json | None,
    settings: ExportConfig,
    before: epath.Path | None,
) -> Blessing:
    if not settings.thresholds or metrics is None:
        return Blessing()
    evaluate = f"python -m medclip_keras.evaluate --workdir {workdir}"
    received = f"metrics.json of step {metrics.get('step')}, the weights of step {loaded.step}"
    form, advice = "of these weights' metrics", f"Evaluate again: {evaluate}. {_OVERRIDE}"
    require(_is_of(metrics, loaded), "export.thresholds", form, received, advice)
    held_out, split = "of held-out records, of the split valid or test", metrics.get("split", "")
    learned = _is_of_training(loaded, metrics)
    require(split in ("valid", "test") or not learned, "export.thresholds", held_out, split, advice)
    return bless(
        settings.thresholds,
        named_estimates(metrics),
        list(metrics["data"]),
        before,
        lambda: _differences(loaded, metrics, before),
    )


def _is_of_training(loaded: LoadedModel, metrics: Json) -> bool:
    """Whether metrics are of records that the model was trained on, by their paths or their content."""
    measured, trained = metrics.get("records", {}), loaded.config.data.images
    known = [path for path in trained if (epath.Path(path) / MANIFEST_NAME).exists()]
    return any(path in measured for path in trained) or any(
        read_manifest(path).fingerprint in measured.values() for path in known
    )


def _is_of(metrics: Json, loaded: LoadedModel) -> bool:
    """Whether metrics are of these weights; those of earlier releases do not say of which step they are."""
    scale, found = float(loaded.model.logit_scale()), metrics.get("logit_scale", math.nan)
    return metrics.get("step") == loaded.step and math.isclose(found, scale, rel_tol=1e-6)


def _differences(loaded: LoadedModel, metrics: Json, before: epath.Path | None) -> Mapping[str, Estimate]:
    """Differences of the model from the served version, on the records of metrics.json.

    Raises:
        ValueError: other records than then, or a served version that cannot embed them.
    """
    assert before is not None
    if not metrics.get("records"):  # of the user's own images, which stand in no records
        return {}
    for directory, fingerprint in metrics["records"].items():
        form = "compared on the records of metrics.json"
        same = read_manifest(directory).fingerprint == fingerprint
        require(same, "export.thresholds with max_drop", form, directory, "Evaluate again, for they changed.")
    embedder, config, _ = saved_model_embedder(before)
    sides = loaded.config.data.stored_image_size, config.data.stored_image_size
    form = f"a version for stored images of {sides[0]} pixels, as this model's"
    require(sides[0] == sides[1], "the served version", form, f"{before}, of {sides[1]}", _OVERRIDE)
    images, texts = find_records(list(metrics["records"]))
    # The evaluation's slot of a second model, the untrained one, takes the served version.
    embedders = {TRAINED: model_embedder(loaded.model, loaded.tokenizer), UNTRAINED: embedder}
    subject = Subject(loaded.config, loaded.table, embedders)
    subject = subject.with_config("data", images=tuple(images), texts=tuple(texts))
    evaluation = EvaluationConfig(**metrics["evaluation"])
    subject = dataclasses.replace(subject, config=dataclasses.replace(subject.config, evaluation=evaluation))
    results = measure_records(subject, metrics["split"])
    return paired_differences(
        results, TRAINED, UNTRAINED, Bootstrap(evaluation.bootstrap, loaded.config.seed)
    )


def _require_blessing(blessing: Blessing) -> None:
    if blessing.broken:
        broken = "; ".join(map(str, blessing.broken))
        form = "kept by the model, and no version was pushed"
        raise refusal("export.thresholds", form, broken, _OVERRIDE)


def _write(
    staged: epath.Path,
    workdir: epath.Path,
    loaded: LoadedModel,
    settings: ExportConfig,
    metrics: Json | None,
    blessing: Blessing,
) -> Validation:
    """Write and validate both SavedModels, MODEL and TOKENS_ONLY, with their side files.

    Raises:
        ValueError: as `validate`, or an answer that takes longer than allowed.
    """
    of_weights = metrics if metrics and _is_of(metrics, loaded) else None
    calibration = find_calibration(of_weights, loaded.config.evaluation) if of_weights else None
    calibrated = {"calibration": dataclasses.asdict(calibration) if calibration else None}
    run = json.loads((workdir / RUN_FILE).read_text()) | {"step": loaded.step} | calibrated
    endpoints = Endpoints(loaded.model, loaded.tokenizer, calibration=calibration)
    served = Endpoints(_served_model(workdir, loaded), loaded.tokenizer, calibration=calibration)
    folders = {TOKENS_ONLY: False, MODEL: True}
    for name, text_operations in folders.items():
        export_model(served, loaded.table, str(staged / name), run, text_operations=text_operations)
    validation = validate({str(staged / name): text for name, text in folders.items()}, endpoints)
    _require_speed(validation, settings.max_latency_ms)
    exported = {"step": loaded.step, "exported": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"}
    made_from = {
        "run": loaded.config.name,
        **exported,
        "versions": versions(),
        "export": json.loads(json.dumps(dataclasses.asdict(settings))),
        "blessing": blessing.to_dict(),
        "validation": validation._asdict(),
        **calibrated,
    }
    card = _card(run | exported, loaded, settings, of_weights, blessing, validation)
    for name, text_operations in folders.items():
        (staged / name / EXTRA / MODEL_CARD).write_text(card)
        write_warmup(staged / name, _warmup_requests(endpoints, text_operations))
        write_manifest(staged / name, made_from)
    return validation


def _served_model(workdir: epath.Path, loaded: LoadedModel) -> MedCLIP:
    """The model to export: a second copy with folded batch normalisations, or the same without any."""
    if not foldable(loaded.model):
        return loaded.model
    model = load_model(workdir, loaded.checkpoint).model
    fold(model)
    return model


def _require_speed(validation: Validation, limit: float) -> None:
    for name, value in validation.milliseconds.items():
        form, received = f"at least the {limit:g} ms that {name} takes", f"{value:.1f} ms"
        form = f"kept by {name} (at most {limit:g} ms for one request of one row), and no version was pushed"
        advice = "Raise it: --set export.max_latency_ms=…"
        require(not limit or value <= limit, "export.max_latency_ms", form, received, advice)


def _warmup_requests(endpoints: Endpoints, text_operations: bool) -> dict[str, Any]:
    requests = warmup_requests(endpoints)
    return {name: requests[name] for name in endpoints.functions(text_operations)}


def _card(
    run: Json,
    loaded: LoadedModel,
    settings: ExportConfig,
    metrics: Json | None,
    blessing: Blessing,
    validation: Validation,
) -> str:
    folders = [epath.Path(path) for path in (*loaded.config.data.images, *loaded.config.data.texts)]
    return model_card(
        run,
        dataclasses.replace(loaded.config, export=settings),
        num_parameters=loaded.model.count_params(),
        records=[read_manifest(folder) for folder in folders if (folder / MANIFEST_NAME).exists()],
        metrics=metrics,
        blessing=blessing,
        validation=validation,
    )


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
