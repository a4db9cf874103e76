"""The page's server: a picture and sentences in, similarities, regions and nearest rows of an index out.

| path | request | answer |
|---|---|---|
| GET / | | the page; its style and its script are beside it |
| GET /setting | | findings' prompts, examples, the index's kind, limits |
| GET /examples/N.png | | a phantom: a drawn picture, of nobody |
| POST /answer | {"sentences", "without"} and a picture | cosines, shares, nearest rows, the decoded picture |
| POST /regions | {"sentences": [one]} and a picture | the map of `evaluation.where.occlusion` |

The body of a request is a line of JSON, then the file's bytes, of the type `application/octet-stream`. A
form would be written to a temporary file when it is large; here an upload is in memory alone, until its
answer. A page of another site cannot ask: browsers send such a body only with the consent of this server,
which never gives it, and the Host header must name this machine. The page itself loads nothing from
elsewhere, and its Content-Security-Policy says so.

The server is Starlette (BSD-3-Clause) on uvicorn: 2 MiB and no request of their own. Gradio and NiceGUI
bring some fifty packages, Streamlit and Panel thirty, and NumPy 2, which does not install beside TensorFlow
here.
"""

import base64
import functools
import io
import json
import pathlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL.Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from medclip_keras.errors import refusal, require
from medclip_keras.evaluation.arrays import Array
from medclip_keras.evaluation.prompts import shipped_prompts
from medclip_keras.evaluation.where.occlusion import region_map
from medclip_keras.inference import InferenceModel, read_square
from medclip_keras.knowledge.concepts import NO_FINDING
from medclip_keras.search import SearchIndex, ask
from medclip_keras.sources.phantom import draw_radiograph
from medclip_keras.sources.phantom.cohort import EVALUATED, PhantomFinding

MAX_BYTES = 64 * 2**20  # of a request
MAX_SENTENCES, MAX_CHARACTERS = 32, 500
NUM_NEAREST = 8
PAGE = pathlib.Path(__file__).parent
HOSTS = ("127.0.0.1", "localhost")
_TYPE = "application/octet-stream"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
EXAMPLES: dict[str, tuple[PhantomFinding, ...]] = {
    "without a finding": (),
    "left pleural effusion": (PhantomFinding("Pleural Effusion", "left", 0.8, "lower"),),
    "large heart": (PhantomFinding("Cardiomegaly", "", 0.9, "mid"),),
    "right pneumothorax": (PhantomFinding("Pneumothorax", "right", 0.8, "upper"),),
    "right upper consolidation": (PhantomFinding("Consolidation", "right", 0.8, "upper"),),
}


class TooLargeError(ValueError):
    """A request of more than `MAX_BYTES`."""


@dataclass(frozen=True)
class Question:
    """A request's sentences, and its picture's bytes."""

    sentences: tuple[str, ...]
    without: tuple[str, ...]
    picture: bytes = field(repr=False)

    @classmethod
    def parse(cls, body: bytes) -> "Question":
        """Read a body: a line of JSON, then the picture.

        Raises:
            ValueError: a body of another form, no picture, no sentence, or too many or long ones.
        """
        line, _, picture = body.partition(b"\n")
        try:
            asked = json.loads(line)
            texts = [asked.get(name, []) for name in ("sentences", "without")]
        except (ValueError, AttributeError):
            raise refusal("body", "a line of JSON and a picture", f"{len(body)} bytes") from None
        for name, given in zip(("sentences", "without"), texts, strict=True):
            strings = isinstance(given, list) and all(isinstance(text, str) for text in given)
            require(strings, name, "a list of strings", type(given).__name__)
            require(len(given) <= MAX_SENTENCES, name, f"at most {MAX_SENTENCES} sentences", len(given))
            longest = max(map(len, given), default=0)
            require(longest <= MAX_CHARACTERS, name, f"of at most {MAX_CHARACTERS} characters each", longest)
        sentences, without = ([text.strip() for text in given if text.strip()] for given in texts)
        require(bool(sentences), "sentences", "at least one sentence", 0, "Type one.")
        require(bool(picture), "picture", "a JPEG, PNG or DICOM file", "0 bytes", "Drop one on the page.")
        return cls(tuple(dict.fromkeys(sentences)), tuple(without), picture)


@dataclass(frozen=True)
class Demo:
    """Answers of a model and of an index, one at a time."""

    model: InferenceModel
    index: SearchIndex | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def setting(self) -> dict[str, Any]:
        """Initial state of the page, before a picture is chosen."""
        prompts = shipped_prompts()
        return {
            "run": str(self.model.made_from.get("run", "")),
            "sentences": [prompts[name][0] for name in (*EVALUATED, NO_FINDING)],
            "examples": list(EXAMPLES),
            "index": self.index.manifest.key if self.index else "",
            "num_rows": len(self.index) if self.index else 0,
            "max_bytes": MAX_BYTES,
        }

    def answer(self, question: Question) -> dict[str, Any]:
        """Similarities with the sentences, and the nearest rows of the index.

        The shares are exp(s <v, t>) / sum exp(s <v, t>) over the sentences, with s the model's logit scale.
        """
        square = self._square(question)
        with self.lock:
            image = self.model.encode_stored_images(square[None])[0]
            cosines = self.model.encode_texts(list(question.sentences)) @ image
        logits = self.model.logit_scale * cosines
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        rows = [
            {"sentence": text, "cosine": float(cosine), "share": float(share)}
            for text, cosine, share in zip(question.sentences, cosines, shares, strict=True)
        ]
        return {"picture": data_url(square), "sentences": rows, "nearest": self._nearest(question)}

    def regions(self, question: Question) -> dict[str, Any]:
        """The map of the first sentence."""
        square = self._square(question)
        with self.lock:
            text = self.model.encode_texts(question.sentences[0])[0]
            found = region_map(self.model.encode_stored_images, square, text)
        return {"sentence": question.sentences[0], "regions": np.round(found.astype(float), 4).tolist()}

    def _square(self, question: Question) -> Array:
        try:
            return read_square(question.picture, self.model.config.data.stored_image_size)
        except ValueError as error:
            raise ValueError(f"The picture cannot be read: {error}.") from None

    def _nearest(self, question: Question) -> list[dict[str, Any]]:
        if self.index is None:
            return []
        with self.lock:
            matches = ask(
                self.index, self.model, image=question.picture, without=question.without, k=NUM_NEAREST
            )
        return [{"name": match.name, "score": match.score} for match in matches]


def create_app(model: InferenceModel, index: SearchIndex | None = None) -> Starlette:
    """Return the server's application.

    Raises:
        ValueError: an index of another model.
    """
    if index is not None:
        index.require_model(model)
    demo = Demo(model, index)
    routes = [
        Route("/", functools.partial(_file, "page.html")),
        Route("/page.css", functools.partial(_file, "page.css")),
        Route("/page.js", functools.partial(_file, "page.js")),
        Route("/setting", functools.partial(_json, demo.setting())),
        Route("/examples/{number:int}.png", _example),
        Route("/answer", functools.partial(_ask, demo.answer), methods=["POST"]),
        Route("/regions", functools.partial(_ask, demo.regions), methods=["POST"]),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS))
    return Starlette(routes=routes, middleware=[hosts])


async def _file(name: str, request: Request) -> Response:
    return FileResponse(PAGE / name, headers=_HEADERS)


async def _json(value: Any, request: Request) -> Response:
    return JSONResponse(value, headers=_HEADERS)


async def _example(request: Request) -> Response:
    number = request.path_params["number"]
    if number >= len(EXAMPLES):
        return _refused(404, f"There are {len(EXAMPLES)} examples.")
    return Response(await run_in_threadpool(example, number), media_type="image/png", headers=_HEADERS)


async def _ask(work: Callable[[Question], dict[str, Any]], request: Request) -> Response:
    if request.headers.get("content-type", "") != _TYPE:
        return _refused(415, f"`Content-Type` must be {_TYPE}.")
    try:
        question = Question.parse(await read_body(request))
        answer = await run_in_threadpool(work, question)
    except TooLargeError as error:
        return _refused(413, str(error))
    except ValueError as error:
        return _refused(400, str(error))
    return JSONResponse(answer, headers=_HEADERS)


async def read_body(request: Request) -> bytes:
    """The body, in memory.

    Raises:
        TooLargeError: more than `MAX_BYTES`, announced or sent.
    """
    error = TooLargeError(f"A picture may have at most {MAX_BYTES // 2**20} MiB.")
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > MAX_BYTES:
        raise error
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BYTES:
            raise error
    return bytes(body)


def _refused(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status, headers=_HEADERS)


@functools.cache
def example(number: int) -> bytes:
    """One of the phantoms, as a PNG file."""
    findings: Sequence[PhantomFinding] = list(EXAMPLES.values())[number]
    return png(draw_radiograph(findings, np.random.default_rng(number + 20), 256))


def png(pixels: Array) -> bytes:
    """Gray pixels uint8 (H, W) as a PNG file."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def data_url(square: Array) -> str:
    """A stored image uint8 (S, S, 1) as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png(np.asarray(square)[..., 0])).decode()
