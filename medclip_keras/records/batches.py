"""Records to batches: independent draws of images and sentences; seed and step decide the order.

    images     shards → shuffled records → copies of rare ones ─┐ skip to the step → augment ──┐
    sentences  shards → shuffled records → sentences → copies ──┘ skip to the step → tokens ───┴─ batch

Records hold decoded pixels at the stored side: Beam decodes each source picture once, training decodes none.
Batch k is a pure function of (seed, k): a run resumes without a saved pipeline. Memory is the shuffle buffers
and a few batches, whatever the size of the data.
"""

import functools
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from medclip_keras.config import DataConfig, RunConfig
from medclip_keras.errors import require
from medclip_keras.knowledge.concepts import ConceptTable
from medclip_keras.knowledge.states import LabelState
from medclip_keras.preprocess.images import augment
from medclip_keras.preprocess.text import Tokenizer
from medclip_keras.records import streams
from medclip_keras.records.labels import close_states, code_labels, count_as_silent, mark_unlabelled
from medclip_keras.records.manifest import load_concepts
from medclip_keras.records.reading import (
    RecordFolder,
    count,
    image_folders,
    read_records,
    sentence_folders,
)
from medclip_keras.records.schema import OPTIONAL, parse_batch
from medclip_keras.records.streams import Features, Pass, fold_in, stream_seed

Lookup = Callable[[tf.Tensor], tf.Tensor]

_CANDIDATES = 16  # sentences drawn per image for the pairing "label_overlap"
_RANKED = (LabelState.NOT_MENTIONED, LabelState.NEGATIVE, LabelState.UNCERTAIN, LabelState.POSITIVE)
_STATE_OF_RANK = np.array(_RANKED, np.int8)
_RANK_OF_STATE = np.argsort(_STATE_OF_RANK).astype(np.int32)


def training_batches(
    config: RunConfig,
    tokenizer: Tokenizer,
    *,
    steps_per_epoch: int,
    split: str = "train",
    start_step: int = 0,
    features: Mapping[str, Lookup] | None = None,
) -> tf.data.Dataset:
    """Endless batches for training, from step `start_step` on.

    An epoch draws `steps_per_epoch` batches from as many passes over the images as it needs, each in a new
    order, and from passes over the sentences likewise. Without `data.balance` an epoch repeats an image only
    after all others.

    Args:
        config: its `data`, `augment`, `seed`, `train.batch_size` and `model.image.image_size` count.
        tokenizer: cuts sentences into word pieces.
        steps_per_epoch: batches an epoch.
        split: which records.
        start_step: the first batch; earlier ones are skipped without being decoded.
        features: of frozen backbones, by "image_features" and "text_features": functions of serialized image
            records and of texts (B,) to (B, F). They take the place of images, of token_ids and padding_mask.

    Returns:
        A dataset of dicts: images (B, s, s, 1) float32, image_labels, image_known (B, num_findings) float32,
        image_study (B,) int64, a hash; token_ids, padding_mask (B, T) int32, text_labels, text_known
        (B, num_findings) float32, text_study (B,) int64; for the objective "gloria" word_ids (B, T) too.
        The run's `pairing` selects sentence i: "independent", drawn; "own_report", a random one of image i's
        own report, else drawn; "label_overlap", of its own report, else the first of 16 drawn ones that
        shares a finding with image i, if any; "pairs", of its own report, and images without a report are
        left out. In pairs, `data.text_unit` "report" makes text i the whole report.

    Raises:
        ValueError: folders that cannot be used together, an empty split, a missing shard, no usable sentence.
    """
    require(steps_per_epoch >= 1, "steps_per_epoch", "at least 1", steps_per_epoch)
    batch_size = config.train.batch_size
    images, texts = image_folders(config.data, split), sentence_folders(config.data, split)
    table = load_concepts(images[0].directory)
    keep = streams.kept_images(config, split, len(table))

    def stream(name: int, make_pass: Pass, num_items: int = batch_size) -> tf.data.Dataset:
        seed = stream_seed(config.seed, name)
        items = streams.endless(make_pass, seed, steps_per_epoch * num_items, start_step * num_items)
        return items.batch(num_items, drop_remainder=True)  # nothing remains; the shape is static

    drawn = [stream(streams.IMAGES, streams.image_pass(config, images, split, keep))]
    if config.pairing != "pairs":
        num_sentences = batch_size * (_CANDIDATES if config.pairing == "label_overlap" else 1)
        sentences = streams.sentence_pass(config, texts, split, keep)
        drawn.append(stream(streams.SENTENCES, sentences, num_sentences))
    make_batch = functools.partial(_make_batch, config, tokenizer, table, images[0], features or {})
    return streams.in_parallel(make_batch, start_step, *drawn)


def evaluation_images(config: RunConfig, split: str, batch_size: int = 64) -> tf.data.Dataset:
    """Stored images with their label states, in the order of the shards.

    Returns:
        A dataset of dicts: record_key, study_id, patient_id, view_position, sex (B,) string, age (B,) int64,
        images (B, S, S, 1) uint8, label_states (B, num_findings) int8.

    Raises:
        ValueError: folders that cannot be used together, an empty split, a missing shard.
    """
    folders = image_folders(config.data, split)
    features = folders[0].manifest.features
    fields = ("record_key", "study_id", "patient_id", *OPTIONAL, "image", "label_states")

    def parse(serialized: tf.Tensor) -> Features:
        batch = parse_batch(features, serialized, fields)
        return {"images": batch.pop("image"), **batch}

    return read_records(folders, split).batch(batch_size).map(parse).prefetch(1)


def evaluation_sentences(config: RunConfig, split: str, batch_size: int = 256) -> tf.data.Dataset:
    """Sentences that training draws from, in the order of the shards.

    Returns:
        A dataset of dicts: record_key, patient_id (B,) string, text (B,) string, label_states
        (B, num_findings) int8.

    Raises:
        ValueError: folders that cannot be used together, an empty split, a missing shard.
    """
    folders = sentence_folders(config.data, split)
    keep = streams.kept_images(config, split, folders[0].manifest.num_findings)
    parse = streams.sentence_parser(config.data, folders)
    sentences = read_records(folders, split, keep).batch(streams.BLOCK).map(parse)
    return sentences.unbatch().batch(batch_size).prefetch(1)


def drawable_texts(config: RunConfig, split: str) -> Iterator[bytes]:
    """Every text that `training_batches` may draw from a split, some of them several times.

    Raises:
        ValueError: folders that cannot be used together, a missing shard.
    """
    if config.pairing != "pairs" and count(sentence_folders(config.data, "train"), split, "num_sentences"):
        for batch in evaluation_sentences(config, split):
            yield from batch["text"].numpy()
    if config.pairing == "independent":
        return
    images = image_folders(config.data, "train")
    for records in read_records(images, split).batch(streams.BLOCK):
        parsed = parse_batch(images[0].manifest.features, records, ("sentences",))
        texts, states = _own_sentences(parsed, config.data)
        whole = config.data.text_unit == "report"
        yield from (_whole_report(texts, states)[0] if whole else texts.values).numpy()


def _make_batch(
    config: RunConfig,
    tokenizer: Tokenizer,
    table: ConceptTable,
    folder: RecordFolder,
    features: Mapping[str, Lookup],
    step: tf.Tensor,
    records: tf.Tensor,
    drawn: Features | None = None,
) -> Features:
    """Batch of a training step from serialized image records (B,) and the drawn sentences, if any."""
    batch_size = config.train.batch_size
    own_report = config.pairing != "independent"
    of_images, of_texts = features.get("image_features"), features.get("text_features")
    fields = ["label_states", "study_id"]
    fields += [*(["sentences"] if own_report else []), *([] if of_images else ["image"])]
    parsed = parse_batch(folder.manifest.features, records, fields)
    image_labels, image_known = label_vectors(parsed["label_states"], config.data, table)
    texts = drawn or {}  # empty for pairs
    if config.pairing == "label_overlap":
        texts = _sharing_a_finding(image_labels, _text_vectors(texts, config.data, table)[0], texts)
    if own_report:
        seed = fold_in(stream_seed(config.seed, streams.PAIRS), step)
        dice = tf.random.stateless_uniform((batch_size,), seed)
        texts = _own_texts(parsed, config.data, dice, texts)
    text_labels, text_known = _text_vectors(texts, config.data, table)
    images = (
        {"image_features": of_images(records)}
        if of_images
        else {"images": augmented(config, parsed["image"], step)}
    )
    tokens = {"text_features": of_texts(texts["text"])} if of_texts else tokenizer(texts["text"])
    if config.objective.name == "gloria":
        tokens["word_ids"] = tokenizer.word_ids(tokens["token_ids"])
    return {
        **images,
        "image_labels": image_labels,
        "image_known": image_known,
        "image_study": _study_hash(parsed["study_id"]),
        **tokens,
        "text_labels": text_labels,
        "text_known": text_known,
        "text_study": _study_hash(texts["study_id"]),
    }


def _study_hash(study_ids: tf.Tensor) -> tf.Tensor:
    return tf.strings.to_hash_bucket_fast(study_ids, 2**62)  # (B,) int64


def augmented(config: RunConfig, images: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """Augmented images (B, s, s, 1) float32 of a step, from stored ones (B, S, S, 1) uint8."""
    side, batch_size = config.data.stored_image_size, config.train.batch_size
    index = step * batch_size + tf.range(batch_size, dtype=tf.int64)
    seeds = streams.seeds_of(stream_seed(config.seed, streams.AUGMENT), index)  # (B, 2)
    images = tf.ensure_shape(images, (batch_size, side, side, 1))
    return augment(images, config.model.image.image_size, config.augment, seeds)


def label_vectors(states: tf.Tensor, data: DataConfig, table: ConceptTable) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels and known of states (B, num_findings), by the run's policies (`code_labels`)."""
    if data.known_concepts == "all":
        states = count_as_silent(states)
    return code_labels(close_states(states, table) if data.closure else states, data.uncertain, data.coding)


def _text_vectors(texts: Features, data: DataConfig, table: ConceptTable) -> tuple[tf.Tensor, tf.Tensor]:
    """`label_vectors` of texts; by policy a text without a finding is labelled No Finding."""
    states = texts["label_states"]
    no_finding = data.unlabelled_sentence == "no_finding"
    return label_vectors(mark_unlabelled(states, table) if no_finding else states, data, table)


def _sharing_a_finding(image_labels: tf.Tensor, text_labels: tf.Tensor, drawn: Features) -> Features:
    """First of N drawn sentences that shares a finding with its image; the first of all if none does.

    A finding is shared if both labels are non-zero and have the same sign.

    Follows: `sample_sent_prompts` of MedCLIP's released code, which draws from all such sentences.

    Args:
        image_labels: (B, num_findings).
        text_labels: (B * N, num_findings), the candidates of image 0 first.
        drawn: name → (B * N, …), the sentences.

    Returns:
        name → (B, …).
    """
    num_images = image_labels.shape[0]
    by_image = tf.reshape(text_labels, (num_images, -1, image_labels.shape[1]))  # (B, N, num_findings)
    shared = tf.reduce_any(image_labels[:, None] * by_image > 0, axis=-1)  # (B, N)
    first = tf.argmax(tf.cast(shared, tf.int32), axis=1)  # (B,), 0 where none is shared
    chosen = tf.range(num_images, dtype=tf.int64) * shared.shape[1] + first
    return {name: tf.gather(value, chosen) for name, value in drawn.items()}


def _own_texts(parsed: Features, data: DataConfig, dice: tf.Tensor, drawn: Features) -> Features:
    """Text of each image's own report; fall back to the drawn sentence.

    Args:
        parsed: a batch of image records, with "study_id" and "sentences".
        data: its `min_words` and `text_unit` count.
        dice: (B,) in [0, 1), selects the sentence.
        drawn: {"text", "label_states", "study_id"} of B sentences; empty if every image has its own.

    Returns:
        {"text" (B,), "label_states" (B, num_findings), "study_id" (B,)}.
    """
    texts, states = _own_sentences(parsed, data)
    one = _whole_report if data.text_unit == "report" else functools.partial(_one_sentence, dice)
    own_texts, own_states = one(texts, states)
    own = {"text": own_texts, "label_states": own_states, "study_id": parsed["study_id"]}
    if not drawn:
        return own
    has_own = texts.row_lengths() > 0
    return {
        name: tf.where(has_own[:, None] if name == "label_states" else has_own, own[name], drawn[name])
        for name in own
    }


def _own_sentences(parsed: Features, data: DataConfig) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
    """Texts (B, N) and states (B, N, num_findings) of the own reports' sentences that are long enough."""
    texts, states = parsed["sentences"]["text"], parsed["sentences"]["label_states"]
    keep = texts.with_values(streams.has_words(texts.values, data.min_words))  # (B, N) ragged
    return tf.ragged.boolean_mask(texts, keep), tf.ragged.boolean_mask(states, keep)


def _one_sentence(
    dice: tf.Tensor, texts: tf.RaggedTensor, states: tf.RaggedTensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Random text of each row of (B, N), and its states; an empty row gives "" and no states."""
    lengths = texts.row_lengths()  # (B,)
    chosen = tf.cast(tf.floor(dice * tf.cast(lengths, tf.float32)), tf.int64)
    positions = tf.where(lengths > 0, texts.row_starts() + chosen, tf.size(texts.values, tf.int64))
    # One more row behind the last, for images without a sentence to point at.
    own_texts = tf.gather(tf.concat([texts.values, [""]], axis=0), positions)  # (B,)
    return own_texts, tf.gather(tf.pad(states.values, [[0, 1], [0, 0]]), positions)  # (B, num_findings)


def _whole_report(texts: tf.RaggedTensor, states: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Sentences of each row of (B, N) as one text; positive decides before uncertain before negative."""
    ranks = states.with_values(tf.gather(_RANK_OF_STATE, tf.cast(states.values, tf.int32)))
    highest = tf.maximum(tf.reduce_max(ranks, axis=1), 0)  # (B, num_findings); a row may be empty
    return tf.strings.reduce_join(texts, axis=1, separator=" "), tf.gather(_STATE_OF_RANK, highest)
