"""Where a trained model looked: heat maps against the boxes of radiologists, and heat maps as pictures."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from medclip_keras.config import RunConfig
from medclip_keras.errors import require
from medclip_keras.evaluation.arrays import Array, Floats, Ints
from medclip_keras.evaluation.embedder import Embedder, embed_all_texts, embed_rows, read_index
from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.pictures import pictures_section
from medclip_keras.evaluation.prompts import shipped_prompts
from medclip_keras.evaluation.results import DatasetResult
from medclip_keras.evaluation.sections import Section
from medclip_keras.evaluation.summary import PHANTOM
from medclip_keras.evaluation.tasks import Task
from medclip_keras.evaluation.where.occlusion import region_map
from medclip_keras.evaluation.where.pointing import Boxed
from medclip_keras.evaluation.where.section import localize
from medclip_keras.evaluation.where.sides import side_texts
from medclip_keras.image_files import read_square
from medclip_keras.records.batches import evaluation_images
from medclip_keras.records.data_sets import data_sets
from medclip_keras.records.manifest import read_manifest
from medclip_keras.sources.boxes import BoxedImage, read_boxes

HeatMaps = Callable[[Array, Floats], Any]  # stored images (B, S, S, 1), texts (B, D) → maps (B, h, w)


def methods_of(embedder: Embedder, model: Any = None) -> dict[str, HeatMaps]:
    """Heat maps by method: occlusion, before it regions or Grad-CAM if the Keras model is in this process."""
    found: dict[str, HeatMaps] = {}
    if model is not None:
        from medclip_keras.serving.heat_maps import heat_maps, method_of

        found[method_of(model)] = functools.partial(heat_maps, model)
    return found | {"occlusion": functools.partial(_occlude, embedder)}


def _occlude(embedder: Embedder, images: Array, texts: Floats) -> Floats:
    return np.stack([region_map(embedder.embed_images, *pair) for pair in zip(images, texts, strict=True)])


def measure_boxes(
    directory: str, embedder: Embedder, methods: dict[str, HeatMaps], image_size: int, bootstrap: Bootstrap
) -> tuple[str, DatasetResult]:
    """The pointing game on a folder of boxes; returns the archive's name and the result.

    A finding's text is the mean of its shipped prompts.

    Raises:
        ValueError: a folder without boxes, an image that cannot be read, a finding without prompts.
    """
    name, images = read_boxes(directory)
    texts = _texts_of(sorted({image.finding for image in images}), embedder)
    squares = np.stack([_square(image, image_size) for image in images])
    wanted = np.stack([texts[image.finding] for image in images])
    boxed = Boxed(
        np.array([image.finding for image in images]),
        np.array([image.patient_id for image in images]),
        tuple(image.boxes for image in images),
    )
    heat = {method: list(maps_of(squares, wanted)) for method, maps_of in methods.items()}
    margins = _side_margins(boxed, embedder, squares)
    return f"{name} boxes", DatasetResult(localization=localize(boxed, heat, bootstrap, margins))


def _side_margins(boxed: Boxed, embedder: Embedder, squares: Array) -> Floats:
    """Cosine of each image with its finding on the left, less that with it on the right, (num_images,)."""
    names = np.unique(boxed.findings).tolist()
    texts = embed_all_texts(embedder, [text for name in names for text in side_texts(name)])
    left_less_right = dict(zip(names, texts[0::2] - texts[1::2], strict=True))
    images = np.concatenate([embedder.embed_images(square[None]) for square in squares])
    return np.sum(images * np.stack([left_less_right[name] for name in boxed.findings]), axis=1)


def _texts_of(findings: list[str], embedder: Embedder) -> dict[str, Floats]:
    prompts = shipped_prompts()
    for name in findings:
        require(name in prompts, "--boxes", "boxes of findings with shipped prompts", name)
    means = {name: embed_all_texts(embedder, prompts[name]).mean(axis=0) for name in findings}
    return {name: mean / np.linalg.norm(mean) for name, mean in means.items()}


def _square(image: BoxedImage, size: int) -> Array:
    try:
        return read_square(image.path, size)
    except ValueError as error:
        raise ValueError(f"{image.path}: {error}.") from None


def picture_sections(
    config: RunConfig, split: str, results: Mapping[str, DatasetResult], maps: HeatMaps, show_data: bool
) -> dict[str, list[Section]]:
    """Data set → its section of pictures: of phantoms, and with `show_data` of every data set of records."""
    found = {}
    for name, data in data_sets(config.data, split).items():
        drawn = all(read_manifest(path).source == PHANTOM for path in data.images)
        result = results.get(name, DatasetResult()).zero_shot
        if result is not None and (drawn or show_data):
            run = dataclasses.replace(config, data=data)
            found[name] = [pictures_section(result, functools.partial(_read, run, split, result.task), maps)]
    return found


def _read(config: RunConfig, split: str, task: Task, rows: Ints) -> Array:
    """Stored images uint8 (N, S, S, 1) of rows of a task."""
    batches = evaluation_images(config, split)
    index = read_index(batches, batches.element_spec["label_states"].shape[1])
    return embed_rows([lambda images: images], batches, index, task.rows[rows])[0]
