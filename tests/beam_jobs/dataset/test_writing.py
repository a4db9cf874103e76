import pytest

from beam_jobs.dataset import writing
from beam_jobs.dataset.writing import publish, require_replaceable, start_workplace

SHARDS = [f"zoo_images-train.tfrecord-0000{index}-of-00002" for index in range(2)]


def test_start_workplace_removes_broken_attempts_only(tmp_path):
    output = tmp_path / "records"
    broken = start_workplace(output)
    (tmp_path / "records2.incomplete-1").mkdir()
    output.mkdir()
    second = start_workplace(output)
    assert not broken.exists()
    assert second != broken
    assert {path.name for path in tmp_path.iterdir()} == {"records", "records2.incomplete-1", second.name}


def test_output_with_files_of_others_is_not_replaceable(tmp_path):
    require_replaceable(tmp_path / "new")
    require_replaceable(tmp_path)
    (tmp_path / SHARDS[0]).write_text("")
    (tmp_path / "manifest.json").write_text("")
    require_replaceable(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="`output` must be a new folder, an empty one or an older output"):
        require_replaceable(tmp_path)
    with pytest.raises(ValueError, match=r"`output` must be a folder. Received"):
        require_replaceable(tmp_path / "notes.txt")


def test_mentions_replace_older_mentions_alone(tmp_path):
    mentions = tmp_path / "mentions"
    mentions.mkdir()
    (mentions / "mentions-train-00007-of-00009.jsonl").write_text("old")
    (mentions / "readme.txt").write_text("mine")
    workplace = start_workplace(tmp_path / "records")
    (workplace / "mentions" / "mentions-test-00000-of-00001.jsonl").write_text("new")
    publish(workplace, tmp_path / "records", str(mentions))
    assert {path.name for path in mentions.iterdir()} == {"readme.txt", "mentions-test-00000-of-00001.jsonl"}


def test_bad_records_are_in_the_order_of_their_keys(tmp_path):
    writing.write_bad_records(
        tmp_path / "bad.jsonl", [{"key": "b", "reason": "x"}, {"key": "a", "reason": "y"}]
    )
    assert (
        tmp_path / "bad.jsonl"
    ).read_text() == '{"key": "a", "reason": "y"}\n{"key": "b", "reason": "x"}\n'
