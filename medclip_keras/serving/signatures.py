"""Endpoints of the SavedModel; the training model is evaluated through the same functions.

| endpoint | inputs | outputs |
|---|---|---|
| encode_image (serving_default) | image_bytes string (B,), JPEG or PNG | image_embeddings (B, D), decoded |
| encode_text | texts string (B,), sentences | text_embeddings (B, D) |
| encode_tokens | token_ids, padding_mask int32 (B, T), T at most max_tokens | text_embeddings (B, D) |
| encode_stored_images | stored_images uint8 (B, S, S, 1) | image_embeddings (B, D), image_features (B, F) |
| encode_pixels | pixels float32 (B, I, I, 1), 0 black, 255 white | image_embeddings, image_features |
| zero_shot | image_bytes | classes string (B, C), scores (B, C), probabilities (B, C), decoded |
| zero_shot_prompts | image_bytes, prompts, prompt_class (B, P) | logits_single, _ensemble (B, P), decoded |
| similarity | image_bytes, texts string (B, N) | similarities (B, N), decoded |
| retrieve | image_bytes | sentences string, positions int32, similarities (B, K), decoded |
| retrieve_embeddings | embeddings float32 (B, D) | sentences, positions, similarities (B, K) |
| describe | names string (B,), any | run_json string (B,), the content of run.json |

B is free, 0 too. Stored images are those of records, of S pixels a side; the encoder sees I. Embeddings are
float32 of unit length; features are the image tower's output before projection, for a linear probe.
`encode_pixels` neither decodes nor resizes, so that it converts to ONNX (this folder's README.md).

A row of an answer depends on the same row of the request alone, so a server may join requests. (Except in
encode_text with weights of the pooling "padded_mean", which see the longest text of the batch.)

`decoded` bool (B,) is False for an image that `preprocess.images.decode_readable` cannot decode, and does not
fail the call: its embedding is zeros, its scores, logits and similarities are the least float32 (JSON has no
infinity). EXIF orientations are applied, and colour, CMYK too, becomes luminance. All else that
`serving.bounds` refuses fails the call with INVALID_ARGUMENT.

`zero_shot` scores the classes of the run's evaluation with prompts that were embedded at the export:
`evaluation.zero_shot`'s "ensemble". It has `probabilities` only if `evaluate` fitted a calibration on
validation images for the same weights, classes and prompts. In `zero_shot_prompts`, prompt p of an image
belongs to class prompt_class[p] < P; logits are logit_scale times the maximum (single) or the mean
(ensemble) of a class's cosines, and a class without a prompt has the least float32. `retrieve` returns the K
nearest of the sentences that were embedded at the export, by cosine.

A server loads a SavedModel only if it knows every operation in it, and three endpoints need tensorflow-text.
A second SavedModel in `TOKENS_ONLY`, for servers without it, has `TOKEN_ENDPOINTS` alone: its clients cut
texts into word pieces with the files in `assets.extra/`, whose run.json has the logit scale.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from etils import epath

from medclip_keras.errors import require
from medclip_keras.evaluation.class_scores import class_scores
from medclip_keras.evaluation.prompts import ClassPrompts, finding_prompts, shipped_prompts
from medclip_keras.knowledge.concepts import ConceptTable
from medclip_keras.preprocess.images import decode_readable, for_evaluation, normalise
from medclip_keras.preprocess.text import Tokenizer
from medclip_keras.serving.bounds import (
    checked,
    checked_lists,
    cut_texts,
    names_of,
    refuse_unless,
    within,
)
from medclip_keras.serving.calibration import Calibration
from medclip_keras.serving.layout import CONCEPTS_FILE, EXTRA, RUN_FILE
from medclip_keras.training.model import MedCLIP

TEXT_ENDPOINTS = ("encode_text", "zero_shot_prompts", "similarity")  # need tensorflow-text
TOKEN_ENDPOINTS = (
    "encode_image", "encode_tokens", "encode_stored_images", "encode_pixels", "zero_shot", "retrieve",
    "retrieve_embeddings",
)  # fmt: skip
MAX_SENTENCES = 10_000  # of retrieve: they and their vectors stand in the graph
NUM_RETRIEVED = 10
TEXTS_AT_ONCE = 64  # distinct texts beside images, embedded together
NO_SCORE = tf.float32.min

Answer = dict[str, tf.Tensor]


class Endpoints:
    """The endpoints as compiled functions of fixed dtypes and free batch size.

    They call each other as compiled functions, so each encoder is traced once.

    Args:
        model: a trained model; zero_shot and retrieve keep the texts' vectors of their first call.
        tokenizer: of its texts.
        prompts: {class: [prompt, …]} of zero_shot; None: those of the run's evaluation.
        sentences: of retrieve; None: all shipped prompts.
        calibration: of the scores of zero_shot; None: no probabilities.

    Raises:
        ValueError: no sentence, or more than `MAX_SENTENCES`.
    """

    def __init__(
        self,
        model: MedCLIP,
        tokenizer: Tokenizer,
        *,
        prompts: Mapping[str, Sequence[str]] | None = None,
        sentences: Sequence[str] | None = None,
        calibration: Calibration | None = None,
    ):
        form = f"a list of 1 to {MAX_SENTENCES:,} sentences"
        fits = sentences is None or 1 <= len(sentences) <= MAX_SENTENCES
        require(fits, "sentences", form, len(sentences or ()), "A larger index is searched outside.")
        self.model, self.tokenizer, self._prompts, self._sentences = model, tokenizer, prompts, sentences
        self.calibration = calibration
        self.image_size = model.run.model.image.image_size
        self.stored_image_size = model.run.data.stored_image_size
        for name, inputs in self._inputs().items():
            specs = [tf.TensorSpec(shape, dtype, argument) for argument, (shape, dtype) in inputs.items()]
            setattr(self, name, tf.function(getattr(self, name), input_signature=specs))

    def untraced(self) -> "Endpoints":
        """Copy without traced functions: its endpoints are traced again."""
        return Endpoints(
            self.model,
            self.tokenizer,
            prompts=self._prompts,
            sentences=self._sentences,
            calibration=self.calibration,
        )

    def encode_image(self, image_bytes: tf.Tensor) -> Answer:
        """Image files (B,) to embeddings."""
        files = checked(image_bytes, "image_bytes", None)
        stored_images, decoded = decode_readable(files, self.stored_image_size)
        embeddings = self.encode_stored_images(stored_images)["image_embeddings"]
        return {"image_embeddings": tf.where(decoded[:, None], embeddings, 0.0), "decoded": decoded}

    def encode_stored_images(self, stored_images: tf.Tensor) -> Answer:
        """Images of records (B, S, S, 1) to embeddings and features."""
        side = self.stored_image_size
        stored_images = checked(stored_images, "stored_images", None, side, side, 1)
        return self._describe(for_evaluation(stored_images, self.image_size))

    def encode_pixels(self, pixels: tf.Tensor) -> Answer:
        """Gray values (B, image_size, image_size, 1) in [0, 255] to embeddings and features."""
        pixels = checked(pixels, "pixels", None, self.image_size, self.image_size, 1)
        return self._describe(normalise(within(pixels, "pixels", 0, 255)))

    def encode_text(self, texts: tf.Tensor) -> Answer:
        """Sentences (B,) to embeddings."""
        tokens = tokens_of(self.tokenizer, checked(texts, "texts", None))
        return self.encode_tokens(**tokens)

    def encode_tokens(self, token_ids: tf.Tensor, padding_mask: tf.Tensor) -> Answer:
        """Word pieces and their mask (B, T) to embeddings."""
        token_ids = checked(token_ids, "token_ids", None, None)
        padding_mask = checked(padding_mask, "padding_mask", None, None)
        same = tf.reduce_all(tf.shape(token_ids) == tf.shape(padding_mask))
        token_ids = refuse_unless(token_ids, "token_ids", "of padding_mask's shape", same)
        length, longest = tf.shape(token_ids)[1], self.tokenizer.max_tokens
        form = f"1 to {longest} tokens a row"
        token_ids = refuse_unless(token_ids, "token_ids", form, length >= 1, length <= longest)
        token_ids = within(token_ids, "token_ids", 0, len(self.tokenizer.vocabulary) - 1)
        padding_mask = within(padding_mask, "padding_mask", 0, 1)
        is_filled = tf.reduce_max(padding_mask, axis=1) == 1
        padding_mask = refuse_unless(padding_mask, "padding_mask", "1 somewhere in each row", is_filled)
        return {"text_embeddings": self.model.encode_tokens(token_ids, padding_mask)}

    def zero_shot(self, image_bytes: tf.Tensor) -> Answer:
        """Image files (B,) to scores of the classes that were described at the export."""
        classes, vectors = self._class_vectors
        images = self.encode_image(image_bytes)
        scores = {"scores": tf.matmul(images["image_embeddings"], vectors)}  # (B, C)
        if self.calibration:
            scores["probabilities"] = self.calibration(scores["scores"])
        return self._with_status(images, **scores) | {"classes": names_of(classes, images["decoded"])}

    def zero_shot_prompts(
        self, image_bytes: tf.Tensor, prompts: tf.Tensor, prompt_class: tf.Tensor
    ) -> Answer:
        """Image files (B,) against each one's prompts (B, P) of classes int32 (B, P), to logits (B, P)."""
        prompts = checked_lists(prompts, "prompts", like=checked(image_bytes, "image_bytes", None))
        prompt_class = checked(prompt_class, "prompt_class", None, None)
        same = tf.reduce_all(tf.shape(prompts) == tf.shape(prompt_class))
        prompt_class = refuse_unless(prompt_class, "prompt_class", "of the prompts' shape", same)
        (rows, width), num_classes = tf.unstack(tf.shape(prompts)), tf.size(prompts)
        form = "from 0 to the number of an image's prompts minus 1"
        prompt_class = refuse_unless(
            prompt_class, "prompt_class", form, prompt_class >= 0, prompt_class < width
        )
        found = self.similarity(image_bytes, prompts)
        logits = tf.reshape(self.model.logit_scale() * found["similarities"], [-1])  # (B P,)
        segments = tf.reshape(prompt_class + width * tf.range(rows)[:, None], [-1])
        counts = tf.math.unsorted_segment_sum(tf.ones_like(logits), segments, num_classes)
        means = tf.math.unsorted_segment_sum(logits, segments, num_classes) / tf.maximum(counts, 1.0)
        per_class = {
            "logits_single": tf.math.unsorted_segment_max(logits, segments, num_classes),
            "logits_ensemble": tf.where(counts > 0, means, NO_SCORE),
        }
        shaped = {name: tf.reshape(values, (rows, width)) for name, values in per_class.items()}
        return self._with_status(found, **shaped)

    def similarity(self, image_bytes: tf.Tensor, texts: tf.Tensor) -> Answer:
        """Image files (B,) against each one's texts (B, N), to cosines (B, N)."""
        texts = checked_lists(texts, "texts", like=checked(image_bytes, "image_bytes", None))
        images = self.encode_image(image_bytes)
        embedded = self._embed_distinct(tf.reshape(texts, [-1]))  # (B N, D)
        of_texts = tf.reshape(embedded, (*tf.unstack(tf.shape(texts)), embedded.shape[1]))
        cosines = tf.einsum("bd,bnd->bn", images["image_embeddings"], of_texts)
        return self._with_status(images, similarities=cosines)

    def retrieve(self, image_bytes: tf.Tensor) -> Answer:
        """Image files (B,) to the nearest of the sentences that were embedded at the export."""
        images = self.encode_image(image_bytes)
        found = self.retrieve_embeddings(images["image_embeddings"])
        return found | self._with_status(images, similarities=found["similarities"])

    def retrieve_embeddings(self, embeddings: tf.Tensor) -> Answer:
        """Embeddings (B, D) of images or texts to the nearest sentences, as `retrieve`."""
        sentences, vectors = self._sentence_vectors
        embeddings = checked(embeddings, "embeddings", None, vectors.shape[1])
        queries = tf.math.l2_normalize(within(embeddings, "embeddings", -1e6, 1e6), axis=1)
        similarities, positions = tf.math.top_k(
            tf.matmul(queries, vectors, transpose_b=True), min(NUM_RETRIEVED, len(sentences))
        )
        return {
            "sentences": tf.gather(tf.constant(sentences), positions),
            "positions": positions,
            "similarities": similarities,
        }

    def functions(self, text_operations: bool = True) -> dict[str, Callable]:
        """Endpoint → function, serving_default first; without `text_operations` the `TOKEN_ENDPOINTS`."""
        names = [name for name in self._inputs() if text_operations or name not in TEXT_ENDPOINTS]
        return {name: getattr(self, name) for name in names}

    def _describe(self, images: tf.Tensor) -> Answer:
        """Embeddings and features of encoder inputs; of no image too, which convolutions do not take."""
        num_images = tf.shape(images)[0]
        filled = tf.pad(images, [[0, tf.cast(num_images == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
        return {name: values[:num_images] for name, values in self.model.describe_images(filled).items()}

    @functools.cached_property
    def _class_vectors(self) -> tuple[tuple[str, ...], np.ndarray]:
        """Names of classes, and (D, C) by which embeddings become scores, which are linear in the logits."""
        evaluation = self.model.run.evaluation
        prompts = ClassPrompts.of(self._prompts or finding_prompts(evaluation))
        classes = tuple(self._prompts or evaluation.findings)
        of_each, contrast = np.eye(len(prompts.texts)), evaluation.task == "multi_label"
        negated = not self._prompts and evaluation.contrast == "negated"
        weights = class_scores(of_each, prompts, classes, "ensemble", contrast=contrast, negated=negated)
        # weights: (P, C)
        with tf.init_scope():
            scale = float(self.model.logit_scale())
        return classes, (scale * self._embed_now(prompts.texts).T @ weights).astype(np.float32)

    @functools.cached_property
    def _sentence_vectors(self) -> tuple[list[str], np.ndarray]:
        """The sentences of retrieve and their embeddings (num_sentences, D)."""
        shipped = [text for texts in shipped_prompts().values() for text in texts]
        sentences = list(self._sentences or shipped)
        return sentences, self._embed_now(sentences)

    def _embed_now(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts outside of the graph that is being traced: float32 (num_texts, D)."""
        with tf.init_scope():
            chunks = [texts[i : i + TEXTS_AT_ONCE] for i in range(0, len(texts), TEXTS_AT_ONCE)]
            return np.concatenate([self._embed_distinct(tf.constant(list(c))).numpy() for c in chunks])

    def _embed_distinct(self, texts: tf.Tensor) -> tf.Tensor:
        """Embed texts (N,), equal ones once, in chunks that bound the memory: (N, D).

        With "padded_mean" each alone, as it would depend on the others.
        """
        distinct, positions = tf.unique(cut_texts(texts))
        is_alone = self.model.run.model.text.pooling == "padded_mean"
        num_texts, at_once = tf.size(distinct), 1 if is_alone else TEXTS_AT_ONCE
        num_chunks = tf.maximum(-(-num_texts // at_once), 1)
        in_chunk = -(-num_texts // num_chunks)
        padded = tf.pad(distinct, [[0, num_chunks * in_chunk - num_texts]], constant_values="")
        dim = self.model.run.model.projection_dim
        embeddings = tf.map_fn(
            lambda chunk: self.encode_text(chunk)["text_embeddings"],
            tf.reshape(padded, (num_chunks, in_chunk)),
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec((None, dim), tf.float32),
        )
        return tf.gather(tf.reshape(embeddings, (-1, dim)), positions)

    @staticmethod
    def _with_status(images: Answer, **answers: tf.Tensor) -> Answer:
        """Answers (B, …) of `encode_image`'s images, the least float32 where one is not decoded."""
        decoded = images["decoded"]
        marked = {name: tf.where(decoded[:, None], values, NO_SCORE) for name, values in answers.items()}
        return marked | {"decoded": decoded}

    def _inputs(self) -> dict[str, dict[str, tuple]]:
        """Endpoint → argument → shape and dtype."""
        stored, seen, dim = self.stored_image_size, self.image_size, self.model.run.model.projection_dim
        image_bytes = {"image_bytes": ((None,), tf.string)}
        tokens, lists = ((None, None), tf.int32), ((None, None), tf.string)
        return {
            "encode_image": image_bytes,
            "encode_text": {"texts": ((None,), tf.string)},
            "encode_tokens": {"token_ids": tokens, "padding_mask": tokens},
            "encode_stored_images": {"stored_images": ((None, stored, stored, 1), tf.uint8)},
            "encode_pixels": {"pixels": ((None, seen, seen, 1), tf.float32)},
            "zero_shot": image_bytes,
            "zero_shot_prompts": image_bytes | {"prompts": lists, "prompt_class": tokens},
            "similarity": image_bytes | {"texts": lists},
            "retrieve": image_bytes,
            "retrieve_embeddings": {"embeddings": ((None, dim), tf.float32)},
        }


def tokens_of(tokenizer: Tokenizer, texts: tf.Tensor) -> dict[str, tf.Tensor]:
    """Word pieces of texts (B,), as the inputs of `encode_tokens`: as long as the longest text of the batch.

    Padding costs time and changes nothing, but with weights trained with "padded_mean", which expect it so.
    """
    tokens = tokenizer(cut_texts(texts))
    longest = tf.maximum(tf.reduce_max(tf.reduce_sum(tokens["padding_mask"], axis=1)), 1)
    return {name: values[:, :longest] for name, values in tokens.items()}  # (B, longest)


def export_model(
    endpoints: Endpoints,
    table: ConceptTable,
    destination: epath.PathLike,
    run: Mapping[str, Any],
    *,
    text_operations: bool = True,
) -> None:
    """Write a SavedModel of a trained model's endpoints, with run.json, concepts and vocabulary.

    `destination` does not exist yet; `run` is the content of the workdir's run.json. Without
    `text_operations` the endpoints that need tensorflow-text are omitted.
    """
    archive = keras.export.ExportArchive()
    archive.track(endpoints.model)
    if text_operations:
        archive.track(endpoints.tokenizer)
    for name, function in endpoints.functions(text_operations).items():
        archive.add_endpoint(name, function)
    written = {**run, "logit_scale": float(endpoints.model.logit_scale())}
    archive.add_endpoint("describe", _description(json.dumps(written)))
    archive.write_out(str(destination), verbose=False)
    extra = epath.Path(destination) / EXTRA
    endpoints.tokenizer.save(extra)
    (extra / CONCEPTS_FILE).write_text(table.to_jsonl())
    (extra / RUN_FILE).write_text(json.dumps(written, indent=2) + "\n")


def _description(run_json: str) -> Callable[..., Answer]:
    """The endpoint `describe`: a row of the run's JSON for any name."""

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "names")])
    def describe(names: tf.Tensor) -> Answer:
        return {"run_json": tf.fill(tf.shape(checked(names, "names", None)), run_json)}

    return describe
