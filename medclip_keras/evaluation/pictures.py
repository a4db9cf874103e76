"""Strips of pictures: the images nearest to a prompt or to an image, and heat maps.

The page has them of drawn images, and of real ones only if its maker asks for it. A strip shows no report
text: its sentences are the shipped or the given prompts.
"""

import base64
import functools
import io
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
import PIL.Image

from medclip_keras.evaluation.arrays import Array, Bools, Floats, Ints
from medclip_keras.evaluation.results import TRAINED, ZeroShotResult
from medclip_keras.evaluation.sections import Section, Strip, Thumbnail

NUM_NEAREST = 6
MOST_STRIPS = 5  # of each kind
SIDE = 144  # pixels of a picture on the page, at most
_HEAT = matplotlib.colormaps["inferno"]

ReadImages = Callable[[Ints], Array]  # positions in the task → stored images uint8 (N, S, S, 1)
MakeMaps = Callable[[Array, Floats], Floats]  # images, unit texts (N, D) → maps (N, h, w)


def pictures_section(result: ZeroShotResult, read: ReadImages, heat: MakeMaps | None = None) -> Section:
    """Nearest images of prompts and of images, and heat maps; `read` is called once."""
    by_prompt, by_image, examples = _of_prompts(result), _of_images(result), _examples(result)
    rows = np.unique(np.concatenate([np.array(r, int) for _, r in (*by_prompt, *by_image, *examples)]))
    pixels = dict(zip(rows.tolist(), read(rows), strict=True))
    show = functools.partial(_thumbnail, result, pixels)
    strips = [
        Strip(f"“{result.prompts.texts[k]}”", tuple(show(row, _class_of_prompt(result, k)) for row in found))
        for k, found in by_prompt
    ]
    strips += [
        Strip(
            f"An image with {result.task.classes[k]}, and the images nearest to it",
            (show(query), *(show(row, k) for row in found)),
        )
        for k, (query, *found) in by_image
    ]
    if heat is not None and examples:
        strips += _heat_strips(result, pixels, examples, heat)
    return Section(
        "pictures",
        "Pictures",
        "The images nearest to a sentence and to an image; a green frame has the finding, a red one has not."
        " Heat maps show the places that raise the similarity with the finding's sentences.",
        strips=tuple(strips),
        notes=("Where a map is bright the answer depends on the pixels; it proves no more than that.",),
    )


def nearest(query: Floats, embeddings: Floats, number: int = NUM_NEAREST) -> Ints:
    """Positions of the nearest rows, best first; equal cosines in the order of the rows.

    >>> nearest(np.array([1.0, 0.0]), np.array([[0.0, 1.0], [1.0, 0.0], [0.8, 0.6]]), 2).tolist()
    [1, 2]
    """
    return np.argsort(-(embeddings @ query), kind="stable")[:number]


def _of_prompts(result: ZeroShotResult) -> list[tuple[int, list[int]]]:
    """The first prompt of each class, as a position among the prompts, with its nearest images."""
    images, prompts = result.image_embeddings[TRAINED], result.prompt_embeddings[TRAINED]
    names = [name for name in result.task.classes if name in result.prompts.classes][:MOST_STRIPS]
    first = [int(result.prompts.columns(name)[0]) for name in names]
    return [(k, nearest(prompts[k], images).tolist()) for k in first]


def _of_images(result: ZeroShotResult) -> list[tuple[int, list[int]]]:
    """The first image of each class, as a position among the classes, with it and its nearest images."""
    images = result.image_embeddings[TRAINED]
    return [
        (k, [row, *[n for n in nearest(images[row], images, NUM_NEAREST + 1) if n != row][:NUM_NEAREST]])
        for k, (row, *_) in _examples(result)
    ]


def _examples(result: ZeroShotResult) -> list[tuple[int, list[int]]]:
    """Class → its first image, and the next of another patient."""
    found: list[tuple[int, list[int]]] = []
    for k in range(len(result.task.classes)):
        rows = np.flatnonzero(_has(result, k))
        patients = result.task.patient_ids[rows]
        if len(rows) and len(found) < MOST_STRIPS:
            found.append((k, [int(rows[i]) for i in sorted(np.unique(patients, return_index=True)[1])[:3]]))
    return found


def _has(result: ZeroShotResult, k: int) -> Bools:
    has: Bools = result.task.labels[:, k] == 1
    return has


def _class_of_prompt(result: ZeroShotResult, prompt: int) -> int:
    return result.task.classes.index(result.prompts.classes[result.prompts.class_index[prompt]])


def _thumbnail(result: ZeroShotResult, pixels: dict[int, Array], row: int, k: int = -1) -> Thumbnail:
    """A picture with its classes, and whether it has class `k`; -1 asks nothing, as does an unknown label."""
    labels = result.task.labels[row]
    names = [name for name, label in zip(result.task.classes, labels, strict=True) if label == 1]
    right = None if k < 0 or np.isnan(labels[k]) else bool(labels[k] == 1)
    return Thumbnail(png_url(pixels[row][..., 0]), ", ".join(names) or "none of the findings", right)


def _heat_strips(
    result: ZeroShotResult,
    pixels: dict[int, Array],
    examples: Sequence[tuple[int, list[int]]],
    heat: MakeMaps,
) -> list[Strip]:
    named = [(k, rows) for k, rows in examples if result.task.classes[k] in result.prompts.classes]
    pairs = [(k, row) for k, rows in named for row in rows]
    if not pairs:
        return []
    prompts = result.prompt_embeddings[TRAINED]
    means = {k: prompts[result.prompts.columns(result.task.classes[k])].mean(axis=0) for k, _ in pairs}
    texts = np.stack([means[k] / np.linalg.norm(means[k]) for k, _ in pairs])
    maps = iter(heat(np.stack([pixels[row] for _, row in pairs]), texts))
    return [
        Strip(
            f"Where it looked for {result.task.classes[k]}",
            tuple(thumb for row in rows for thumb in _beside_map(pixels[row], next(maps))),
        )
        for k, rows in named
    ]


def _beside_map(picture: Array, heat: Floats) -> tuple[Thumbnail, Thumbnail]:
    plain = Thumbnail(png_url(picture[..., 0]), "image")
    return plain, Thumbnail(png_url(overlay(picture[..., 0], heat)), "heat map")


def overlay(gray: Array, heat: Floats) -> Array:
    """A map float (h, w) over a picture uint8 (S, S): uint8 (S, S, 3); a flat map leaves it gray."""
    low, high = float(heat.min()), float(heat.max())
    scaled = np.zeros_like(heat) if high <= low else (heat - low) / (high - low)
    coarse = PIL.Image.fromarray((255 * scaled).astype(np.uint8))
    size = (gray.shape[1], gray.shape[0])
    fine = np.asarray(coarse.resize(size, PIL.Image.Resampling.BICUBIC)) / 255
    share = (0.65 * fine)[..., None]
    colours = _HEAT(fine)[..., :3] * 255
    mixed: Array = (gray[..., None] * (1 - share) + colours * share).astype(np.uint8)
    return mixed


def png_url(pixels: Array) -> str:
    """Pixels uint8 (H, W) or (H, W, 3), made smaller to `SIDE`, as an address that holds them."""
    picture, file = PIL.Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((SIDE, SIDE))
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
