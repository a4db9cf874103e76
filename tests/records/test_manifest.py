import dataclasses
import json
import pwd

import pytest

from medclip_keras.files import size_of
from medclip_keras.knowledge.concepts import Concept, ConceptTable
from medclip_keras.records.manifest import find_damaged_shard, load_concepts, read_manifest, verify

TABLE = ConceptTable("two", (Concept("C0000001", "Edema"), Concept("C0000002", "Mass", ("lump",))))


@pytest.fixture
def dataset(tmp_path, write_dataset, report_row):
    """A dataset of two train shards, of 3 and 2 records, and no other records."""
    rows = {"train": [report_row(f"r{number}", [1, 0]) for number in range(5)]}
    directory, fields = tmp_path / "records", {"counts": {"rows": 5}, "made_from": {"input": "somewhere"}}
    return directory, write_dataset(directory, "reports", rows, table=TABLE, **fields)


def test_read_manifest_inverts_write_manifest(dataset):
    directory, manifest = dataset
    assert read_manifest(directory) == manifest
    assert read_manifest(directory).fingerprint == manifest.fingerprint
    assert manifest.num_records == 5


def test_fingerprint_covers_the_records_without_their_provenance(dataset):
    _, manifest = dataset
    assert dataclasses.replace(manifest, made_from={"input": "elsewhere"}).fingerprint == manifest.fingerprint
    shard = {**manifest.splits["train"]["shards"][1], "sha256": "0"}
    train = {**manifest.splits["train"], "shards": [manifest.splits["train"]["shards"][0], shard]}
    other = dataclasses.replace(manifest, splits={**manifest.splits, "train": train})
    assert other.fingerprint != manifest.fingerprint
    assert dataclasses.replace(manifest, concepts_sha256="0").fingerprint != manifest.fingerprint


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_folder_without_manifest_gets_the_sentence(tmp_path, name):
    sentence = r"`directory` must be a folder of records with a manifest.json. Received"
    with pytest.raises(ValueError, match=sentence):
        read_manifest(tmp_path / name)


def test_manifest_of_another_version_gets_the_sentence(dataset):
    directory, _ = dataset
    content = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps({**content, "surprise": 1}))
    with pytest.raises(ValueError, match=r"this version can read.*Run the Beam job again"):
        read_manifest(directory)


def test_verify_names_the_shard_with_one_changed_bit(dataset):
    directory, manifest = dataset
    name = manifest.splits["train"]["shards"][1]["name"]
    content = bytearray((directory / name).read_bytes())
    content[len(content) // 2] ^= 1
    (directory / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"`{name}` must be of the manifest's SHA-256.*Delete it. Run the"):
        verify(directory)


def test_verify_names_a_truncated_or_missing_shard(dataset):
    directory, manifest = dataset
    name = manifest.splits["train"]["shards"][0]["name"]
    content = (directory / name).read_bytes()
    (directory / name).write_bytes(content[: len(content) * 2 // 3])
    size = len(content)
    with pytest.raises(ValueError, match=f"{name} has {size * 2 // 3} bytes, in the manifest {size}"):
        verify(directory)
    (directory / name).unlink()
    with pytest.raises(ValueError, match=f"{name} has 0 bytes, in the manifest {size}"):
        verify(directory)


def test_load_concepts_gives_the_table_and_refuses_another(dataset):
    directory, _ = dataset
    assert load_concepts(directory) == TABLE
    (directory / "concepts.jsonl").write_text(TABLE.to_jsonl().replace("lump", "bump"))
    with pytest.raises(ValueError, match=r"`concepts.jsonl` must be the concept table of the records"):
        load_concepts(directory)
    (directory / "concepts.jsonl").unlink()
    with pytest.raises(ValueError, match=r"`concepts.jsonl` must be in the folder of records\. .* again"):
        load_concepts(directory)


def test_write_manifest_leaves_no_second_file(dataset):
    directory, _ = dataset
    assert not [path for path in directory.iterdir() if "unfinished" in path.name]


def test_records_of_an_owner_without_a_name_are_read(dataset, monkeypatch):
    """Containers and network disks know users by number alone."""

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    directory, manifest = dataset
    assert find_damaged_shard(directory, manifest) == ""
    sizes = [shard["num_bytes"] for shard in manifest.splits["train"]["shards"]]
    assert [size_of(directory / name) for name in (*manifest.shard_names, "none")] == [*sizes, 0]
