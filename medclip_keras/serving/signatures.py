"""Endpoints of the SavedModel; the training model is evaluated through the same functions.

| endpoint | inputs | outputs |
|---|---|---|
| encode_image (serving_default) | image_bytes string (B,), JPEG or PNG files | image_embeddings (B, D) |
| encode_text | texts string (B,), sentences | text_embeddings (B, D) |
| encode_tokens | token_ids, padding_mask int32 (B, T), T at most max_tokens | text_embeddings (B, D) |
| zero_shot | image_bytes, prompts string (P,), prompt_class int32 (P,) | logits_single, _ensemble (B, C) |
| encode_stored_images | stored_images uint8 (B, S, S, 1) | image_embeddings (B, D), image_features (B, F) |

Stored images are those of records. Embeddings are float32 of unit length; features are the image tower's
output before projection, for a linear probe. In zero_shot, prompt p belongs to class prompt_class[p], C is
the largest class plus 1, and the logits are logit_scale times the maximum (single) or the mean (ensemble) of
a class's cosines, as in `evaluation.zero_shot`.

A server loads a SavedModel only if it knows every operation in it, and encode_text and zero_shot need
tensorflow-text. A second SavedModel in `TOKENS_ONLY`, for servers without it, has `TOKEN_ENDPOINTS` alone:
its clients cut texts into word pieces with the files in `assets.extra/`, whose run.json has the logit scale.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf
from etils import epath

from medclip_keras.knowledge.concepts import ConceptTable
from medclip_keras.preprocess.images import decode_all_to_squares, for_evaluation
from medclip_keras.preprocess.text import Tokenizer
from medclip_keras.serving.layout import CONCEPTS_FILE, EXTRA, RUN_FILE
from medclip_keras.training.model import MedCLIP

TOKEN_ENDPOINTS = ("encode_image", "encode_tokens", "encode_stored_images")  # no operation of tensorflow-text


class Endpoints:
    """The endpoints as compiled functions of fixed dtypes and free batch size.

    They call each other as compiled functions, so each encoder is traced once.
    """

    def __init__(self, model: MedCLIP, tokenizer: Tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.image_size = model.run.model.image.image_size
        self.stored_image_size = model.run.data.stored_image_size
        for name, inputs in self._inputs().items():
            specs = [tf.TensorSpec(shape, dtype, argument) for argument, (shape, dtype) in inputs.items()]
            setattr(self, name, tf.function(getattr(self, name), input_signature=specs))

    def encode_image(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Image files (B,) to embeddings."""
        stored_images = decode_all_to_squares(image_bytes, self.stored_image_size)
        return {"image_embeddings": self.encode_stored_images(stored_images)["image_embeddings"]}

    def encode_stored_images(self, stored_images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Images of records (B, S, S, 1) to embeddings and features."""
        images = for_evaluation(stored_images, self.image_size)  # (B, image_size, image_size, 1)
        return self.model.describe_images(images)

    def encode_text(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Sentences (B,) to embeddings.

        Weights trained with "padded_mean" expect batches padded to their longest sentence.
        """
        tokens = self.tokenizer(texts)
        if self.model.run.model.text.pooling == "padded_mean":
            longest = tf.reduce_max(tf.reduce_sum(tokens["padding_mask"], axis=1))
            tokens = {name: values[:, :longest] for name, values in tokens.items()}  # (B, longest)
        return self.encode_tokens(**tokens)

    def encode_tokens(self, token_ids: tf.Tensor, padding_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        """Word pieces and their mask (B, T) to embeddings."""
        return {"text_embeddings": self.model.encode_tokens(token_ids, padding_mask)}

    def zero_shot(
        self, image_bytes: tf.Tensor, prompts: tf.Tensor, prompt_class: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Image files (B,) against prompts (P,) of classes prompt_class (P,), to logits (B, C)."""
        images = self.encode_image(image_bytes)["image_embeddings"]
        texts = self.encode_text(prompts)["text_embeddings"]
        logits = self.model.logit_scale() * tf.matmul(texts, images, transpose_b=True)  # (P, B)
        num_classes = tf.reduce_max(prompt_class) + 1
        aggregated = {
            "logits_single": tf.math.unsorted_segment_max(logits, prompt_class, num_classes),
            "logits_ensemble": tf.math.unsorted_segment_mean(logits, prompt_class, num_classes),
        }
        return {name: tf.transpose(values) for name, values in aggregated.items()}  # (B, C)

    def functions(self, text_operations: bool = True) -> dict[str, Callable]:
        """Endpoint → function, serving_default first; without `text_operations` the `TOKEN_ENDPOINTS`."""
        names = self._inputs() if text_operations else TOKEN_ENDPOINTS
        return {name: getattr(self, name) for name in names}

    def _inputs(self) -> dict[str, dict[str, tuple]]:
        """Endpoint → argument → shape and dtype."""
        side = self.stored_image_size
        image_bytes = {"image_bytes": ((None,), tf.string)}
        tokens = ((None, None), tf.int32)
        prompts = {"prompts": ((None,), tf.string), "prompt_class": ((None,), tf.int32)}
        return {
            "encode_image": image_bytes,
            "encode_text": {"texts": ((None,), tf.string)},
            "encode_tokens": {"token_ids": tokens, "padding_mask": tokens},
            "zero_shot": image_bytes | prompts,
            "encode_stored_images": {"stored_images": ((None, side, side, 1), tf.uint8)},
        }


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
    archive.write_out(str(destination), verbose=False)
    extra = epath.Path(destination) / EXTRA
    endpoints.tokenizer.save(extra)
    (extra / CONCEPTS_FILE).write_text(table.to_jsonl())
    written = {**run, "logit_scale": float(endpoints.model.logit_scale())}
    (extra / RUN_FILE).write_text(json.dumps(written, indent=2) + "\n")
