"""Embedders for `evaluation`: a model in this process or a SavedModel, through the same graph."""

import functools
import json
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401 (registers the operations of encode_text)
from etils import epath

from medclip_keras.config import RunConfig, from_dict
from medclip_keras.errors import require
from medclip_keras.knowledge.concepts import ConceptTable, load_table
from medclip_keras.preprocess.text import Tokenizer, load_tokenizer
from medclip_keras.serving.layout import CONCEPTS_FILE, EXTRA, RUN_FILE
from medclip_keras.serving.signatures import Endpoints, tokens_of
from medclip_keras.training.model import MedCLIP


class GraphEmbedder:
    """An embedder of compiled endpoints; `owner` keeps their variables alive, which signatures do not."""

    def __init__(self, endpoints: Mapping[str, Callable], logit_scale: float, owner: object):
        self._endpoints, self.logit_scale, self._owner = endpoints, logit_scale, owner

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        """Stored images uint8 (B, S, S, 1) to float32 (B, D)."""
        return self._call("encode_stored_images", stored_images=images)["image_embeddings"]

    def embed_features(self, images: np.ndarray) -> np.ndarray:
        """Stored images uint8 (B, S, S, 1) to float32 (B, F), the image tower's output before projection.

        Raises:
            ValueError: a SavedModel of an old version, without features.
        """
        answer = self._call("encode_stored_images", stored_images=images)
        form = "a version whose encode_stored_images returns image_features, for the linear probe"
        require("image_features" in answer, "saved_model", form, sorted(answer), "Export the run again.")
        return answer["image_features"]

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        """Sentences (N,) to float32 (N, D)."""
        return self._call("encode_text", texts=texts)["text_embeddings"]

    def _call(self, endpoint: str, **inputs: np.ndarray | list) -> dict[str, np.ndarray]:
        answer = self._endpoints[endpoint](**{name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in answer.items()}


def model_embedder(model: MedCLIP, tokenizer: Tokenizer) -> GraphEmbedder:
    """The embedder of a model in this process."""
    return GraphEmbedder(Endpoints(model, tokenizer).functions(), float(model.logit_scale()), model)


def saved_model_embedder(directory: epath.PathLike) -> tuple[GraphEmbedder, RunConfig, ConceptTable]:
    """The embedder of a SavedModel, with its run and its concepts.

    The texts of a version without text operations are cut into word pieces here.

    Raises:
        ValueError: the folder is not such a version.
    """
    directory = epath.Path(directory)
    for file in ("saved_model.pb", f"{EXTRA}/{RUN_FILE}", f"{EXTRA}/{CONCEPTS_FILE}"):
        form = f"a version's folder as medclip_keras.export wrote it, with {file}"
        advice = "Name the folder of the version, such as MODELS_DIR/1."
        require((directory / file).exists(), "saved_model", form, str(directory), advice)
    run = json.loads((directory / EXTRA / RUN_FILE).read_text())
    config, loaded = from_dict(run["config"]), tf.saved_model.load(str(directory))
    endpoints: dict[str, Callable] = dict(loaded.signatures)
    if "encode_text" not in endpoints:
        tokenizer = load_tokenizer(directory / EXTRA)
        endpoints["encode_text"] = functools.partial(_encode_text, tokenizer, loaded)
    embedder = GraphEmbedder(endpoints, run["logit_scale"], loaded)
    return embedder, config, load_table(str(directory / EXTRA / CONCEPTS_FILE))


def _encode_text(tokenizer: Tokenizer, loaded: tf.Module, texts: tf.Tensor) -> dict[str, tf.Tensor]:
    """`encode_text` by a SavedModel that has encode_tokens alone."""
    return loaded.signatures["encode_tokens"](**tokens_of(tokenizer, texts))
