import json
import pathlib

import pytest

from medclip_keras import export as export_module
from medclip_keras.export import export_workdir, main


class Loaded:
    model = tokenizer = table = None
    step = 12


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A workdir whose export writes one file and whose validation finds no difference."""

    def write(endpoints, table, destination, run, *, text_operations):
        folder = pathlib.Path(destination)
        folder.mkdir()
        (folder / "saved_model.pb").write_text(json.dumps({**run, "text": text_operations}))

    monkeypatch.setattr(export_module, "export_model", write)
    monkeypatch.setattr(export_module, "Endpoints", lambda *_: None)
    monkeypatch.setattr(export_module, "validate", lambda *_, **__: 0.0)
    folder = tmp_path / "workdir"
    folder.mkdir()
    (folder / "run.json").write_text('{"config": {"name": "r"}}')
    return folder


def test_next_version_is_the_largest_plus_one(workdir, tmp_path):
    models = tmp_path / "models"
    (models / "9").mkdir(parents=True)
    (models / "10").mkdir()
    (models / "notes").mkdir()
    version = export_workdir(workdir, models, loaded=Loaded)
    assert version == models / "11"
    written = {"config": {"name": "r"}, "step": 12}
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

    monkeypatch.setattr(export_module, "validate", refuse)
    with pytest.raises(ValueError, match="must be equal"):
        export_workdir(workdir, tmp_path / "models", loaded=Loaded)
    assert list((tmp_path / "models").iterdir()) == []


def test_the_version_appears_only_after_the_validation(workdir, tmp_path, monkeypatch):
    seen = []

    def validate(path, *_, **__):
        seen.extend(p.name for p in pathlib.Path(path).parents[1].iterdir())
        return 0.0

    monkeypatch.setattr(export_module, "validate", validate)
    export_workdir(workdir, tmp_path / "models", loaded=Loaded)
    assert len(seen) == 2  # once for each model
    assert seen[0].startswith(".exporting-")
    assert seen[1] == seen[0]


def test_a_concurrent_version_is_not_overwritten(workdir, tmp_path, monkeypatch):
    models = tmp_path / "models"
    numbers = iter([1, 1, 2, 2])  # asked of both models each time
    monkeypatch.setattr(export_module, "next_version", lambda _: next(numbers))
    (models / "1").mkdir(parents=True)
    (models / "1" / "theirs").write_text("")
    assert export_workdir(workdir, models, loaded=Loaded) == models / "2"
    assert [p.name for p in (models / "1").iterdir()] == ["theirs"]


def test_a_bucket_and_an_untrained_workdir_are_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"`output` must be a local folder .* Received: 'gs://models'"):
        export_workdir(tmp_path, "gs://models")
    assert main(["--workdir", str(tmp_path), "--output", str(tmp_path / "models")]) == 1
    assert "`workdir` must be a folder in which a run was trained" in capsys.readouterr().err
