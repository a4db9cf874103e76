"""Use a trained model: `medclip_keras.load(PATH)` embeds, compares, classifies and ranks.

A served model needs no TensorFlow here: it is imported where a model of a folder is loaded.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import PIL.Image
import PIL.ImageOps
from etils import epath

from medclip_keras.config import RunConfig
from medclip_keras.errors import near_names, require
from medclip_keras.evaluation.arrays import Array, Floats
from medclip_keras.evaluation.class_scores import MODES, class_scores
from medclip_keras.evaluation.embedder import Embedder, TextEmbedder, embed_all_texts
from medclip_keras.evaluation.prompts import ClassPrompts, shipped_prompts
from medclip_keras.image_files import Image, read_file, read_square
from medclip_keras.knowledge.concepts import NO_FINDING
from medclip_keras.provenance import sha256_of
from medclip_keras.serving.client.address import is_address
from medclip_keras.sources.rows import MAX_PIXELS, MAX_SIDE

if TYPE_CHECKING:  # needs the extra `client`
    from medclip_keras.serving.client.served_model import ServedModel

Prompts: TypeAlias = Mapping[str, Sequence[str]] | Sequence[str]
Contrast: TypeAlias = str | Mapping[str, Sequence[str]]

IMAGES_AT_ONCE = 32
UNDECODED = (  # of a server, which gives no reason
    "it is not a whole JPEG, PNG or DICOM file, or a picture of more than "
    f"{MAX_PIXELS:,} pixels, or {MAX_SIDE:,} a side"
)
_NUM_DECODERS = os.cpu_count()  # threads; decoding releases Python's lock


@dataclass(frozen=True)
class Classifier:
    """Embedded prompts of some classes; scores any number of image embeddings.

    Attributes:
        classes: names, in the order of the scores' columns.
        mode: "ensemble" or "single".
        logit_scale: of the model.
        prompts: of the classes, and of "No Finding" if it is the contrast.
        prompt_embeddings: float32 (num_prompts, D).
        negatives: negative prompts of the classes, or none.
        negative_embeddings: float32 (num_negatives, D).
        with_normal: whether the score of "No Finding" is subtracted.
    """

    classes: tuple[str, ...]
    mode: str
    logit_scale: float
    prompts: ClassPrompts
    prompt_embeddings: Floats
    negatives: ClassPrompts
    negative_embeddings: Floats
    with_normal: bool

    def __call__(self, image_embeddings: Floats) -> Floats:
        """Image embeddings float32 (B, D) to scores float32 (B, num_classes)."""

        def scores(prompts: ClassPrompts, embeddings: Floats) -> Floats:
            logits = self.logit_scale * image_embeddings @ embeddings.T  # (B, num_prompts)
            return class_scores(logits, prompts, self.classes, self.mode, contrast=self.with_normal)

        found = scores(self.prompts, self.prompt_embeddings)
        if self.negatives.texts:
            found = found - scores(self.negatives, self.negative_embeddings)
        return found.astype(np.float32)


class ImageEmbedder(Protocol):
    """Brings images to the form that a model takes, and embeds them."""

    def read(self, image: Image) -> Any:
        """The image in the model's form.

        Raises:
            ValueError: an image that cannot be read.
        """

    def embed(self, images: Sequence[Any]) -> tuple[Floats, list[str]]:
        """Embed images of that form.

        Returns:
            float32 (num_readable, D), and for each image "" or the reason why it cannot be read.
        """

    def embed_stored(self, images: Array) -> Floats:
        """Embed images of records uint8 (B, S, S, 1): float32 (B, D)."""


class InferenceModel:
    """A trained dual encoder; a workdir, its export and a server of the export give equal answers.

    Images are paths (JPEG, PNG, DICOM), contents of such files as bytes, PIL images, or arrays (H, W),
    (H, W, 1) or (H, W, 3) of uint8 or uint16, black 0 and white the type's maximum: one image, or a sequence
    of images.

    Attributes:
        config: of the run; images are first brought to squares of `config.data.stored_image_size` pixels.
        logit_scale: factor from cosines to logits, 1/tau.
        made_from: the model's folder or address, run, step and fingerprint or version, as JSON types.
    """

    def __init__(
        self, images: ImageEmbedder, texts: TextEmbedder, config: RunConfig, made_from: Mapping[str, Any]
    ):
        self._images, self._embedder, self.config = images, texts, config
        self.logit_scale, self.made_from = float(texts.logit_scale), dict(made_from)

    def encode_images(self, images: Image | Sequence[Image]) -> Floats:
        """Embed images: float32 (num_images, D), rows of unit length.

        Raises:
            ValueError: an image that cannot be read; the sentence names its path or position.
        """
        embeddings, reasons = self.encode_readable(images)
        for reason in filter(None, reasons):
            raise ValueError(reason)
        return embeddings

    def encode_readable(self, images: Image | Sequence[Image]) -> tuple[Floats, list[str]]:
        """Embed the images that can be read.

        Returns:
            float32 (num_readable, D), and for each image "" or a sentence that says why it cannot be read.
        """
        listed: list[Image] = (
            [images]
            if isinstance(images, str | os.PathLike | bytes | PIL.Image.Image | np.ndarray)
            else list(() if images is None else images)
        )
        require(bool(listed), "images", "an image or a sequence of images", images)
        reasons: list[str] = []
        embedded = [np.empty((0, self.config.model.projection_dim), np.float32)]
        with ThreadPoolExecutor(_NUM_DECODERS) as decoders:
            for start in range(0, len(listed), IMAGES_AT_ONCE):
                chunk = listed[start : start + IMAGES_AT_ONCE]
                read = list(decoders.map(self._read, chunk, range(start, start + len(chunk))))
                found = [one if isinstance(one, str) else "" for one in read]
                readable = [i for i, one in enumerate(read) if not isinstance(one, str)]
                if readable:
                    embeddings, said = self._images.embed([read[i] for i in readable])
                    embedded.append(embeddings)
                    for i, reason in zip(readable, said, strict=True):
                        found[i] = _unreadable(chunk[i], start + i, reason) if reason else ""
                reasons += found
        return np.concatenate(embedded), reasons

    def encode_stored_images(self, images: Array) -> Floats:
        """Embed images of records uint8 (B, S, S, 1), S being `config.data.stored_image_size`."""
        return self._images.embed_stored(images)

    def encode_texts(self, texts: str | Sequence[str]) -> Floats:
        """Embed sentences: float32 (num_texts, D), rows of unit length.

        Raises:
            ValueError: no sentence, or an item that is not a string.
        """
        return embed_all_texts(self._embedder, _sentences(texts, "texts"))

    def similarity(self, images: Image | Sequence[Image], texts: str | Sequence[str]) -> Floats:
        """Compare every image with every sentence: cosines float32 (num_images, num_texts)."""
        cosines: Floats = self.encode_images(images) @ self.encode_texts(texts).T
        return cosines

    def rank(
        self, images: Image | Sequence[Image], texts: str | Sequence[str], k: int = 5
    ) -> list[list[tuple[str, float]]]:
        """Return for each image its `k` nearest sentences with their cosines, the nearest first."""
        require(k >= 1, "k", "at least 1", k)
        sentences = _sentences(texts, "texts")
        return [
            [(sentences[j], float(row[j])) for j in np.argsort(-row, kind="stable")[:k]]
            for row in self.similarity(images, sentences)
        ]

    def classify(
        self,
        images: Image | Sequence[Image],
        prompts: Prompts,
        *,
        mode: str = "ensemble",
        contrast: Contrast = "normal",
    ) -> dict[str, Floats]:
        """Score images against classes that are described in words (zero-shot classification).

        With l(prompts) the mean (`mode="ensemble"`) or the maximum ("single") of the logits of some prompts:

            score(class) = l(prompts of the class) - l(contrasting prompts)

        Args:
            images: one or many.
            prompts: {class: [prompt, …]}, or names of findings that have shipped prompts.
            mode: "ensemble" or "single".
            contrast: "normal" subtracts the prompts of "No Finding" (the given ones, else the shipped ones),
                as the evaluation does; {class: [prompt, …]} subtracts each class's own negative prompts;
                "none" subtracts nothing.

        Returns:
            {class: float32 (num_images,)}; a higher score is more likely. Scores are differences of logits,
            not probabilities.

        Raises:
            ValueError: an unknown finding, mode or contrast, a class without a prompt, an unreadable image.
        """
        classifier = self.classifier(prompts, mode=mode, contrast=contrast)
        return dict(zip(classifier.classes, classifier(self.encode_images(images)).T, strict=True))

    def classifier(
        self, prompts: Prompts, *, mode: str = "ensemble", contrast: Contrast = "normal"
    ) -> Classifier:
        """Embed the prompts of `classify` once, for any number of images."""
        require(mode in MODES, "mode", f"one of {', '.join(MODES)}", mode)
        named = _prompts_by_class(prompts)
        classes = tuple(named)
        negatives: dict[str, Sequence[str]] = {}
        if isinstance(contrast, Mapping):
            negatives = {name: _sentences(contrast.get(name, ()), f"contrast[{name!r}]") for name in classes}
        elif contrast == "normal":
            named.setdefault(NO_FINDING, shipped_prompts()[NO_FINDING])
        else:
            require(
                contrast == "none", "contrast", "'normal', 'none' or {class: [negative prompt, …]}", contrast
            )
        given, denied = ClassPrompts.of(named), ClassPrompts.of(negatives)
        empty = np.empty((0, 0), np.float32)
        embedded = [embed_all_texts(self._embedder, p.texts) if p.texts else empty for p in (given, denied)]
        scale, with_normal = self.logit_scale, contrast == "normal"
        return Classifier(classes, mode, scale, given, embedded[0], denied, embedded[1], with_normal)

    def _read(self, image: Image, position: int) -> Any:
        """The image in the model's form, or the sentence that says why it cannot be read."""
        try:
            return self._images.read(image)
        except ValueError as error:
            return _unreadable(image, position, str(error))


@dataclass(frozen=True)
class _Squares:
    """Images as the squares of records, decoded in this process."""

    embedder: Embedder
    size: int

    def read(self, image: Image) -> Array:
        return read_square(image, self.size)

    def embed(self, images: Sequence[Array]) -> tuple[Floats, list[str]]:
        return self.embed_stored(np.stack(images)), [""] * len(images)

    def embed_stored(self, images: Array) -> Floats:
        return self.embedder.embed_images(images)


@dataclass(frozen=True)
class _Files:
    """Images as files, which the server decodes; those of DICOM become PNG files without loss."""

    served: "ServedModel"

    def read(self, image: Image) -> bytes:
        return read_file(image)

    def embed(self, images: Sequence[bytes]) -> tuple[Floats, list[str]]:
        embeddings, decoded = self.served.embed_files(images)
        return embeddings, ["" if one else UNDECODED for one in decoded]

    def embed_stored(self, images: Array) -> Floats:
        return self.embed([read_file(image) for image in images])[0]


def _unreadable(image: Image, position: int, reason: str) -> str:
    name = f"{os.fspath(image)!r}" if isinstance(image, str | os.PathLike) else f"images[{position}]"
    return f"{name} cannot be read: {reason}"


def load(path: str | os.PathLike[str]) -> InferenceModel:
    """Load a trained model from a workdir (also of `convert`), a version that `export` wrote, or a server.

        model = load("workdir/phantom_tiny")
        model.classify("xray.png", ["Edema", "Pleural Effusion"])
        # {'Edema': array([0.83], dtype=float32), 'Pleural Effusion': array([-2.1], dtype=float32)}

    A server of versions, TensorFlow Serving, is known by its address: http(s)://HOST:8501/v1/models/NAME for
    REST, grpc(s)://HOST:8500/v1/models/NAME for gRPC, with /versions/N or /labels/L at the end. It decodes
    JPEG and PNG files itself. `serving.client.connect` and `served_model` set timeouts and retries.

    Raises:
        ValueError: a folder that holds no model, or a server that does not answer for one.
    """
    if is_address(path):
        from medclip_keras.serving.client.served_model import connect

        return served_model(connect(os.fspath(path)))
    folder = epath.Path(path)
    from medclip_keras.serving.embedders import model_embedder, saved_model_embedder
    from medclip_keras.training.restore import load_model

    if (folder / "saved_model.pb").exists():
        embedder, config, _ = saved_model_embedder(folder)
        fingerprint = (folder / "fingerprint.pb").read_bytes().hex()
        origin: dict[str, Any] = {
            "saved_model": str(folder),
            "run": config.name,
            "weights": sha256_of(fingerprint),
        }
    else:
        form = "a workdir (with run.json), an exported version (with saved_model.pb) or a server's address"
        advice = (
            "Train a model with python -m medclip_keras.fit, or name a version's folder such as MODELS_DIR/1."
        )
        require((folder / "run.json").exists(), "path", form, str(path), advice)
        loaded = load_model(folder)
        kept = (
            folder / "checkpoints" / loaded.checkpoint
        )  # tables of checksums; earlier versions: no subfolder
        tables = sorted([*kept.glob("*.index"), *kept.glob("*/*.index")])
        weights = sha256_of([table.read_bytes().hex() for table in tables])
        config = loaded.config
        origin = {"workdir": str(folder), "run": config.name, "step": loaded.step, "weights": weights}
        embedder = model_embedder(loaded.model, loaded.tokenizer)
    return InferenceModel(_Squares(embedder, config.data.stored_image_size), embedder, config, origin)


def served_model(served: "ServedModel") -> InferenceModel:
    """The model behind a connection of `serving.client.connect`."""
    origin = {"served": str(served.address), "run": served.config.name, "version": served.version}
    return InferenceModel(_Files(served), served, served.config, origin)


def _sentences(texts: str | Sequence[str], argument: str) -> list[str]:
    sentences = [texts] if isinstance(texts, str) else list(texts)
    strings = bool(sentences) and all(isinstance(text, str) for text in sentences)
    require(strings, argument, "a sentence or a sequence of sentences", [type(t).__name__ for t in sentences])
    return sentences


def _prompts_by_class(prompts: Prompts) -> dict[str, Sequence[str]]:
    if isinstance(prompts, Mapping):
        require(bool(prompts), "prompts", "{class: [prompt, …]} with at least one class", "no class")
        return {name: _sentences(texts, f"prompts[{name!r}]") for name, texts in prompts.items()}
    shipped, names = shipped_prompts(), _sentences(prompts, "prompts")
    form = "names of findings with shipped prompts, or {class: [prompt, …]}"
    for name in names:
        require(name in shipped, "prompts", form, name, near_names(name, shipped))
    return {name: shipped[name] for name in names}
