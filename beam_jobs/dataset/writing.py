"""Shards to a dataset: a job writes beside its output, and moves its files there, the manifest last."""

import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from etils import epath

from beam_jobs.dataset.sharding import Outcome
from medclip_keras.errors import require
from medclip_keras.knowledge.states import LabelState
from medclip_keras.provenance import file_sha256
from medclip_keras.records.manifest import CONCEPTS_NAME, MANIFEST_NAME
from medclip_keras.records.schema import encode, features_of
from medclip_keras.records.shards import Shard, shard_of_file, write_shard

BAD_RECORDS_NAME = "bad_records.jsonl"
# In the order in which they are moved: a folder without the last one is not a dataset.
METADATA_NAMES = (
    CONCEPTS_NAME, BAD_RECORDS_NAME, "LICENSE", "features.json", "dataset_info.json", MANIFEST_NAME,
)  # fmt: skip
_MENTIONS_NAME = re.compile(r"mentions-(train|valid|test)-\d{5}-of-\d{5}\.jsonl")


@dataclass
class ShardSummary:
    """Counts of a written shard."""

    split: str
    index: int  # of the shard in the split
    shard: dict[str, Any] = field(default_factory=dict)  # the manifest's entry, a `ShardFile`
    num_rows: int = 0  # readable rows
    positives: list[int] = field(default_factory=list)  # (num_findings,) records positive for each
    sentence_positives: list[int] = field(default_factory=list)  # (num_findings,) likewise, sentences
    num_sentences: int = 0  # of all records
    tags: dict[str, int] = field(default_factory=dict)  # tag → rows
    mentions: dict[str, str] = field(default_factory=dict)  # name of a mentions file → its SHA-256


@dataclass(frozen=True)
class WriteShard:
    """Write a shard of records, and the mentions of its reports if they have a folder."""

    directory: str
    dataset: str
    kind: str
    image_size: int
    num_findings: int
    mentions_directory: str = ""

    def __call__(self, shard: Shard, outcomes: Iterator[Outcome]) -> ShardSummary:
        """Write one shard."""
        summary = ShardSummary(shard.split, shard.index)
        mentions: list[Mapping[str, Any]] = []
        records = self._records(outcomes, summary, mentions)
        summary.shard = asdict(write_shard(self.directory, shard.file_name(self.dataset), records))
        if self.mentions_directory:
            name = f"mentions-{shard.split}-{shard.index:05d}-of-{shard.num_shards:05d}.jsonl"
            summary.mentions[name] = _write_lines(epath.Path(self.mentions_directory) / name, mentions)
        return summary

    def _records(
        self, outcomes: Iterator[Outcome], summary: ShardSummary, mentions: list[Mapping[str, Any]]
    ) -> Iterator[bytes]:
        """Serialize records; count them and collect their mentions."""
        features = features_of(self.kind, self.image_size, self.num_findings)
        positives, sentence_positives = np.zeros((2, self.num_findings), int)
        for outcome in outcomes:
            summary.num_rows += 1
            for tag in outcome.tags:
                summary.tags[tag] = summary.tags.get(tag, 0) + 1
            if outcome.mentions is not None:
                mentions.append(outcome.mentions)
            if outcome.record is not None:
                positives += outcome.record["label_states"] == LabelState.POSITIVE
                for sentence in outcome.record["sentences"]:
                    sentence_positives += sentence["label_states"] == LabelState.POSITIVE
                summary.num_sentences += len(outcome.record["sentences"])
                yield encode(features, outcome.record)
        summary.positives, summary.sentence_positives = positives.tolist(), sentence_positives.tolist()


def _write_lines(path: epath.Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """Write JSON lines; the file takes its name when it is complete. Returns its SHA-256."""
    unfinished = path.parent / f"{path.name}.{uuid.uuid4().hex}"
    unfinished.write_text("".join(json.dumps(row) + "\n" for row in rows))
    unfinished.replace(path)
    return file_sha256(path)


def write_bad_records(path: epath.PathLike, bad: Iterable[Mapping[str, Any]]) -> None:
    """Write keys, numbers and reasons, one line per bad row, in the order of the keys."""
    _write_lines(epath.Path(path), sorted(bad, key=lambda row: (row["key"], row["reason"])))


def require_replaceable(
    output: epath.PathLike, belongs: Callable[[epath.Path], bool] = lambda path: _is_ours(path)
) -> None:
    """Refuse an output folder with files of others; `belongs` says which files are the job's."""
    output = epath.Path(output)
    if not output.exists():
        return
    require(output.is_dir(), "output", "a folder", str(output))
    foreign = sorted(path.name for path in output.iterdir() if not belongs(path))
    advice = "Move its files away, or name another folder."
    require(not foreign, "output", "a new folder, an empty one or an older output", str(output), advice)


def start_workplace(output: epath.PathLike) -> epath.Path:
    """Create this attempt's folder next to the output; remove the folders of failed attempts.

    No other job may be at work on the output (`locks.sole_writer`).
    """
    output = epath.Path(output)
    prefix = f"{output.name}.incomplete-"
    output.parent.mkdir(parents=True, exist_ok=True)
    for path in output.parent.iterdir():
        if path.name.startswith(prefix):
            path.rmtree()
    workplace = output.parent / f"{prefix}{uuid.uuid4().hex[:8]}"
    (workplace / "mentions").mkdir(parents=True)
    (workplace / "dataset").mkdir()
    return workplace


def publish(workplace: epath.Path, output: epath.PathLike, mentions: str) -> None:
    """Move a finished attempt to its place, file by file: buckets cannot move a folder at once.

    An older dataset in the output loses its manifest first and gets the new one last, so that a manifest
    always fits its shards.
    """
    if mentions:
        replace_files(workplace / "mentions", epath.Path(mentions), _is_mentions)
    replace_files(workplace / "dataset", epath.Path(output), _is_ours)
    workplace.rmtree()


def replace_files(new: epath.Path, folder: epath.Path, belongs: Callable[[epath.Path], bool]) -> None:
    """Replace the dataset's files in a folder; see `publish`."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(filter(belongs, folder.iterdir()), key=_move_order, reverse=True):
        path.unlink()
    # Unfinished files of a repeated step stay behind.
    for path in sorted(filter(belongs, new.iterdir()), key=_move_order):
        path.replace(folder / path.name)


def _move_order(path: epath.Path) -> tuple[int, str]:
    known = path.name in METADATA_NAMES
    return (1 + METADATA_NAMES.index(path.name) if known else 0), path.name


def _is_ours(path: epath.Path) -> bool:
    return path.name in METADATA_NAMES or shard_of_file(path.name) is not None


def _is_mentions(path: epath.Path) -> bool:
    return bool(_MENTIONS_NAME.fullmatch(path.name))
