"""What a job embeds, cut into parts, and the folder where finished parts wait for the others."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etils import epath

from beam_jobs.dataset import inputs
from medclip_keras.errors import require
from medclip_keras.records.manifest import Manifest, find_damaged_shard


@dataclass(frozen=True)
class Part:
    """Images of one shard: files, or records of one of the input's shards.

    Attributes:
        index: number of the shard.
        num_images: rows, the unreadable ones included.
        records: {"path", "start", "image_size", "num_findings"} of a shard of records; empty for files.
    """

    index: int
    num_images: int
    records: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What the job embeds.

    Attributes:
        parts: of the shards.
        key: name of the shards' first column.
        files: {name: path}; empty for records.
        input_sha256: of names, sizes and times of change, or the records' fingerprint.
    """

    parts: Sequence[Part]
    key: str
    files: Mapping[str, str]
    input_sha256: str


def plan_files(files: Mapping[str, str], size: int) -> Plan:
    """Cut a list of files into parts."""
    starts = range(0, len(files), size)
    parts = [Part(i, min(size, len(files) - start)) for i, start in enumerate(starts)]
    return Plan(parts, "path", files, inputs.sha256_of_files(map(inputs.describe, files.values())))


def plan_records(directory: str, manifest: Manifest, image_size: int, size: int) -> Plan:
    """Cut the shards of records into parts.

    Raises:
        ValueError: records of reports, of another image size than the model's, or a damaged shard.
    """
    form = "records of decode_images"
    require(manifest.kind == "images", "--input", form, f"records of {manifest.kind}")
    form = f"records of the model's stored image size {image_size}"
    advice = f"Decode the images again with --image_size {image_size}."
    require(manifest.image_size == image_size, "--input", form, manifest.image_size, advice)
    damaged = find_damaged_shard(directory, manifest)
    require(not damaged, "--input", "a complete dataset", damaged, "Run beam_jobs.decode_images again.")
    parts: list[Part] = []
    for shard in itertools.chain.from_iterable(part["shards"] for part in manifest.parts("all")):
        path = str(epath.Path(directory) / shard["name"])
        for start in range(0, shard["num_records"], size):
            place = {"path": path, "start": start, "num_findings": manifest.num_findings}
            parts.append(Part(len(parts), min(size, shard["num_records"] - start), place))
    return Plan(parts, "record_key", {}, manifest.fingerprint)


@dataclass(frozen=True)
class Workplace:
    """Folder of the finished shards of one fingerprint; a killed job leaves it for the next start."""

    folder: epath.Path
    num_parts: int

    @property
    def dataset(self) -> epath.Path:
        """Finished shards, then the manifest."""
        return self.folder / "dataset"

    def listing(self, index: int) -> epath.Path:
        """The names and paths of a part's files."""
        return self.folder / f"listing-{index:05d}.json"

    def summary(self, index: int) -> epath.Path:
        """Written after a shard: its entry of the manifest, and its unreadable images."""
        return self.folder / f"summary-{index:05d}.json"

    def shard_name(self, index: int) -> str:
        """Name of a shard's file."""
        return f"embeddings-{index:05d}-of-{self.num_parts:05d}.parquet"

    def finished(self) -> list[int]:
        """Numbers of the finished parts."""
        present = {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()
        return [index for index in range(self.num_parts) if self.summary(index).name in present]


def open_workplace(output: epath.Path, plan: Plan, fingerprint: str) -> Workplace:
    """Make or find the folder of this fingerprint beside the output; those of others are removed."""
    prefix = f"{output.name}.incomplete-"
    workplace = Workplace(output.parent / f"{prefix}{fingerprint[:12]}", len(plan.parts))
    output.parent.mkdir(parents=True, exist_ok=True)
    for path in output.parent.iterdir():
        if path.name.startswith(prefix) and path.name != workplace.folder.name:
            path.rmtree()
    workplace.dataset.mkdir(parents=True, exist_ok=True)
    return workplace
