"""The pipeline over changed inputs: what an earlier run made is kept."""

import functools
import shutil

import pytest

from beam_jobs import decode_images, label_reports
from medclip_keras.config import DataConfig, RawInput, RunConfig, override
from medclip_keras.pipeline import Pipeline
from medclip_keras.training import train as training
from medclip_keras.training.run_json import read_run_json, write_run_json


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_retraining_keeps_the_earlier_models(fitted, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    for name in ("raw", "records", "stages", "checkpoints", "vocabulary", "evaluation", "run.json"):
        copy = shutil.copytree if (fitted.workdir / name).is_dir() else shutil.copy
        workdir.mkdir(exist_ok=True)
        copy(fitted.workdir / name, workdir / name)
    before = files(workdir / "checkpoints")

    def train(config, workdir, console):
        assert not (workdir / "checkpoints").exists()
        write_run_json(config, workdir)
        (workdir / "checkpoints").mkdir()
        (workdir / "checkpoints" / "weights").write_text(str(config.train.steps))
        return training.Outcome(1, 1)

    monkeypatch.setattr(training, "train", train)
    config = read_run_json(fitted.workdir)
    for number, steps in enumerate((8, 7), start=1):  # more steps would continue the run
        changed = override(config, [f"train.steps={steps}"])
        Pipeline(changed, workdir).run(until="train")
        assert (workdir / "earlier" / str(number) / "run.json").exists()
    assert files(workdir / "earlier" / "1" / "checkpoints") == before
    assert (workdir / "earlier" / "1" / "evaluation" / "metrics.json").exists()
    assert (workdir / "earlier" / "2" / "checkpoints" / "weights").read_text() == "8"
    assert (workdir / "checkpoints" / "weights").read_text() == "7"
    shard = next((workdir / "records" / "images-0").glob("*tfrecord*"))
    stale = functools.partial(Pipeline(changed, workdir).stale, "decode_images")
    assert stale() == []
    shard.write_bytes(shard.read_bytes()[:-1])
    assert stale() == ["decode_images-0"]


def test_a_changed_evaluation_is_evaluated_again_and_a_misspelled_backbone_runs_no_stage(fitted, tmp_path):
    config = read_run_json(fitted.workdir)
    changed = Pipeline(override(config, ["evaluation.bootstrap=60"]), fitted.workdir)
    assert (changed.stale("evaluate"), changed.stale("export")) == (["evaluate"], [])
    threshold = 'export.thresholds=[{"metric": "METRIC", "at_least": 0.5}]'
    blessed = override(config, [threshold.replace("METRIC", "zero_shot.single.auroc")])
    changed = Pipeline(blessed, fitted.workdir)
    stale = [changed.stale(kind) for kind in ("train", "evaluate", "export")]
    assert stale == [[], [], ["export"]]
    no_metric = Pipeline(override(config, [threshold.replace("METRIC", "auroc.single")]), tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"`export\.thresholds` must be metrics that the run's evaluation gives"
    ):
        no_metric.run()
    wrong = Pipeline(override(config, ["model.image.backbone=small_resnt"]), tmp_path / "run")
    with pytest.raises(ValueError, match=r"`model.image.backbone` .* Near names: small_resnet"):
        wrong.run()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("job", [label_reports, decode_images])
def test_patients_of_evaluation_sets_are_held_out_by_both_jobs(job, tmp_path, monkeypatch):
    class MadeError(Exception):
        pass

    def make_job(options):
        raise MadeError(options.hold_out)

    (tmp_path / "archive").mkdir()
    monkeypatch.setenv("SETS", str(tmp_path))
    monkeypatch.setattr(job, "make_job", make_job)
    kind = {label_reports: "reports", decode_images: "images"}[job]
    raw = RawInput("mimic_cxr", **{kind: str(tmp_path / "archive")}, hold_out=("mimic_5x200=$SETS",))
    config = RunConfig("mine", data=DataConfig(raw=(raw,)))
    with pytest.raises(MadeError) as caught:
        Pipeline(config, tmp_path / "work").run()
    assert caught.value.args == ((f"mimic_5x200={tmp_path}",),)
