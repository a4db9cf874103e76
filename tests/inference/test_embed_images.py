"""`python -m beam_jobs.embed_images`: shards of embeddings, resumed with the same bytes."""

import json
import shutil

import numpy as np
import pytest
from etils import epath

from beam_jobs import decode_images, embed_images
from beam_jobs.embedding import steps
from beam_jobs.embedding.plan import Workplace
from medclip_keras.embeddings import EmbeddingManifest, ModelProbe, read_shards


@pytest.fixture
def command(models, files, tmp_path):
    """A function: further options → the exit status of a command over five pictures, two a shard."""

    def run(*options, images=files, output=tmp_path / "embeddings"):
        named = ["--model", str(models["workdir"]), "--input", str(images), "--output", str(output)]
        return embed_images.main([*named, "--images_per_shard", "2", *options])

    return run


@pytest.fixture
def embedded(monkeypatch):
    """Numbers of the parts that RunInference has embedded, in order."""
    numbers, embed = [], steps.EmbeddingHandler.run_inference

    def noted(handler, batch, *arguments):
        numbers.extend(pictures.part.index for pictures in batch)
        return embed(handler, batch, *arguments)

    monkeypatch.setattr(steps.EmbeddingHandler, "run_inference", noted)
    return numbers


def read(folder):
    """The columns and the embeddings of all shards."""
    manifest = EmbeddingManifest.read(folder)
    parts = list(read_shards(folder, manifest))
    columns = {name: [text for part, _ in parts for text in part[name]] for name in parts[0][0]}
    return columns, np.concatenate([vectors for _, vectors in parts])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_embeddings_are_those_of_the_model(command, models, model, files, tmp_path):
    assert command() == 0
    folder, images = tmp_path / "embeddings", sorted(files.iterdir())
    columns, vectors = read(folder)
    assert columns == {"path": [str(path) for path in images]}
    np.testing.assert_allclose(vectors, model.encode_images(images), atol=1e-6)
    names = [f"embeddings-0000{k}-of-00003.parquet" for k in range(3)]
    assert sorted(contents(folder)) == [*names, "manifest.json", "unreadable.jsonl"]
    manifest = EmbeddingManifest.read(folder)
    assert [shard["num_rows"] for shard in manifest.shards] == [2, 2, 1]
    assert manifest.counts == {"images": 5, "embedded": 5, "unreadable": 0}
    assert (manifest.key, manifest.dim, manifest.num_rows) == ("path", 16, 5)
    manifest.probe.require_same(ModelProbe.of(model))
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings"]


def test_a_table_keeps_its_own_names(command, model, files, tmp_path):
    table = tmp_path / "images.csv"
    for name in ("gray.png", "picture.dcm"):
        shutil.copy(files / name, tmp_path)
    table.write_text("path\npicture.dcm\ngray.png\n")
    assert command(images=table) == 0
    columns, vectors = read(tmp_path / "embeddings")
    assert columns["path"] == ["picture.dcm", "gray.png"]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)  # the same pixels


def test_records_are_embedded_with_their_keys(models, model, files, tmp_path, command, capsys):
    rows = [f"{path},p{n},s{n},{n % 2}" for n, path in enumerate(sorted(files.glob("*.png")))]
    (tmp_path / "studies.csv").write_text("\n".join(["path,patient_id,study_id,Edema", *rows]) + "\n")
    for size in (40, 24):
        records = str(tmp_path / f"records{size}")
        decode_images.run(
            source="csv", input=str(tmp_path / "studies.csv"), output=records, image_size=size, keep_ids=True
        )
    assert command(images=tmp_path / "records24") == 1
    assert "records of the model's stored image size 40. Received: 24." in capsys.readouterr().err
    assert command("--images_per_shard", "1", images=tmp_path / "records40") == 0
    columns, vectors = read(tmp_path / "embeddings")
    assert EmbeddingManifest.read(tmp_path / "embeddings").key == "record_key"
    order = [int(patient[1:]) for patient in columns["patient_id"]]
    assert sorted(order) == [0, 1, 2]
    assert list(columns) == ["record_key", "study_id", "patient_id", "split"]
    pngs = sorted(files.glob("*.png"))
    np.testing.assert_allclose(vectors, model.encode_images([pngs[n] for n in order]), atol=1e-6)
    (shard,) = (tmp_path / "records40").glob(f"*-{columns['split'][0]}.tfrecord-00000-*")
    damaged = bytearray(shard.read_bytes())
    damaged[-9] ^= 1
    shard.write_bytes(damaged)
    assert command("--images_per_shard", "3", images=tmp_path / "records40") == 1
    assert "damaged" in capsys.readouterr().err


def test_a_stopped_job_ends_in_the_bytes_of_an_unbroken_one(command, embedded, tmp_path, monkeypatch, capsys):
    assert command(output=tmp_path / "whole") == 0
    first = embedded.copy()
    assert sorted(first) == [0, 1, 2]
    embedded.clear()
    write, output = steps.WriteShardFn.process, tmp_path / "resumed"

    def stop_in_the_second(step, result):
        if len(embedded) == 2:
            raise KeyboardInterrupt
        yield from write(step, result)

    with monkeypatch.context() as patch:
        patch.setattr(steps.WriteShardFn, "process", stop_in_the_second)
        assert command(output=output) == 130
    said = "embed_images: interrupted after 1 of 3 shards. The same command resumes the work.\n"
    assert capsys.readouterr().err.endswith(said)
    assert not output.exists()
    (left,) = tmp_path.glob("resumed.incomplete-*")
    (left / "dataset" / "embeddings-00000-of-00003.parquet.0123").write_text("of a killed step")
    assert command(output=output) == 0
    assert len(embedded) == 4
    assert set(embedded[2:]) == {0, 1, 2} - set(embedded[:1])  # the finished one is not embedded again
    assert "1 of 3 shards are finished already" in capsys.readouterr().out
    assert contents(output) == contents(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resumed", "whole"]


def test_a_finished_job_embeds_nothing_until_its_input_changes(command, embedded, files, tmp_path, capsys):
    folder = tmp_path / "images"
    shutil.copytree(files, folder)
    assert command(images=folder) == 0
    assert command(images=folder) == 0
    assert len(embedded) == 3
    assert "holds these 5 embeddings already" in capsys.readouterr().out
    (folder / "deep.png").unlink()
    assert command(images=folder) == 0
    assert len(embedded) == 5  # two shards of four images
    assert sorted(contents(tmp_path / "embeddings"))[:2] == [
        "embeddings-00000-of-00002.parquet",
        "embeddings-00001-of-00002.parquet",
    ]


def test_unreadable_files_are_listed_and_too_many_fail_the_job(
    command, embedded, model, files, tmp_path, capsys
):
    folder = tmp_path / "images"
    shutil.copytree(files, folder)
    (folder / "broken.png").write_bytes((files / "gray.png").read_bytes()[:60])
    assert command(images=folder) == 1
    error = capsys.readouterr().err
    assert "`--max_bad_fraction` must be at least the share of unreadable images" in error
    assert "0.01 for 1 unreadable of 6 images" in error
    listed = tmp_path / "embeddings.unreadable.jsonl"
    assert json.loads(listed.read_text())["path"] == str(folder / "broken.png")
    assert command("--max_bad_fraction", "0.2", images=folder) == 0
    assert len(embedded) == 3  # the first start's shards
    assert not listed.exists()
    (bad,) = (tmp_path / "embeddings" / "unreadable.jsonl").read_text().splitlines()
    assert "not a whole JPEG, PNG or DICOM file" in json.loads(bad)["reason"]
    columns, vectors = read(tmp_path / "embeddings")
    readable = sorted(files.iterdir())
    assert columns["path"] == [str(folder / path.name) for path in readable]
    np.testing.assert_allclose(vectors, model.encode_images(readable), atol=1e-6)
    assert EmbeddingManifest.read(tmp_path / "embeddings").counts["unreadable"] == 1


def test_progress_counts_the_finished_shards(tmp_path):
    workplace = Workplace(epath.Path(tmp_path), 8)
    progress = embed_images.EmbedProgress(workplace)
    workplace.summary(3).write_text("")
    assert progress.line(100) == "1 of 8 shards"
    for index in (0, 5):
        workplace.summary(index).write_text("")
    assert progress.line(140) == "3 of 8 shards, 100 s left"  # two in 40 s, five to go


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--max_bad_fraction", "2"], "`--max_bad_fraction` must be in [0, 1]"),
        (["--images_per_shard", "0"], "`--images_per_shard` must be at least 1"),
        (["--input", "nowhere/*.png"], "`--input` must be a folder, a pattern or a CSV file"),
        (["--model", "nowhere"], "must be a workdir"),
        (["--runner", "DataflowRunner"], "must be on a bucket"),
        (["--wrokers", "2"], "Near names: --workers"),
    ],
)
def test_wrong_options_end_in_a_sentence(command, tmp_path, capsys, options, sentence):
    assert command(*options) == 1
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_output_within_the_input_or_with_files_of_others_is_refused(command, files, tmp_path, capsys):
    assert command(output=files / "embeddings") == 1
    assert "a folder outside of the input" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("mine")
    assert command(output=tmp_path) == 1
    assert "an older output" in capsys.readouterr().err
