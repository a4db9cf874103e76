"""The main job as a user starts it, and the pipeline around it."""

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from medclip_keras import fit
from medclip_keras.config import RunConfig, override
from medclip_keras.pipeline import Pipeline
from medclip_keras.runs import phantom_tiny
from medclip_keras.training.run_json import read_run_json
from medclip_keras.training.train import Outcome


def test_fit_leaves_everything_where_it_says(fitted):
    for place in (
        "run.json", "vocabulary/wordpieces.txt", "vocabulary/concepts.jsonl", "checkpoints/best",
        "evaluation/metrics.json", "evaluation/report.html", "export/1/saved_model.pb",
        "records/reports-0/manifest.json", "records/images-0/manifest.json",
    ):  # fmt: skip
        assert (fitted.workdir / place).exists(), place
    for said in ("synthetic", "random weights", "step 400/400", "zero-shot accuracy", "report.html"):
        assert said in fitted.output, said


def test_fit_learns_what_an_untrained_model_does_not_know(fitted):
    (metrics,) = json.loads((fitted.workdir / "evaluation" / "metrics.json").read_text())["data"].values()
    figures = {who: metrics["zero_shot"][who]["ensemble"] for who in ("trained", "untrained")}
    # A quarter of the run's steps on half of its images is far from the whole run, and far from chance: an
    # AUROC of 0.5 and an accuracy of 0.2. Bounds of 95 % intervals over patients.
    assert figures["untrained"]["auroc"]["low"] < 0.55
    assert figures["trained"]["auroc"]["low"] > 0.7
    assert figures["trained"]["auroc"]["low"] > figures["untrained"]["auroc"]["high"]
    assert figures["trained"]["accuracy"]["value"] > figures["untrained"]["accuracy"]["value"] + 0.1


def test_fit_says_nothing_of_reports_or_patients(fitted):
    raw = fitted.workdir / "raw" / "phantom"
    patients = {line.split(",")[2] for line in (raw / "reports.csv").read_text().splitlines()[1:]}
    written = [fitted.output, *(p.read_text() for p in fitted.workdir.glob("stages/*.json"))]
    written.append((fitted.workdir / "evaluation" / "report.html").read_text())
    assert patients
    assert not [p for p in patients for text in written if p in text]


def test_every_stage_names_what_it_was_made_from(fitted):
    stages = {p.stem: json.loads(p.read_text()) for p in (fitted.workdir / "stages").glob("*.json")}
    assert set(stages) == {
        "phantom", "label_reports-0", "decode_images-0", "validate_records-images-0",
        "validate_records-reports-0", "validate_records-together", "train", "evaluate", "export",
    }  # fmt: skip
    manifest = json.loads((fitted.workdir / "records" / "images-0" / "manifest.json").read_text())
    assert stages["decode_images-0"]["inputs"]["reports_sha256"] == manifest["reports_sha256"]
    assert stages["decode_images-0"]["counts"]["fingerprint"] in stages["train"]["inputs"]["records"]
    for stage in stages.values():
        assert {"inputs", "counts", "seconds", "versions"} <= set(stage)


def test_a_second_run_does_nothing_and_a_changed_report_reruns_what_descends_from_it(fitted):
    config = read_run_json(fitted.workdir)
    assert Pipeline(config, fitted.workdir).run() == []
    report = min((fitted.workdir / "raw" / "phantom" / "reports").glob("*.txt"))
    text, times = report.read_text(), report.stat()
    report.write_text(text + "\nThere is a large right pneumothorax.\n")
    pipeline = Pipeline(config, fitted.workdir)
    assert pipeline.run(until="decode_images") == ["label_reports-0", "decode_images-0"]
    assert pipeline.stale("train") == ["train"]
    assert pipeline.stale("evaluate") == ["evaluate"]
    # Put back, the records are what they were, byte for byte, and what descends from them is up to date.
    report.write_text(text)
    os.utime(report, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert Pipeline(config, fitted.workdir).run() == ["label_reports-0", "decode_images-0"]
    assert Pipeline(config, fitted.workdir).run() == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--run", "phantom_tinny"], "Near names: phantom_tiny"),
        (["--set", "train.stpes=3"], "Near names: train.steps"),
        (["--set", "train.batch_size=1"], "`train.batch_size` must be at least 2. Received: 1."),
        (["--images", "nowhere"], "`directory` must be a folder of records"),
        (["--texts", "nowhere"], "`data.images` must be at least one folder of records"),
        (["--run", "medclip_resnet50"], "`data.raw` must be named in a run that starts from raw files"),
    ],
)
def test_wrong_arguments_get_a_sentence_before_any_work(arguments, sentence, capsys, tmp_path):
    assert fit.main([*arguments, "--workdir", str(tmp_path / "run")]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [[], ["--images", "nowhere"]])
def test_a_workdir_that_tensorflow_takes_for_a_pattern_is_refused(arguments, capsys, tmp_path):
    assert fit.main([*arguments, "--workdir", str(tmp_path / "run [1]")]) == 1
    assert "`--workdir` must be a path without [, *, ?" in capsys.readouterr().err
    assert not (tmp_path / "run [1]").exists()


def test_real_data_that_is_not_named_gets_a_sentence(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("MEDCLIP_DATA", raising=False)
    assert fit.main(["--run", "real_unpaired_64px", "--workdir", str(tmp_path / "run")]) == 1
    assert "Set MEDCLIP_DATA to the folder that holds the public downloads" in capsys.readouterr().err


def test_a_shard_with_one_bit_changed_is_refused_with_its_name(fitted, capsys, tmp_path):
    records = tmp_path / "records"
    shutil.copytree(fitted.workdir / "records" / "images-0", records)
    shard = next(records.glob("*train*00000-of*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    texts = str(fitted.workdir / "records" / "reports-0")
    assert fit.main(["--images", str(records), "--texts", texts, "--workdir", str(tmp_path / "run")]) == 1
    assert f"`{shard.name}` must be of the manifest's SHA-256" in capsys.readouterr().err


def interrupt(
    workdir, marker: str, seconds: float, number: signal.Signals, *arguments: str
) -> tuple[int, str]:
    """Starts a command, signals it once a line of its output has `marker`; returns its status and output."""
    command = [sys.executable, "-m", "medclip_keras.fit", "--workdir", str(workdir), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    with subprocess.Popen(command, env=os.environ | {"PYTHONUNBUFFERED": "1"}, **pipes) as process:
        said = ""
        for line in process.stdout:
            said += line
            if marker in line:
                break
        time.sleep(seconds)
        # Ctrl-C reaches all processes of a terminal; an orchestrator's SIGTERM one of them.
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        sent = time.monotonic()
        output, _ = process.communicate(timeout=60)
        assert time.monotonic() - sent < 20, output
        assert "Traceback" not in said + output, (said + output)[-3000:]
        assert process.returncode == 128 + number, (said + output)[-3000:]
        return said + output


INTERRUPTED = "medclip_keras.fit: interrupted. The same command resumes the work."


def test_a_signal_at_any_stage_is_one_line_and_the_same_command_resumes(tmp_path):
    arguments = (
        "--set", "train.steps=100000", "data.phantom.num_paired=200", "data.phantom.num_image_only=50",
        "data.phantom.num_text_only=50",
    )  # fmt: skip
    for marker, seconds, number in (
        ("phantom ─", 0.5, signal.SIGINT),
        ("label_reports-0 ─", 0.5, signal.SIGTERM),
        ("decode_images-0 ─", 0.5, signal.SIGINT),
        ("validate_records-images-0 ─", 0.5, signal.SIGTERM),
        ("train ─", 0.5, signal.SIGINT),
        ("encoder starts from random", 3, signal.SIGTERM),
    ):
        output = interrupt(tmp_path, marker, seconds, number, *arguments)
        assert output.count(INTERRUPTED) == 1, output
    output = interrupt(tmp_path, "step ", 0, signal.SIGINT, *arguments)
    assert "the checkpoint is saved. The same command resumes the work." in output
    assert (tmp_path / "checkpoints" / "last").exists()


def contents(folder) -> dict:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_sigterm_during_evaluation_and_export_leaves_the_earlier_outputs_and_the_next_start_goes_on(
    fitted, tmp_path
):
    workdir = tmp_path / "run"
    shutil.copytree(fitted.workdir, workdir)
    for file in (workdir / "stages").iterdir():  # the copy is not trained again for its other place
        file.write_text(file.read_text().replace(str(fitted.workdir), str(workdir)))
    settings = fitted.arguments[fitted.arguments.index("--set") :]
    arguments = (*settings, "evaluation.bootstrap=50", "export.license=CC0")  # both stages are stale
    before = {name: contents(workdir / name) for name in ("evaluation", "export", "checkpoints")}
    output = interrupt(workdir, "evaluate ─", 1, signal.SIGTERM, *arguments)
    assert "train: up to date" in output
    assert output.count(INTERRUPTED) == 1, output
    assert contents(workdir / "evaluation")["metrics.json"] == before["evaluation"]["metrics.json"]
    output = interrupt(workdir, "export ─", 1, signal.SIGTERM, *arguments)
    assert output.count(INTERRUPTED) == 1, output
    assert contents(workdir / "export") == before["export"]
    assert contents(workdir / "checkpoints") == before["checkpoints"]
    config = override(read_run_json(workdir), arguments[1:])
    assert Pipeline(config, workdir).run() == ["export"]
    assert (workdir / "export" / "2" / "saved_model.pb").exists()


HOLD = """
import sys
from medclip_keras.locks import sole_writer
with sole_writer(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_fit_on_a_workdir_is_refused_before_any_work(fitted, tmp_path, capsys):
    workdir, records = tmp_path / "run", fitted.workdir / "records"
    given = ["--images", str(records / "images-0"), "--texts", str(records / "reports-0")]
    command = [sys.executable, "-c", HOLD, str(workdir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        for arguments in ([], given):
            assert fit.main([*arguments, "--workdir", str(workdir)]) == 1
            assert capsys.readouterr().err == (
                "medclip_keras.fit: `--workdir` must be one that no other process is writing. "
                f"Received: '{workdir}'. Wait until it ends, or name another output.\n"
            )
        assert not workdir.exists()
        first.kill()


def test_a_read_only_workdir_is_refused_before_any_work(tmp_path, capsys, monkeypatch):
    workdir = tmp_path / "run"
    workdir.mkdir()
    monkeypatch.setattr("os.access", lambda path, *_: str(path) != str(workdir))
    assert fit.main(["--workdir", str(workdir)]) == 1
    said = capsys.readouterr().err
    assert f"`--workdir` must be a path that this process can write. Received: '{workdir}'." in said
    assert said.count("\n") == 1
    assert list(tmp_path.rglob("*")) == [workdir]


def test_a_full_disk_while_records_are_made_is_one_sentence_and_the_next_start_goes_on(tmp_path, capsys):
    arguments = [
        "data.phantom.num_paired=60", "data.phantom.num_image_only=0", "data.phantom.num_text_only=0",
    ]  # fmt: skip
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    config = override(phantom_tiny(), arguments)
    # A largest file that a picture, then a shard of pictures does not fit into.
    for largest, made in ((500, []), (100_000, ["phantom", "label_reports-0"])):
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
        try:
            assert fit.main(["--workdir", str(tmp_path), "--set", *arguments]) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        said = capsys.readouterr().err
        assert said.startswith("medclip_keras.fit: ")
        assert "File too large" in said
        assert "Make room" in said
        assert said.count("\n") == 1
        done = sorted(path.stem for path in (tmp_path / "stages").glob("*.json"))
        assert done == sorted(made)
    assert not (tmp_path / "records" / "images-0").exists()
    assert Pipeline(config, tmp_path).run(until="decode_images") == ["decode_images-0"]


def test_a_model_without_test_images_is_said_to_be_saved_but_not_evaluated(tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise ValueError("`images` must be a data set with held-out images.")

    def train(*_):
        print("Training.")
        return Outcome(step=3, total_steps=3)

    monkeypatch.setattr("medclip_keras.training.train.train", train)
    monkeypatch.setattr("medclip_keras.preflight.require_evaluable", refuse)
    reading = "records.reading"
    for name in ("pipeline.validate_together", f"{reading}.image_folders", f"{reading}.sentence_folders"):
        monkeypatch.setattr(f"medclip_keras.{name}", lambda *_: None)
    config = RunConfig("r")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, images=("records",)))
    fit.fit_records(config, tmp_path, Console())
    before, after = capsys.readouterr().out.split("Training.")
    assert "not evaluated: `images` must be" in before
    assert "--split all --findings" in before
    assert f"The model is trained and saved in {tmp_path}." in after
    assert "Export it" in after
