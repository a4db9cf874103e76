import json
import math
import pathlib
import types

import pytest

from medclip_keras import release
from medclip_keras.config import DataConfig, ExportConfig, RunConfig, Threshold, to_dict
from medclip_keras.export import main
from medclip_keras.release import export_workdir
from medclip_keras.serving.layout import EXTRA, MODEL_CARD, WARMUP_FILE
from medclip_keras.serving.manifest import check_manifest, read_manifest
from medclip_keras.serving.validate import Validation

ACCURACY = "zero_shot.ensemble.accuracy"
SCALE = 14.25


class Loaded:
    config = RunConfig("r")
    model = types.SimpleNamespace(count_params=lambda: 5, logit_scale=lambda: SCALE)
    tokenizer = table = None
    step = 12


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A workdir whose export writes one file and whose validation finds no difference."""

    def write(endpoints, table, destination, run, *, text_operations):
        folder = pathlib.Path(destination)
        (folder / EXTRA).mkdir(parents=True)
        (folder / "saved_model.pb").write_text(json.dumps({**run, "text": text_operations}))

    endpoints = types.SimpleNamespace(functions=lambda text: ["encode_image", *["encode_text"] * text])
    requests = {"encode_image": {"image_bytes": [b"file"]}, "encode_text": {"texts": [b"Edema."]}}
    monkeypatch.setattr(release, "export_model", write)
    monkeypatch.setattr(release, "Endpoints", lambda *_, **__: endpoints)
    monkeypatch.setattr(release, "foldable", lambda _: [])
    monkeypatch.setattr(release, "warmup_requests", lambda _: requests)
    monkeypatch.setattr(release, "validate", lambda *_, **__: Validation(0.0, {"encode_image": 2.5}))
    monkeypatch.setattr(release, "load_model", lambda _: Loaded)
    folder = tmp_path / "workdir"
    folder.mkdir()
    (folder / "run.json").write_text('{"config": {"name": "r"}}')
    return folder


def write_metrics(workdir, value=0.9, low=0.8, high=0.95, **changes):
    estimate = {"value": value, "low": low, "high": high}
    of_class = {"Edema": {"accuracy": estimate}}
    found = {"ensemble": {"accuracy": estimate, "by_class": of_class}, "single": {"auroc": estimate}}
    zero_shot = {"num_images": 9, "baseline": {"accuracy": 0.2, "auroc": 0.5}, "trained": found}
    evaluation = to_dict(Loaded.config)["evaluation"]
    metrics = {"step": 12, "logit_scale": SCALE, "split": "test", "records": {}, "evaluation": evaluation}
    metrics |= {"data": {"phantom": {"zero_shot": zero_shot}}} | changes
    (workdir / "evaluation").mkdir(exist_ok=True)
    (workdir / "evaluation" / "metrics.json").write_text(json.dumps(metrics))


def export(workdir, models, *thresholds, **changes):
    settings = ExportConfig(thresholds=tuple(Threshold(*a, **k) for a, k in thresholds), **changes)
    return export_workdir(workdir, models, settings=settings)


def at_least(value, metric=ACCURACY, **options):
    return (metric,), {"at_least": value, **options}


def test_next_version_is_the_largest_plus_one(workdir, tmp_path):
    models = tmp_path / "models"
    (models / "9").mkdir(parents=True)
    (models / "10").mkdir()
    (models / "notes").mkdir()
    version = export_workdir(workdir, models, loaded=Loaded)
    assert version == models / "11"
    written = {"config": {"name": "r"}, "step": 12, "calibration": None}
    assert json.loads((version / "saved_model.pb").read_text()) == {**written, "text": True}
    twin = models / "tokens_only" / "11" / "saved_model.pb"
    assert json.loads(twin.read_text()) == {**written, "text": False}
    assert sorted(p.name for p in models.iterdir()) == ["10", "11", "9", "notes", "tokens_only"]


def test_a_version_number_is_unused_in_both_folders(workdir, tmp_path):
    models = tmp_path / "models"
    (models / "tokens_only" / "6").mkdir(parents=True)
    assert export_workdir(workdir, models, loaded=Loaded) == models / "7"


def test_a_refused_model_leaves_no_file(workdir, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("`encode_text` must be equal")

    monkeypatch.setattr(release, "validate", refuse)
    with pytest.raises(ValueError, match="must be equal"):
        export_workdir(workdir, tmp_path / "models", loaded=Loaded)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_full_disk_leaves_no_file_and_the_status_says_so(workdir, tmp_path, monkeypatch, capsys):
    def fill(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(release, "export_model", fill)
    assert main(["--workdir", str(workdir), "--output", str(tmp_path / "models")]) == 1
    assert "No space left on device. Make room" in capsys.readouterr().err
    assert list((tmp_path / "models").iterdir()) == []


def test_the_version_appears_only_after_the_validation(workdir, tmp_path, monkeypatch):
    seen = []

    def validate(saved_models, _):
        seen.extend(p.name for path in saved_models for p in pathlib.Path(path).parents[1].iterdir())
        return Validation(0.0, {})

    monkeypatch.setattr(release, "validate", validate)
    export_workdir(workdir, tmp_path / "models", loaded=Loaded)
    assert len(seen) == 2  # once for each model
    assert seen[0].startswith(".exporting-")
    assert seen[1] == seen[0]


def test_an_untrained_workdir_is_refused(tmp_path, capsys):
    assert main(["--workdir", str(tmp_path), "--output", str(tmp_path / "models")]) == 1
    assert "`workdir` must be a folder in which a run was trained" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_a_version_has_a_manifest_a_model_card_and_warm_up_requests(workdir, tmp_path):
    write_metrics(workdir)
    version = export(workdir, tmp_path / "models", at_least(0.8), license="CC BY 4.0, of the clinic | X")
    twin = version.parent / "tokens_only" / version.name
    for folder in (version, twin):
        check_manifest(folder)
        assert (folder / EXTRA / WARMUP_FILE).stat().st_size > 0
    assert len((version / EXTRA / WARMUP_FILE).read_bytes()) > len((twin / EXTRA / WARMUP_FILE).read_bytes())
    manifest = read_manifest(version)
    assert manifest["blessing"]["status"] == "blessed: 1 of 1 bounds are kept"
    assert manifest["step"] == 12
    assert manifest["export"]["thresholds"][0]["at_least"] == 0.8
    card = (version / EXTRA / MODEL_CARD).read_text()
    assert "| phantom.zero_shot.ensemble.accuracy | 0.900 [0.800, 0.950] | – | 0.200 |" in card
    assert "Blessed: 1 of 1 bounds are kept." in card
    assert (
        "- phantom.zero_shot.ensemble.accuracy is 0.9000 [0.8000, 0.9500], must be at least 0.8: kept" in card
    )
    assert "Weights: CC BY 4.0, of the clinic | X." in card
    assert "| encode_image | 2.5 |" in card
    for heading in ("Data", "Figures", "Blessing", "Validation", "Intended use", "Limits", "Licence"):
        assert f"\n## {heading}\n" in card


def test_without_thresholds_a_model_is_pushed_and_its_card_says_so(workdir, tmp_path, capsys):
    version = export_workdir(workdir, tmp_path / "models")
    status = "not blessed by thresholds: the run has none"
    assert read_manifest(version)["blessing"]["status"] == status
    card = (version / EXTRA / MODEL_CARD).read_text()
    assert "Not blessed by thresholds: the run has none." in card
    assert "These weights were not evaluated" in card
    assert status in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes", [{"step": 11}, {"step": None}, {"logit_scale": SCALE * 1.0001}], ids=lambda c: str(c)
)
def test_metrics_of_other_weights_neither_bless_nor_stand_in_the_card(workdir, tmp_path, changes):
    write_metrics(workdir, **changes)
    with pytest.raises(
        ValueError, match=r"`export.thresholds` must be of these weights' metrics.* Evaluate again"
    ):
        export(workdir, tmp_path / "models", at_least(0.5))
    version = export_workdir(workdir, tmp_path / "models")
    assert "These weights were not evaluated" in (version / EXTRA / MODEL_CARD).read_text()
    assert version.name == "1"


def test_metrics_of_the_training_split_do_not_bless(workdir, tmp_path, monkeypatch):
    write_metrics(workdir, split="all", records={"records": "f"})
    data = DataConfig(images=("records",))
    monkeypatch.setattr(Loaded, "config", RunConfig("r", data=data))
    with pytest.raises(ValueError, match=r"of held-out records.* Received: 'all'"):
        export(workdir, tmp_path / "models", at_least(0.5))


def test_the_training_records_are_known_by_their_content_under_another_path(workdir, tmp_path, monkeypatch):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "manifest.json").write_text("{}")
    write_metrics(workdir, split="all", records={"./elsewhere": "f"})
    data = DataConfig(images=(str(tmp_path / "records"),))
    monkeypatch.setattr(Loaded, "config", RunConfig("r", data=data))
    monkeypatch.setattr(release, "read_manifest", lambda _: types.SimpleNamespace(fingerprint="f"))
    with pytest.raises(ValueError, match=r"of held-out records.* Received: 'all'"):
        export(workdir, tmp_path / "models", at_least(0.5))


def test_metrics_of_own_images_bless_but_cannot_be_compared(workdir, tmp_path, monkeypatch):
    """Those of `evaluate --manifest` name no split."""
    write_metrics(workdir)
    path = workdir / "evaluation" / "metrics.json"
    metrics = json.loads(path.read_text())
    del metrics["split"]
    path.write_text(json.dumps(metrics))
    assert export(workdir, tmp_path / "models", at_least(0.5)).name == "1"
    with pytest.raises(ValueError, match=r"metrics that can be measured again.* use at_least"):
        export(workdir, tmp_path / "models", ((ACCURACY,), {"max_drop": 0.1}))


def test_the_card_has_no_baseline_of_all_classes_beside_that_of_one(workdir, tmp_path):
    estimate = {"value": 0.9, "low": 0.8, "high": 0.95}
    of_class = {"Edema": {"auprc": estimate, "auroc": estimate}}
    found = {"ensemble": {"auprc": estimate, "by_class": of_class}}
    zero_shot = {"num_images": 9, "baseline": {"auprc": 0.2, "auroc": 0.5}, "trained": found}
    write_metrics(workdir, data={"phantom": {"zero_shot": zero_shot}})
    card = (export_workdir(workdir, tmp_path / "models") / EXTRA / MODEL_CARD).read_text()
    lines = [line.split("|") for line in card.splitlines() if "phantom." in line]
    baselines = {cells[1].strip(): cells[4].strip() for cells in lines}
    name = "phantom.zero_shot.ensemble"
    assert (baselines[f"{name}.auprc"], baselines[f"{name}.by_class.Edema.auroc"]) == ("0.200", "0.500")
    assert "0." not in baselines[f"{name}.by_class.Edema.auprc"]


@pytest.mark.parametrize(
    ("estimate", "threshold", "reason"),
    [
        ((0.9, 0.8, 0.95), at_least(0.8), ""),
        ((0.9, 0.8, 0.95), at_least(0.85), "the 95 % interval spans the bound"),
        ((0.9, 0.8, 0.95), at_least(0.85, decide_by="value"), ""),
        ((0.9, 0.8, 0.95), at_least(0.91, decide_by="value"), "the value is below the bound"),
        ((0.9, 0.8, 0.95), at_least(0.97), "the value is below the bound"),
        ((None, None, None), at_least(0.0), "it is undefined"),
        ((None, 0.8, 0.9), at_least(0.0), "it is undefined"),
        ((math.nan, 0.8, 0.9), at_least(0.0, decide_by="value"), "it is undefined"),
        ((0.9, None, None), at_least(0.5), "it has no interval"),
        ((0.9, None, None), at_least(0.5, decide_by="value"), ""),
        ((0.9, 0.8, 0.95), at_least(0.8, "phantom.zero_shot.ensemble.by_class.Edema.accuracy"), ""),
    ],
)
def test_what_an_interval_decides(workdir, tmp_path, capsys, estimate, threshold, reason):
    models = tmp_path / "models"
    write_metrics(workdir, *estimate)
    if not reason:
        assert export(workdir, models, threshold).name == "1"
        return
    with pytest.raises(ValueError, match=f"`export.thresholds` must be kept .* not kept: {reason}"):
        export(workdir, models, threshold)
    assert list(models.iterdir()) == []
    assert "The model is refused by thresholds." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("metric", "advice"),
    [
        ("zero_shot.ensemble.acuracy", "Near names: zero_shot.ensemble.accuracy"),
        ("phantom.zero_shot.single.accuracy", "phantom.zero_shot.single.auroc"),
        ("other.zero_shot.ensemble.accuracy", "Near names: "),
        ("xyz", r"Known: zero_shot.ensemble.accuracy, zero_shot.single.auroc\."),
    ],
)
def test_an_unknown_metric_is_refused_with_near_names_before_the_model_is_loaded(
    workdir, tmp_path, monkeypatch, metric, advice
):
    write_metrics(workdir)
    monkeypatch.setattr(release, "load_model", lambda _: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=f"must be metrics of .*Received: '{metric}'. .*{advice}"):
        export(workdir, tmp_path / "models", at_least(0.5, metric))


def test_thresholds_need_an_evaluation_that_can_be_read(workdir, tmp_path):
    sentence = "`export.thresholds` must be of an evaluated workdir.* Evaluate first: .*To push it without"
    with pytest.raises(ValueError, match=sentence):
        export(workdir, tmp_path / "models", at_least(0.5))
    write_metrics(workdir)
    (workdir / "evaluation" / "metrics.json").write_text('{"data": {"phan')
    with pytest.raises(
        ValueError, match=r"`workdir` must be a metrics\.json that medclip_keras.evaluate wrote"
    ):
        export(workdir, tmp_path / "models", at_least(0.5))
    assert export(workdir, tmp_path / "models").name == "1"


def test_the_run_s_thresholds_hold_and_set_overrides_them(workdir, tmp_path, capsys):
    models = ["--workdir", str(workdir), "--output", str(tmp_path / "models")]
    thresholds = [{"metric": ACCURACY, "at_least": 0.85}]
    (workdir / "run.json").write_text(
        json.dumps({"config": {"name": "r", "export": {"thresholds": thresholds}}})
    )
    write_metrics(workdir)
    assert main(models) == 1
    assert "spans the bound" in capsys.readouterr().err
    assert main([*models, "--set", "export.thresholds=[]"]) == 0
    assert read_manifest(tmp_path / "models" / "1")["export"]["thresholds"] == []
    assert main([*models, "--set", "train.steps=5"]) == 1
    assert "`--set` must be a field of export" in capsys.readouterr().err


def test_a_first_version_cannot_drop(workdir, tmp_path):
    write_metrics(workdir)
    version = export(workdir, tmp_path / "models", ((ACCURACY,), {"max_drop": 0.1}))
    status = "not blessed by thresholds: no version is served yet, so no drop was measured."
    assert read_manifest(version)["blessing"]["status"] == status


def test_a_drop_below_the_served_version_refuses(workdir, tmp_path, monkeypatch):
    from medclip_keras.evaluation.metrics import Estimate

    write_metrics(workdir)
    models, drop = tmp_path / "models", ((ACCURACY,), {"max_drop": 0.1})
    export(workdir, models)
    asked = []

    def differences(loaded, metrics, before):
        asked.append(before.name)
        return {f"phantom.{ACCURACY}": Estimate(-0.05, low, 0.01)}

    monkeypatch.setattr(release, "_differences", differences)
    low = -0.1
    assert export(workdir, models, drop).name == "2"
    low = -0.11
    with pytest.raises(
        ValueError, match=r"-0.0500 \[-0.1100, 0.0100\], must be at most 0.1 below version 2: not"
    ):
        export(workdir, models, drop)
    assert asked == ["1", "2"]


def test_a_slow_version_is_refused(workdir, tmp_path):
    with pytest.raises(
        ValueError, match=r"`export.max_latency_ms` must be kept by encode_image \(at most 2 ms"
    ):
        export(workdir, tmp_path / "models", max_latency_ms=2)
    assert list((tmp_path / "models").iterdir()) == []
    assert export(workdir, tmp_path / "models", max_latency_ms=2.5).name == "1"


def test_keep_and_rollback_from_the_command_line(workdir, tmp_path, capsys):
    models = ["--output", str(tmp_path / "models")]
    for _ in range(3):
        assert main([*models, "--workdir", str(workdir)]) == 0
    assert main([*models, "--rollback"]) == 0
    assert capsys.readouterr().out.endswith("Version 2 is served now.\n")
    assert main([*models, "--workdir", str(workdir), "--keep", "1"]) == 0
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["2", "4", "rolled_back", "tokens_only"]
    assert "Removed: 1." in capsys.readouterr().out
    for wrong, sentence in (
        (["--rollback", "--keep", "1"], "`--rollback` must be"),
        ([], "`--workdir` must be"),
        (["--workdir", str(workdir), "--keep", "0"], "`--keep` must be at least 1"),
    ):
        assert main([*models, *wrong]) == 1
        assert sentence in capsys.readouterr().err


def test_normalisations_are_folded_in_a_second_copy_of_the_weights(workdir, tmp_path, monkeypatch):
    """The first copy stays as it was trained, for the validation."""
    second, folded, exported = types.SimpleNamespace(), [], []
    loaded = types.SimpleNamespace(
        config=Loaded.config, model=Loaded.model, tokenizer=None, table=None, step=12, checkpoint="best"
    )
    monkeypatch.setattr(release, "foldable", lambda model: [model] * (model is Loaded.model))
    monkeypatch.setattr(release, "fold", folded.append)
    monkeypatch.setattr(
        release, "load_model", lambda _, which: types.SimpleNamespace(model=second, which=which)
    )
    monkeypatch.setattr(release, "Endpoints", lambda model, *_, **__: types.SimpleNamespace(model=model))
    monkeypatch.setattr(release, "_warmup_requests", lambda *_: {})
    monkeypatch.setattr(release, "write_warmup", lambda *_: None)
    monkeypatch.setattr(
        release,
        "validate",
        lambda _, endpoints: exported.append(endpoints.model) or Validation(0, {}),
    )
    export_workdir(workdir, tmp_path / "models", loaded=loaded)
    assert folded == [second]
    assert exported == [Loaded.model]
