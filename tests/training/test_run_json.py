"""run.json: an existing run is kept, and each difference of another run is named."""

import dataclasses
import json
import re
import shutil

import pytest

from medclip_keras.config import override
from medclip_keras.training.run_json import differences, mark_diverged, read_run_json, write_run_json


@pytest.fixture
def vocabulary(tmp_path):
    file = tmp_path / "vocab.txt"
    file.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nlung\n")
    return file


@pytest.fixture
def run(tiny_run, vocabulary, tmp_path):
    """A configuration that names a vocabulary file and a folder of text weights."""
    (tmp_path / "bert" / "assets").mkdir(parents=True)
    (tmp_path / "bert" / "assets" / "weights").write_text("1 2 3")
    return override(
        tiny_run, [f"model.text.vocabulary={vocabulary}", f"model.text.preset={tmp_path / 'bert'}"]
    )


@pytest.fixture
def workdir(run, tmp_path):
    write_run_json(run, tmp_path / "run")
    return tmp_path / "run"


def test_the_same_run_is_accepted_and_its_file_kept(run, workdir):
    before = (workdir / "run.json").read_bytes()
    (workdir / "run.json").write_bytes(before + b"\n")
    write_run_json(run, workdir)
    assert (workdir / "run.json").read_bytes() == before + b"\n"
    assert read_run_json(workdir) == run


def test_a_changed_vocabulary_file_is_refused(run, workdir, vocabulary):
    vocabulary.write_text(vocabulary.read_text() + "heart\n")
    with pytest.raises(ValueError, match=r"it differs in the content of model.text.vocabulary\. Received"):
        write_run_json(run, workdir)


def test_changed_weights_of_a_preset_are_refused(run, workdir, tmp_path):
    (tmp_path / "bert" / "assets" / "weights").write_text("1 2 4")
    assert differences(run, workdir) == ["the content of model.text.preset"]


def test_changed_fields_are_named_with_both_values(run, workdir):
    changed = override(run, ["train.steps=6", "data.phantom={}", "model.text.lower_case=false"])
    sentence = (
        "empty or hold this very run; it differs in data.phantom (None there, nothing here), "
        "data.phantom.image_size (nothing there, 80 here), "
    )
    with pytest.raises(ValueError, match=re.escape(sentence) + ".*, 3 more"):
        write_run_json(changed, workdir)
    assert "train.steps (7 there, 6 here)" in differences(changed, workdir)


def test_changed_records_are_refused_and_a_moved_folder_is_the_same(run, workdir, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(run.data.images[0], moved)
    same = dataclasses.replace(run, data=dataclasses.replace(run.data, images=(str(moved),)))
    assert differences(same, workdir) == []
    manifest = json.loads((moved / "manifest.json").read_text())
    (moved / "manifest.json").write_text(json.dumps(manifest | {"source": "other"}))
    assert differences(same, workdir) == ["the content of the records"]


@pytest.mark.parametrize(
    "assignment",
    [
        "train.strategy=mirrored", "train.log_every=3", "train.checkpoint_every=2", "evaluation.bootstrap=9",
        'evaluation.findings=["Edema"]', "data.allow_anomalies=true", "train.evaluate_every=3",
    ],
)  # fmt: skip
def test_what_leaves_the_weights_as_they_are_is_no_other_run_and_is_kept(run, workdir, assignment):
    changed = override(run, [assignment])
    assert differences(changed, workdir) == []
    assert write_run_json(changed, workdir, 7) == {}
    assert read_run_json(workdir) == changed


def test_zero_shot_evaluations_that_choose_the_best_weights_are_another_run(run, tmp_path):
    by_zero_shot = ["train.best_by=zero_shot", "train.evaluate_every=2"]
    write_run_json(override(run, by_zero_shot), tmp_path / "run")
    changed = override(run, [*by_zero_shot, "train.evaluate_every=3"])
    assert differences(changed, tmp_path / "run") == ["train.evaluate_every (2 there, 3 here)"]


@pytest.mark.parametrize("spelling", ["relative", "slash", "link"])
def test_another_spelling_of_a_folder_is_no_other_run(run, workdir, spelling, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "bert")
    other = {"relative": "bert", "slash": f"{tmp_path / 'bert'}/", "link": str(tmp_path / "link")}[spelling]
    changed = override(run, [f"model.text.preset={other}", "model.text.vocabulary=vocab.txt"])
    assert differences(changed, workdir) == []
    (tmp_path / "other").mkdir()
    assert differences(override(run, ["model.text.preset=other"]), workdir) == [
        f"model.text.preset ({tmp_path / 'bert'} there, other here)",
        "the content of model.text.preset",
    ]


def test_more_steps_continue_the_run_and_fewer_are_another(run, workdir):
    assert write_run_json(override(run, ["train.steps=9"]), workdir, 7) == {"train.steps": (7, 9)}
    written = json.loads((workdir / "run.json").read_text())
    assert written["continued"] == [{"after_step": 7, "train.steps": [7, 9]}]
    assert written["config"]["train"]["steps"] == 9
    assert differences(run, workdir) == ["train.steps (9 there, 7 here)"]


def test_a_rate_may_be_lowered_once_the_loss_was_not_finite(run, workdir):
    lower, higher = (override(run, [f"train.learning_rate={rate}"]) for rate in (1e-4, 1e-2))
    assert differences(lower, workdir) == ["train.learning_rate (0.001 there, 0.0001 here)"]
    with pytest.raises(FloatingPointError), mark_diverged(workdir):
        raise FloatingPointError
    assert differences(lower, workdir) == []
    assert differences(higher, workdir) == ["train.learning_rate (0.001 there, 0.01 here)"]
    assert write_run_json(lower, workdir, 3) == {"train.learning_rate": (1e-3, 1e-4)}
    with mark_diverged(workdir):
        pass
    assert differences(override(run, ["train.learning_rate=1e-5"]), workdir) == [
        "train.learning_rate (0.0001 there, 1e-05 here)"
    ]


def test_a_run_of_the_version_before_has_no_hashes_and_is_accepted(run, workdir, vocabulary):
    earlier = json.loads((workdir / "run.json").read_text())
    del earlier["inputs"]
    del earlier["config"]["evaluation"]["bootstrap"]  # a field that a later version added
    (workdir / "run.json").write_text(json.dumps(earlier))
    vocabulary.write_text("another")
    assert differences(run, workdir) == []


def test_a_value_that_this_version_refuses_is_named_with_the_file(run, workdir):
    earlier = json.loads((workdir / "run.json").read_text())
    earlier["config"]["train"]["batch_size"] = 1
    (workdir / "run.json").write_text(json.dumps(earlier))
    with pytest.raises(ValueError, match=r"run.json: `train.batch_size` must be at least 2. Received: 1"):
        read_run_json(workdir)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`workdir` must be a folder in which a run was trained"):
        read_run_json(tmp_path)
