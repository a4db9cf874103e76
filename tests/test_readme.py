"""Every command and every line of Python in the README runs, on data that the tests make."""

import gzip
import importlib.util
import io
import json
import math
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

from medclip_keras.knowledge.label_names import labels_of
from medclip_keras.sources import mimic_cxr

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
SHORT = ["train.steps=2", "train.batch_size=4", "train.validate_every=2", "evaluation.bootstrap=10"]
SMALL = [
    "model.image.preset=", "model.image.backbone=small_resnet", "model.image.width=8",
    "model.image.image_size=32", "model.image.upsampled_size=0", "model.text.preset=",
    "model.text.num_layers=1", "model.text.num_heads=2", "model.text.hidden_dim=16",
    "model.text.intermediate_dim=16", "model.text.vocabulary_size=200", "model.text.frozen_layers=0",
]  # fmt: skip


def block(language: str, words: str) -> str:
    """The one block of a language that holds some words."""
    (found,) = [text for kind, text in BLOCKS if kind == language and words in text]
    return found


def commands(script: str, folder: pathlib.Path) -> list[list[str]]:
    """The arguments of each `python` command of a script, as bash expands them."""
    shim = folder / "shim"
    shim.mkdir(exist_ok=True)
    (folder / "calls").unlink(missing_ok=True)
    (shim / "python").write_text(
        f'#!/bin/sh\nprintf "%s\\0" "$@" >> {folder}/calls\nprintf "\\n\\0" >> {folder}/calls\n'
    )
    (shim / "python").chmod(0o755)
    path = f"{shim}:{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env={**os.environ, "PATH": path}, check=True
    )
    calls = (folder / "calls").read_text().split("\0\n\0")
    return [call.split("\0") for call in calls if call]


def run(command: list[str], settings: list[str]) -> None:
    """Run `-m MODULE …` in this process; `fit` with further settings."""
    assert command[0] == "-m"
    if command[1] == "medclip_keras.fit":
        command = [*command, "--set", *settings]
    module = importlib.import_module(command[1])
    module = importlib.import_module(f"{command[1]}.__main__") if hasattr(module, "__path__") else module
    assert module.main(command[2:]) == 0, command


def picture(seed: int, kind: str = "png") -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (36, 28), np.uint8)).save(file, kind)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
    """An empty folder as the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def folder_with_model(folder, fitted):
    """The folder after `make demo`, with a picture and a folder of pictures."""
    (folder / "workdir").mkdir()
    (folder / "workdir" / "phantom_tiny").symlink_to(fitted.workdir)
    (folder / "FOLDER").mkdir()
    for seed in range(3):
        (folder / "FOLDER" / f"{seed}.png").write_bytes(picture(seed))
    (folder / "xray.png").write_bytes(picture(0))
    return folder


def test_every_block_of_commands_is_run_by_a_test():
    covered = (
        "medclip_keras.load",
        "scores.csv",
        "embed_images",
        "make demo",
        "answer.csv",
        "--rollback",
        "studies.csv",
        "medclip_keras.convert",
        "5x200",
    )
    for kind, text in BLOCKS:
        if kind in ("python", "bash"):
            assert sum(words in text for words in covered) == 1, text


def test_demo_is_the_run_that_the_tests_train(fitted):
    recipe = (ROOT / "Makefile").read_text().partition("\ndemo:")[2].splitlines()[1]
    assert block("bash", "make demo") == "make demo\n"
    assert recipe.split("/python ")[1] == "-m medclip_keras.fit"
    assert (fitted.workdir / "evaluation" / "report.html").exists()


def test_five_lines_print_the_scores_of_a_picture(folder_with_model):
    code = block("python", "medclip_keras.load")
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    scores, ranked = process.stdout.splitlines()
    assert re.fullmatch(r"\{'Edema': array\(\[.*\], dtype=float32\), 'Pleural Effusion': .*\}", scores)
    assert ranked.startswith("[[('The ")


def test_predict_scores_a_folder(folder_with_model):
    (command,) = commands(block("bash", "scores.csv"), folder_with_model)
    run(command, [])
    assert len((folder_with_model / "scores.csv").read_text().splitlines()) == 1 + 3


def test_search_answers_a_picture_and_words(folder_with_model, capsys):
    for command in commands(block("bash", "embed_images"), folder_with_model):
        run(command, [])
    *_, first, second, third = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in (first, second, third)} == {f"FOLDER/{seed}.png" for seed in range(3)}


def test_a_model_is_exported_answers_and_is_rolled_back(folder_with_model, capsys):
    for words in ("answer.csv", "--rollback"):
        script = block("bash", words).replace("cat answer.csv", "")
        for command in commands(script, folder_with_model):
            run(command, [])
    header, answer = (folder_with_model / "answer.csv").read_text().splitlines()
    assert header == "path,Edema,Pleural Effusion"
    assert all(math.isfinite(float(score)) for score in answer.split(",")[1:])
    assert capsys.readouterr().out.endswith("Version 1 is served now.\n")
    served = [path.name for path in (folder_with_model / "models").iterdir()]
    assert sorted(served) == ["1", "rolled_back", "tokens_only"]


def test_own_data_from_the_table_to_the_export(folder):
    """The table of the README, then as many further studies as a run needs."""
    header, *rows = block("csv", "patient_id").splitlines()
    (folder / "images").mkdir()
    for n in range(60):
        label = n % 2
        report = "FINDINGS: The heart is enlarged." if label else "FINDINGS: There is a pleural effusion."
        rows.append(f'images/{n + 100}.png,q{n},t{n},"{report}",{label},{1 - label}')
    for n, row in enumerate(rows):
        name = row.partition(",")[0].replace(".dcm", ".png")
        if name:
            (folder / name).write_bytes(picture(n))
    table = "\n".join([header, *rows]).replace(".dcm", ".png") + "\n"
    (folder / "studies.csv").write_text(table)
    for command in commands(block("bash", "studies.csv"), folder):
        run(command, SHORT)
    assert (folder / "workdir" / "own" / "all" / "metrics.json").exists()
    assert (folder / "models" / "1" / "saved_model.pb").exists()


def load_peers():
    spec = importlib.util.spec_from_file_location("peers", ROOT / "tests" / "models" / "pretrained_peers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_published_weights_are_converted_evaluated_and_exported(folder):
    """A small state dict of the published layout, in a file that needs no PyTorch."""
    peers = load_peers()
    layout = json.loads(peers.LAYOUTS.read_text())["medclip_resnet50"]
    tensors = {key: np.array(peers.draw(key, *shape), order="C") for key, shape in layout.items()}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{n}" for n in range(36))]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    for n in range(4):
        (folder / f"{n}.png").write_bytes(picture(n))
    rows = [f"{n}.png,{n % 2},{1 - n % 2}" for n in range(4)]
    (folder / "images.csv").write_text("\n".join(["path,Cardiomegaly,Edema", *rows]) + "\n")
    script = block("bash", "medclip_keras.convert").replace("pytorch_model.bin", "model.safetensors")
    convert, *others = commands(script, folder)
    run([*convert, "--image_size", "64", "--num_heads", "2"], [])
    for command in others:
        run(command, [])
    assert (folder / "workdir" / "medclip" / "evaluation" / "metrics.json").exists()
    assert (folder / "models" / "1" / "saved_model.pb").exists()


def write_chexpert(folder: pathlib.Path) -> None:
    """200 images of each of the five findings, which fill CheXpert-5x200, and 100 of patients beside it."""
    labels = labels_of("chexpert")
    rows = [",".join(("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *labels))]
    findings = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
    for n in range(1100):
        image = f"train/patient{n:05d}/study1/view1_frontal.jpg"
        (folder / image).parent.mkdir(parents=True)
        (folder / image).write_bytes(picture(n % 7, "jpeg"))
        codes = ("1.0" if label == findings[n % 5] else "" for label in labels)
        rows.append(",".join((f"{folder.name}/{image}", "Female", "60", "Frontal", "AP", *codes)))
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
    (folder / "valid.csv").write_text(rows[0] + "\n")


def write_mimic_cxr(folder: pathlib.Path) -> None:
    """40 studies of a patient each, with an image, a report and a label."""
    header = ("dicom_id", "subject_id", "study_id", "ViewPosition")
    metadata, splits, codes = [header], [("dicom_id", "study_id", "subject_id", "split")], []
    labels = labels_of("mimic_cxr")
    codes.append(("subject_id", "study_id", *labels))
    for n in range(40):
        patient, study, image = f"1{n % 4}00{n:04d}", f"5{n:07d}", f"image{n}"
        metadata.append((image, patient, study, "PA"))
        splits.append((image, study, patient, ("validate", "test", "train", "train")[n % 4]))
        codes.append((patient, study, *("1.0" if label == "Edema" else "" for label in labels)))
        place = pathlib.Path("files", f"p{patient[:2]}", f"p{patient}")
        (folder / place / f"s{study}").mkdir(parents=True)
        (folder / place / f"s{study}" / f"{image}.jpg").write_bytes(picture(100 + n, "jpeg"))
        (folder / mimic_cxr.REPORTS / place).mkdir(parents=True)
        text = "FINDINGS: There is mild pulmonary edema. The heart is enlarged.\n"
        (folder / mimic_cxr.REPORTS / place / f"s{study}.txt").write_text(text)
    for name, rows in (("metadata", metadata), ("split", splits), ("chexpert", codes)):
        table = "\n".join(map(",".join, rows)) + "\n"
        (folder / f"{mimic_cxr.TABLES.format(name)}.gz").write_bytes(gzip.compress(table.encode()))


@pytest.mark.slow
def test_papers_tables_from_the_downloads_to_the_figures(folder):
    """All commands with small encoders; two steps a run."""
    for name, write in (("MIMIC", write_mimic_cxr), ("CHEXPERT", write_chexpert)):
        (folder / name).mkdir()
        write(folder / name)
    for command in commands(block("bash", "5x200"), folder):
        layers = ["model.text.num_layers=4"] if "gloria_resnet50" in command else []  # the last four are its
        run(command, [*SHORT, *SMALL, *layers])
    for name in ("medclip_resnet50", "clip_resnet50", "convirt_resnet50", "gloria_resnet50"):
        metrics = json.loads((folder / "tables" / name / "metrics.json").read_text())
        (data,) = metrics["data"].values()
        assert data["zero_shot"]["num_images"] == 1000
