"""Requests for each endpoint: to validate a SavedModel, and to warm a server up."""

import io

import numpy as np
import PIL.Image
import tensorflow as tf

from medclip_keras.evaluation.prompts import shipped_prompts
from medclip_keras.serving.bounds import MAX_TEXT_BYTES
from medclip_keras.serving.signatures import Endpoints

Requests = dict[str, dict[str, np.ndarray]]

_TURNED, _ORIENTATION = 6, 0x0112


def make_requests(endpoints: Endpoints) -> Requests:
    """Requests that reach every way through the graph.

    Pictures: gray, colour, CMYK, 16 bits, of one pixel, huge, thin, turned by EXIF, and a file that is none.
    Texts: shipped prompts; empty, long, longer than read, not ASCII, and no valid UTF-8.
    """
    prompts = [texts[n].encode() for n, texts in enumerate(list(shipped_prompts().values())[:6])]
    unusual = [b"", b"edema " * 400, b"heart " * MAX_TEXT_BYTES, "Ödem der Lunge, 肺水腫, 🫁\u200b".encode()]
    return _requests(endpoints, [*picture_files(), b"not a picture"], [*prompts, *unusual, b"\xff\x00\xed"])


def warmup_requests(endpoints: Endpoints) -> Requests:
    """A small request for each endpoint, of one row: the first call of a signature is slow."""
    return _requests(endpoints, picture_files()[:1], [b"There is pulmonary edema."])


def _requests(endpoints: Endpoints, files: list[bytes], texts: list[bytes]) -> Requests:
    rng, dim = np.random.default_rng(1), endpoints.model.run.model.projection_dim
    stored, seen = ((len(files), n, n, 1) for n in (endpoints.stored_image_size, endpoints.image_size))
    image_bytes = {"image_bytes": np.array(files, object)}
    lists = np.array([np.roll(texts, n) for n in range(len(files))], object)  # (B, N)
    tokens = {name: value.numpy() for name, value in endpoints.tokenizer(tf.constant(texts)).items()}
    classes = np.broadcast_to(np.arange(len(texts)) // 2, lists.shape)
    return {
        "encode_image": image_bytes,
        "encode_text": {"texts": np.array(texts, object)},
        "encode_tokens": tokens,
        "encode_stored_images": {"stored_images": rng.integers(0, 256, stored).astype(np.uint8)},
        "encode_pixels": {"pixels": rng.uniform(0, 255, seen).astype(np.float32)},
        "zero_shot": image_bytes,
        "zero_shot_prompts": image_bytes | {"prompts": lists, "prompt_class": classes.astype(np.int32)},
        "similarity": image_bytes | {"texts": lists},
        "retrieve": image_bytes,
        "retrieve_embeddings": {"embeddings": rng.normal(size=(len(files), dim)).astype(np.float32)},
    }


def picture_files() -> list[bytes]:
    """Pictures that a server meets, the first one gray and small."""
    rng = np.random.default_rng(0)
    gray, colour = (rng.integers(0, 256, shape).astype(np.uint8) for shape in ((61, 47), (40, 90, 3)))
    deep = rng.integers(0, 1 << 16, (33, 50)).astype(np.uint16)
    smooth = np.add.outer(np.arange(2500), np.arange(3100)).astype(np.uint8)
    exif = PIL.Image.Exif()
    exif[_ORIENTATION] = _TURNED
    return [
        _encoded(gray, "PNG"),
        _encoded(colour, "JPEG"),
        _encoded(deep, "PNG"),
        _encoded(gray, "JPEG", exif=exif),
        _encoded(gray[:1, :1], "PNG"),
        _encoded(smooth, "JPEG"),
        _encoded(smooth[:2], "PNG"),
        _encoded(colour, "JPEG", mode="CMYK"),
    ]


def _encoded(pixels: np.ndarray, file_format: str, mode: str = "", **options) -> bytes:
    picture = PIL.Image.fromarray(pixels)
    file = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, file_format, **options)
    return file.getvalue()
