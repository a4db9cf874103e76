"""Folders of records to streams of serialized records: checks of the folders, and order of the records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf
from etils import epath

from medclip_keras.config import DataConfig
from medclip_keras.errors import require
from medclip_keras.records.manifest import Manifest, find_damaged_shard, read_manifest

# Serialized records (B,), and whether they are of images rather than of reports, bool () → bool (B,)
Keep = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_KEPT_AT_ONCE = 32  # records of a shard that are filtered together
_PARALLEL_SHARDS = 16  # shards that are read in turn, so that a buffer holds records of many shards


@dataclass(frozen=True)
class RecordFolder:
    """A dataset on disk."""

    directory: str
    manifest: Manifest

    def files(self, split: str) -> list[str]:
        """Paths of a split's shards, or of all splits' for "all", in their order."""
        parts = self.manifest.parts(split)
        return [str(epath.Path(self.directory) / shard["name"]) for part in parts for shard in part["shards"]]

    def count(self, split: str, counted: str = "num_records") -> int:
        """Records of a split, or another count of the manifest: "num_sentences"."""
        return sum(int(part.get(counted, 0)) for part in self.manifest.parts(split))


def image_folders(data: DataConfig, split: str) -> tuple[RecordFolder, ...]:
    """Check and return the folders that a run draws images from.

    Raises:
        ValueError: none is given, one is not of images or misses a shard, they differ in stored size or
            concept table, or the split is empty.
    """
    require(bool(data.images), "data.images", "at least one folder of image records", list(data.images))
    images, _ = _checked_folders(data)
    _require_split(images, split, "num_records", "data.images", "records")
    return images


def sentence_folders(data: DataConfig, split: str) -> tuple[RecordFolder, ...]:
    """Check and return the folders that a run draws sentences from.

    These are the report records, and the image records with sentences of reports that are not among the
    report records. The images of one study each bring the sentences of its report.

    Raises:
        ValueError: no folder has sentences, one is not of reports or misses a shard, they differ in concept
            table from each other or the images, or the split is empty.
    """
    images, texts = _checked_folders(data)
    known = {folder.manifest.fingerprint for folder in texts}
    paired = tuple(folder for folder in images if folder.manifest.reports_sha256 not in {"", *known})
    reports_of_images = {folder.manifest.reports_sha256 for folder in images}
    joined = [folder.directory for folder in texts if folder.manifest.fingerprint in reports_of_images]
    require(
        data.paired_share == 1 or not joined,
        "data.texts",
        "without the reports of the images if data.paired_share is under 1: their sentences come with the "
        "image records",
        ", ".join(joined),
        "Leave these folders out; reports without images stay.",
    )
    require(
        bool(texts or paired),
        "data.texts",
        "at least one folder of report records, unless image records have sentences",
        list(data.texts),
    )
    _require_split(texts + paired, split, "num_sentences", "data.texts", "sentences")
    return texts + paired


def count(folders: Sequence[RecordFolder], split: str, counted: str = "num_records") -> int:
    """Records of a split in all folders, or "num_sentences"."""
    return sum(folder.count(split, counted) for folder in folders)


def read_records(folders: Sequence[RecordFolder], split: str, keep: Keep | None = None) -> tf.data.Dataset:
    """Serialized records in the order of folders, shards and keys; `keep` as in `shuffled_records`."""
    if keep is None:
        return tf.data.TFRecordDataset(_files(folders, split))
    return tf.data.Dataset.from_tensor_slices(_files_and_kinds(folders, split)).flat_map(_reader(keep))


def shuffled_records(
    folders: Sequence[RecordFolder], split: str, seed: tf.Tensor, keep: Keep | None = None
) -> tf.data.Dataset:
    """One pass over the serialized records: shards in random order, interleaved sixteen at a time.

    Follow it by `shuffle`, which mixes the records themselves. `seed` (2,) int32 alone decides the order.
    `keep` filters the records.
    """
    files, of_images = _files_and_kinds(folders, split)
    order = tf.random.experimental.stateless_shuffle(tf.range(len(files)), seed)
    order = tf.gather(files, order), tf.gather(of_images, order)
    return tf.data.Dataset.from_tensor_slices(order).interleave(
        _reader(keep),
        cycle_length=min(len(files), _PARALLEL_SHARDS),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def shuffle(dataset: tf.data.Dataset, buffer_size: int, seed: tf.Tensor) -> tf.data.Dataset:
    """`Dataset.shuffle` by `seed` alone, equal at every iteration; tf.data's depends on the global seed too.

    `seed` is (2,) int32, `buffer_size` the elements held in memory.
    """
    seeds = tf.random.stateless_uniform((2,), seed, 1, 2**31 - 1, tf.int64, alg="philox")
    shapes = [spec.shape for spec in tf.nest.flatten(dataset.element_spec)]
    types = [spec.dtype for spec in tf.nest.flatten(dataset.element_spec)]
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(dataset),
        buffer_size=tf.constant(buffer_size, tf.int64),
        seed=seeds[0],
        seed2=seeds[1],
        output_types=types,
        output_shapes=shapes,
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(variant, dataset.element_spec)


def _reader(keep: Keep | None) -> Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]:
    """(path, whether it holds images) → those of its records that are kept."""

    def read(path: tf.Tensor, of_images: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(path)
        if keep is None:
            return records

        def kept(some: tf.Tensor) -> tf.Tensor:
            return tf.boolean_mask(some, keep(some, of_images))

        return records.batch(_KEPT_AT_ONCE).map(kept).unbatch()

    return read


def _files_and_kinds(folders: Sequence[RecordFolder], split: str) -> tuple[list[str], list[bool]]:
    return _files(folders, split), [f.manifest.kind == "images" for f in folders for _ in f.files(split)]


def _files(folders: Sequence[RecordFolder], split: str) -> list[str]:
    return [path for folder in folders for path in folder.files(split)]


def _checked_folders(data: DataConfig) -> tuple[tuple[RecordFolder, ...], tuple[RecordFolder, ...]]:
    images = _read_folders(data.images, "images", "data.images")
    texts = _read_folders(data.texts, "reports", "data.texts")
    for folder in images:
        require(
            folder.manifest.image_size == data.stored_image_size,
            "data.images",
            f"records of images stored at data.stored_image_size ({data.stored_image_size} px)",
            f"{folder.directory} ({folder.manifest.image_size} px)",
            "Set data.stored_image_size, or run beam_jobs.decode_images with that --image_size.",
        )
    for folder in (*images, *texts)[1:]:
        first = (*images, *texts)[0]
        one, two = first.manifest, folder.manifest
        require(
            one.concepts_sha256 == two.concepts_sha256,
            "data.images and data.texts",
            "records of one concept table",
            f"{first.directory} ({one.concept_table}), {folder.directory} ({two.concept_table})",
            "Run the Beam jobs with the same --concepts.",
        )
    return images, texts


def _read_folders(directories: Sequence[str], kind: str, argument: str) -> tuple[RecordFolder, ...]:
    folders = tuple(RecordFolder(str(directory), read_manifest(directory)) for directory in directories)
    for folder in folders:
        received = f"{folder.directory} ({folder.manifest.kind})"
        require(folder.manifest.kind == kind, argument, f"folders of {kind}' records", received)
    return folders


def _require_split(
    folders: Sequence[RecordFolder], split: str, counted: str, argument: str, noun: str
) -> None:
    require(
        count(folders, split, counted) > 0,
        argument,
        f"folders that have {noun} in the split {split!r}",
        ", ".join(folder.directory for folder in folders),
    )
    for folder in folders:
        damaged = find_damaged_shard(folder.directory, folder.manifest, split)
        received = f"{folder.directory}: {damaged}"
        require(not damaged, argument, "complete", received, "Run the Beam job that made it again.")
