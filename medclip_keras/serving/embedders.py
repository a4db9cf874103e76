"""Embedders for `evaluation`: a model in this process or a SavedModel, through the same graph."""

import json
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401 (registers the operations of encode_text)
from etils import epath

from medclip_keras.config import RunConfig, from_dict
from medclip_keras.errors import require
from medclip_keras.knowledge.concepts import ConceptTable, load_table
from medclip_keras.preprocess.text import Tokenizer
from medclip_keras.serving.layout import CONCEPTS_FILE, EXTRA, RUN_FILE, TOKENS_ONLY
from medclip_keras.serving.signatures import Endpoints
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

    Raises:
        ValueError: the folder is not such a version, or it is one without the endpoints for text.
    """
    directory = epath.Path(directory)
    for file in ("saved_model.pb", f"{EXTRA}/{RUN_FILE}", f"{EXTRA}/{CONCEPTS_FILE}"):
        form = f"a version's folder as medclip_keras.export wrote it, with {file}"
        advice = "Name the folder of the version, such as MODELS_DIR/1."
        require((directory / file).exists(), "saved_model", form, str(directory), advice)
    run = json.loads((directory / EXTRA / RUN_FILE).read_text())
    loaded = tf.saved_model.load(str(directory))
    advice = f"Name the same version outside of {TOKENS_ONLY}/: {directory.parents[1] / directory.name}."
    form = "a version with every endpoint"
    require("encode_text" in loaded.signatures, "saved_model", form, str(directory), advice)
    embedder = GraphEmbedder(loaded.signatures, run["logit_scale"], loaded)
    return embedder, from_dict(run["config"]), load_table(str(directory / EXTRA / CONCEPTS_FILE))
