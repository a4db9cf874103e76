"""Manifest of a dataset: counts, sizes, checksums and provenance.

A dataset folder holds the shards, `concepts.jsonl`, TFDS' `features.json` and `dataset_info.json`,
`bad_records.jsonl`, and `manifest.json`, which is written last: a folder without it is not a dataset.
"""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etils import epath

from medclip_keras.errors import refusal, require
from medclip_keras.files import size_of
from medclip_keras.knowledge.concepts import ConceptTable, load_table
from medclip_keras.provenance import file_sha256, sha256_of

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

MANIFEST_NAME = "manifest.json"
CONCEPTS_NAME = "concepts.jsonl"


@dataclass(frozen=True)
class Manifest:
    """Contents and provenance of a dataset."""

    kind: str  # "images" or "reports"
    source: str  # the archive's name
    image_size: int  # side of the stored images in pixels; 0 for reports
    concept_table: str  # its name; the table is beside the manifest
    concepts_sha256: str  # `ConceptTable.fingerprint`; records of different tables are never mixed
    num_findings: int  # concepts in the table
    # for each of train, valid, test: `num_records`; `shards`, a list of {name, num_records, num_bytes,
    # sha256}; `positives`, the number of records positive for each finding; `num_sentences`;
    # `sentence_positives`, the number of sentences positive for each finding
    splits: Mapping[str, Mapping[str, Any]]
    # rows, records, bad_rows and tagged rows of the job
    counts: Mapping[str, int] = field(default_factory=dict)
    reports_sha256: str = ""  # `fingerprint` of the report dataset whose sentences were joined in, else ""
    # the job, its input and options, its code and the versions it ran under
    made_from: Mapping[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the contents, without the provenance."""
        content = dataclasses.asdict(self)
        del content["made_from"], content["counts"]
        return sha256_of(content)

    def parts(self, split: str) -> list[Mapping[str, Any]]:
        """The contents of one split, or of every split for "all"."""
        return [part for name, part in self.splits.items() if split in ("all", name)]

    @property
    def num_records(self) -> int:
        """Records of all splits."""
        return sum(split["num_records"] for split in self.splits.values())

    @property
    def shard_names(self) -> list[str]:
        """File names of all shards, split by split."""
        return [shard["name"] for split in self.splits.values() for shard in split["shards"]]

    @property
    def features(self) -> "tfds.features.FeaturesDict":
        """Features of the records; see `schema`."""
        from medclip_keras.records.schema import features_of

        return features_of(self.kind, self.image_size, self.num_findings)


def write_manifest(directory: epath.PathLike, manifest: Manifest) -> None:
    """Write the manifest, which makes the folder a dataset."""
    text = json.dumps(dataclasses.asdict(manifest), indent=1) + "\n"
    unfinished = epath.Path(directory) / f"{MANIFEST_NAME}.unfinished"
    unfinished.write_text(text)
    unfinished.replace(epath.Path(directory) / MANIFEST_NAME)


def read_manifest(directory: epath.PathLike) -> Manifest:
    """Read a dataset's manifest.

    Raises:
        ValueError: no such folder, or no manifest in it: not a dataset, or the job did not finish.
    """
    path = epath.Path(directory) / MANIFEST_NAME
    require(
        path.exists(),
        "directory",
        f"a folder of records with a {MANIFEST_NAME}",
        str(directory),
        "Make one with beam_jobs.label_reports or decode_images; a job that did not finish leaves none.",
    )
    try:
        return Manifest(**json.loads(path.read_text()))
    except (json.JSONDecodeError, TypeError):
        requirement = f"a folder of records whose {MANIFEST_NAME} this version can read"
        raise refusal("directory", requirement, str(directory), "Run the Beam job again.") from None


def load_concepts(directory: epath.PathLike) -> ConceptTable:
    """Load the concept table of a dataset.

    Raises:
        ValueError: not a dataset, or the table is not the one that the manifest names.
    """
    manifest = read_manifest(directory)
    path, advice = epath.Path(directory) / CONCEPTS_NAME, f"Run the Beam job that made {directory} again."
    require(path.exists(), CONCEPTS_NAME, "in the folder of records", f"no {path}", advice)
    table = dataclasses.replace(load_table(str(path)), name=manifest.concept_table)
    require(
        table.fingerprint == manifest.concepts_sha256,
        CONCEPTS_NAME,
        f"the concept table of the records (SHA-256 {manifest.concepts_sha256})",
        table.fingerprint,
        f"Delete it. {advice}",
    )
    return table


def find_damaged_shard(directory: epath.PathLike, manifest: Manifest, split: str = "all") -> str:
    """Describe the first missing or truncated shard of a split, or of "all"; "" if there is none."""
    for part in manifest.parts(split):
        for shard in part["shards"]:
            length = size_of(epath.Path(directory) / shard["name"])
            if length != shard["num_bytes"]:
                return f"{shard['name']} has {length} bytes, in the manifest {shard['num_bytes']}"
    return ""


def verify(directory: epath.PathLike) -> None:
    """Compare every shard with the manifest.

    Raises:
        ValueError: not a dataset, or a shard is missing, of another size or of another checksum.
    """
    manifest, advice = read_manifest(directory), f"Run the Beam job that made {directory} again."
    damaged = find_damaged_shard(directory, manifest)
    require(not damaged, "directory", "a complete dataset", damaged, advice)
    for shard in itertools.chain.from_iterable(split["shards"] for split in manifest.splits.values()):
        digest = file_sha256(epath.Path(directory) / shard["name"])
        requirement = f"of the manifest's SHA-256 {shard['sha256']}"
        require(digest == shard["sha256"], shard["name"], requirement, digest, f"Delete it. {advice}")


def split_infos(
    manifest: Manifest, file_names: Callable[[str], Any] = lambda split: None
) -> "list[tfds.core.SplitInfo]":
    """TFDS' description of the splits with records; `file_names` gives a split's template, if any."""
    import tensorflow_datasets as tfds

    return [
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=[shard["num_records"] for shard in split["shards"]],
            num_bytes=sum(shard["num_bytes"] for shard in split["shards"]),
            filename_template=file_names(name),
        )
        for name, split in manifest.splits.items()
        if split["shards"]
    ]


def write_tfds_metadata(
    directory: epath.PathLike, manifest: Manifest, *, citation: str, licence: str
) -> None:
    """Write the metadata for `tfds.builder_from_directory`."""
    import tensorflow_datasets as tfds

    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=manifest.features,
        split_infos=split_infos(manifest),
        check_data=False,
        description=f"{manifest.kind} of {manifest.source} as medclip_keras records",
        citation=citation,
        license=licence,
    )
