"""Shards to a dataset: a job writes beside its output, and moves the manifest there last."""

import collections
import dataclasses
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from beam_jobs.dataset.sharding import Outcome
from medclip_keras.errors import require
from medclip_keras.knowledge.states import LabelState
from medclip_keras.records.manifest import CONCEPTS_NAME, MANIFEST_NAME, file_sha256
from medclip_keras.records.schema import encode, features_of
from medclip_keras.records.shards import Shard, shard_of_file, write_shard

BAD_RECORDS_NAME = "bad_records.jsonl"
# In the order in which they are moved: a folder without the last one is not a dataset.
_METADATA_NAMES = (
    CONCEPTS_NAME,
    BAD_RECORDS_NAME,
    "LICENSE",
    "features.json",
    "dataset_info.json",
    MANIFEST_NAME,
)
_MENTIONS_NAME = re.compile(r"mentions-(train|valid|test)-\d{5}-of-\d{5}\.jsonl")


@dataclass(frozen=True)
class WriteShard:
    """Writes a shard of records, and the mentions of its reports where a folder for them is given."""

    directory: str
    dataset: str
    kind: str
    image_size: int
    num_findings: int
    mentions_directory: str = ""

    def __call__(self, shard: Shard, outcomes: Iterator[Outcome]) -> dict[str, Any]:
        """Writes one shard.

        Returns:
            What the manifest wants to know of it: split, index, shard, num_rows, positives, num_sentences,
            sentence_positives, states, mentions.
        """
        tally = ShardTally(self.num_findings)
        records = self._records(outcomes, tally)
        written = write_shard(self.directory, shard.file_name(self.dataset), records)
        mentions = {}
        if self.mentions_directory:
            name = f"mentions-{shard.split}-{shard.index:05d}-of-{shard.num_shards:05d}.jsonl"
            mentions[name] = _write_lines(epath.Path(self.mentions_directory) / name, tally.mentions)
        return {
            "split": shard.split,
            "index": shard.index,
            "shard": dataclasses.asdict(written),
            "num_rows": tally.num_rows,
            "positives": tally.positives.tolist(),
            "num_sentences": tally.num_sentences,
            "sentence_positives": tally.sentence_positives.tolist(),
            "states": dict(tally.states),
            "mentions": mentions,
        }

    def _records(self, outcomes: Iterator[Outcome], tally: "ShardTally") -> Iterator[bytes]:
        features = features_of(self.kind, self.image_size, self.num_findings)
        for outcome in outcomes:
            tally.add(outcome)
            if outcome.record is not None:
                yield encode(features, outcome.record)


class ShardTally:
    """Counts what goes into a shard, and keeps its mentions."""

    def __init__(self, num_findings: int):
        self.positives = np.zeros(num_findings, int)
        self.sentence_positives = np.zeros(num_findings, int)
        self.num_rows = self.num_sentences = 0
        self.states = collections.Counter()
        self.mentions: list[dict[str, Any]] = []

    def add(self, outcome: Outcome) -> None:
        """Counts one row."""
        self.num_rows += 1
        self.states.update(outcome.states)
        if outcome.mentions is not None:
            self.mentions.append(outcome.mentions)
        if outcome.record is None:
            return
        self.positives += outcome.record["label_states"] == LabelState.POSITIVE
        for sentence in outcome.record["sentences"]:
            self.num_sentences += 1
            self.sentence_positives += sentence["label_states"] == LabelState.POSITIVE


def _write_lines(path: epath.Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """Writes JSON lines; the file takes its name when it is complete. Returns its SHA-256."""
    unfinished = path.parent / f"{path.name}.{uuid.uuid4().hex}"
    unfinished.write_text("".join(json.dumps(row) + "\n" for row in rows))
    unfinished.replace(path)
    return file_sha256(path)


def write_bad_records(path: epath.PathLike, bad: Iterable[Mapping[str, str]]) -> None:
    """Writes keys and reasons, a line a bad row, in the order of the keys."""
    _write_lines(epath.Path(path), sorted(bad, key=lambda row: (row["key"], row["reason"])))


def require_replaceable(output: epath.PathLike) -> None:
    """Raises the error sentence where the output folder holds files that no job of ours wrote."""
    output = epath.Path(output)
    if not output.exists():
        return
    require(output.is_dir(), "output", "a folder", str(output))
    foreign = sorted(path.name for path in output.iterdir() if not _is_ours(path))
    advice = "Move its files away, or name another folder."
    require(not foreign, "output", "a new folder, an empty one or an older output", str(output), advice)


def start_workplace(output: epath.PathLike) -> epath.Path:
    """Makes a folder of its own for one attempt, beside the output; those of broken attempts are removed."""
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
    """Moves a finished attempt to its place, file by file: buckets cannot move a folder at once.

    An older dataset in the output loses its manifest first and gets the new one last, so that there is never
    a folder with a manifest that does not fit its shards.
    """
    if mentions:
        _replace_files(workplace / "mentions", epath.Path(mentions), _is_mentions)
    _replace_files(workplace / "dataset", epath.Path(output), _is_ours)
    workplace.rmtree()


def _replace_files(new: epath.Path, folder: epath.Path, belongs: Callable[[epath.Path], bool]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(filter(belongs, folder.iterdir()), key=_place_in_line, reverse=True):
        path.unlink()
    # What a repeated step left unfinished does not belong, and stays behind.
    for path in sorted(filter(belongs, new.iterdir()), key=_place_in_line):
        path.replace(folder / path.name)


def _place_in_line(path: epath.Path) -> tuple[int, str]:
    known = path.name in _METADATA_NAMES
    return (1 + _METADATA_NAMES.index(path.name) if known else 0), path.name


def _is_ours(path: epath.Path) -> bool:
    return path.name in _METADATA_NAMES or shard_of_file(path.name) is not None


def _is_mentions(path: epath.Path) -> bool:
    return bool(_MENTIONS_NAME.fullmatch(path.name))
