"""`python -m medclip_keras.predict`: scores of images without labels, resumed with the same bytes."""

import csv
import json
import shutil

import numpy as np
import pyarrow.parquet
import pytest
from rich.console import Console

from medclip_keras import evaluate, predict
from medclip_keras.image_files import read_square

FINDINGS = ["Edema", "Pleural Effusion"]


@pytest.fixture
def command(models, files, tmp_path):
    """A function: further options → the exit status of a command over the five pictures."""

    def run(*options, model="workdir", images=files, output=tmp_path / "scores.csv"):
        named = ["--model", str(models[model]), "--images", str(images), "--output", str(output)]
        return predict.main([*named, "--findings", ", ".join(FINDINGS), *options])

    return run


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "scores.csv.json"}


@pytest.mark.parametrize("kind", ["workdir", "saved_model"])
def test_scores_are_those_of_classify(command, model, files, tmp_path, kind):
    assert command(model=kind) == 0
    images = sorted(files.iterdir())
    expected = model.classify(images, FINDINGS)
    found = rows(tmp_path / "scores.csv")
    assert [row["path"] for row in found] == [str(path) for path in images]
    for name in FINDINGS:
        np.testing.assert_allclose([float(row[name]) for row in found], expected[name], atol=1e-5)
    record = json.loads((tmp_path / "scores.csv.json").read_text())
    assert record["counts"] == {"images": 5, "unreadable": 0}
    assert not (tmp_path / "scores.csv.chunks").exists()


def test_a_table_names_images_relative_to_its_folder(command, model, files, tmp_path, capsys):
    (tmp_path / "a").mkdir()
    for name in ("gray.png", "picture.dcm"):
        shutil.copy(files / name, tmp_path / "a")
    table = tmp_path / "images.csv"
    table.write_text("\ufeffsite;path\r\nA;a\\picture.dcm\r\nB;a/gray.png\r\nC;\r\n")
    assert command(images=table) == 0
    found = rows(tmp_path / "scores.csv")
    assert "Passed over: 1 rows without a path." in capsys.readouterr().out
    assert [row["path"] for row in found] == ["a\\picture.dcm", "a/gray.png"]
    pixels = [read_square(tmp_path / "a" / name, 36) for name in ("picture.dcm", "gray.png")]
    np.testing.assert_array_equal(*pixels)
    same_pixels = [float(row["Edema"]) for row in found]
    assert same_pixels[0] == pytest.approx(same_pixels[1], abs=1e-5)


@pytest.mark.parametrize("kind", [".npz", ".parquet"])
def test_embeddings_are_kept_beside_the_scores(command, model, files, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(predict, "IMAGES_PER_CHUNK", 2)
    path = tmp_path / f"embeddings{kind}"
    assert command("--embeddings", str(path)) == 0
    images = sorted(files.iterdir())
    if kind == ".npz":
        with np.load(path) as content:
            names, embeddings = content["paths"], content["embeddings"]
    else:
        table = pyarrow.parquet.read_table(path)
        names, embeddings = table["path"].to_pylist(), np.stack(table["embedding"].to_numpy())
    assert list(names) == [str(image) for image in images]
    np.testing.assert_allclose(embeddings, model.encode_images(images), atol=1e-6)


def test_a_stopped_command_resumes_to_the_same_bytes(command, files, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "IMAGES_PER_CHUNK", 2)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for folder in (whole, resumed):
        folder.mkdir()
    assert command("--embeddings", str(whole / "e.npz"), output=whole / "scores.csv") == 0
    score, scored = predict.Prediction._score_chunk, []

    def stop_in_the_second_chunk(prediction, names, path):
        scored.append(len(names))
        if len(scored) == 2:
            raise KeyboardInterrupt
        score(prediction, names, path)

    monkeypatch.setattr(predict.Prediction, "_score_chunk", stop_in_the_second_chunk)
    arguments = ("--embeddings", str(resumed / "e.npz"))
    assert command(*arguments, output=resumed / "scores.csv") == 130
    assert not (resumed / "scores.csv").exists()
    assert command(*arguments, output=resumed / "scores.csv") == 0
    assert scored == [2, 2, 2, 1]  # the first chunk is scored once
    assert contents(resumed) == contents(whole)
    assert command(*arguments, output=resumed / "scores.csv") == 0
    assert len(scored) == 4  # a finished command scores nothing


def test_unreadable_files_are_listed_and_too_many_end_the_command(command, files, tmp_path, capsys):
    folder = tmp_path / "images"
    shutil.copytree(files, folder)
    (folder / "broken.png").write_bytes((files / "gray.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("no picture")
    assert command(images=folder) == 1
    output, error = capsys.readouterr()
    assert "Passed over: 1 files with other suffixes than .png, .jpg, .jpeg, .dcm, .dicom." in output
    assert "`--max_bad_fraction` must be at least the share of unreadable files" in error
    assert "0.01 for 1 unreadable of 6 files" in error
    assert not (tmp_path / "scores.csv").exists()
    assert command("--max_bad_fraction", "0.2", images=folder) == 0
    assert len(rows(tmp_path / "scores.csv")) == 5
    (bad,) = rows(tmp_path / "scores.csv.unreadable.csv")
    assert bad["path"] == str(folder / "broken.png")
    assert "not a whole JPEG, PNG or DICOM file" in bad["reason"]


def test_folders_are_followed_through_links_and_hidden_files_left_out(files, tmp_path):
    (tmp_path / "in" / ".trash").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("in/b.png", "in/._b.png", "in/.trash/c.png", "elsewhere/a.png"):
        shutil.copy(files / "gray.png", tmp_path / name)
    (tmp_path / "in" / "2024").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "in")  # a circle
    found = predict.list_images(str(tmp_path / "in"), Console(quiet=True))
    assert list(found) == [str(tmp_path / "in" / name) for name in ("2024/a.png", "b.png")]


def test_an_output_of_another_command_is_refused(command, tmp_path, capsys):
    assert command() == 0
    before = (tmp_path / "scores.csv").read_bytes()
    assert command("--mode", "single") == 1
    assert "made with other mode" in capsys.readouterr().err
    assert (tmp_path / "scores.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--max_bad_fraction", "2"], "`--max_bad_fraction` must be in [0, 1]"),
        (["--embeddings", "e.csv"], "ends in .npz or .parquet"),
        (["--images", "nowhere/*.png"], "names at least one image"),
        (["--findings", "Plural Effusion"], "Near names: Pleural Effusion"),
        (["--model", "nowhere"], "must be a workdir"),
        (["--output", "nowhere/scores.csv"], "in an existing folder"),
        (["--output", "."], "in an existing folder"),
    ],
)
def test_wrong_options_end_in_a_sentence(command, tmp_path, capsys, options, sentence):
    assert command(*options) == 1
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_evaluate_scores_a_table_of_every_kind_of_image_as_classify_does(models, model, files, tmp_path):
    """scores.csv of a manifest: gray, colour, 16 bits, JPEG and DICOM, from the workdir and its export."""
    images = sorted(files.iterdir())
    lines = [f"{path},{n % 2},{int(n > 2)}" for n, path in enumerate(images)]
    table = tmp_path / "images.csv"
    table.write_text("\n".join([",".join(("path", *FINDINGS)), *lines]) + "\n")
    expected = model.classify(images, FINDINGS)
    for kind, path in models.items():
        command = [f"--{kind}", str(path), "--manifest", str(table), "--output", str(tmp_path / kind)]
        assert evaluate.main(command) == 0
        found = rows(tmp_path / kind / "scores.csv")
        assert [row["image"] for row in found] == [str(path) for path in images for _ in FINDINGS]
        for name in FINDINGS:
            scores = [float(row["score"]) for row in found if row["class"] == name]
            np.testing.assert_allclose(scores, expected[name], atol=1e-5)
        assert [row["truth"] for row in found[:2]] == ["0", "0"]
