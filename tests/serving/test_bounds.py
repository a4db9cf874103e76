"""What a server meets from strangers: the exported graph, in a process of its own, refuses it and lives."""

import io
import json
import pathlib
import pickle
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from medclip_keras.preprocess import images
from medclip_keras.serving import bounds
from medclip_keras.serving.signatures import NO_SCORE

CHILD = """
import json, pickle, resource, sys
import tensorflow as tf, tensorflow_text
loaded = tf.saved_model.load(sys.argv[1])
for endpoint, request in pickle.load(sys.stdin.buffer):
    before, error, answer = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "", {}
    try:
        answer = loaded.signatures[endpoint](**{k: tf.constant(v, *t) for k, (v, *t) in request.items()})
    except tf.errors.InvalidArgumentError as raised:
        error = str(raised)
    mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    listed = {k: v.numpy().ravel()[:64].tolist() for k, v in answer.items() if v.dtype != tf.string}
    print(json.dumps([error, listed, mib]), flush=True)
"""


def ask(saved_model, *requests):
    """Send requests, {input: (value, dtype)}, to endpoints in turn: (error, answer, MiB more) of each."""
    command = [sys.executable, "-c", CHILD, str(saved_model)]
    done = subprocess.run(command, input=pickle.dumps(requests), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def picture():
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 37), np.uint8)).save(file, "PNG")
    return file.getvalue()


GOOD = picture()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits=8, before=b""):
    packing = zlib.compressobj(9)
    row = bytes(1 + width * bits // 8)
    data = b"".join(packing.compress(row) for _ in range(height)) + packing.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def many_passes(times):
    """A progressive JPEG file whose last pass is repeated."""
    file = io.BytesIO()
    Image.new("L", (64, 64)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * times + content[-2:]


@pytest.fixture(scope="module")
def wrong_shapes(tiny):
    """A request of every other rank for each input of each endpoint, all else as documented."""
    requests = []
    for endpoint, function in tiny.endpoints.functions().items():
        specs = {spec.name: spec for spec in function.input_signature}
        good = {
            n: np.zeros([1, *(d or 1 for d in s.shape[1:])], s.dtype.as_numpy_dtype) for n, s in specs.items()
        }
        good = {n: np.full(v.shape, b"", object) if v.dtype == object else v for n, v in good.items()}
        for name, value in good.items():
            wrong = [value.reshape([1] * rank) for rank in range(6) if rank != value.ndim and value.size == 1]
            wrong += [value[0], value[None]] + [np.repeat(value, 2, axis=-1)] * (value.ndim == 4)
            for other in wrong:
                request = {n: (other if n == name else v, specs[n].dtype) for n, v in good.items()}
                requests.append((endpoint, request))
    return requests


def test_another_rank_of_any_input_is_an_error_and_the_process_lives(saved_model, wrong_shapes):
    answers = ask(saved_model, *wrong_shapes, ("encode_text", {"texts": (["edema"],)}))
    assert len(answers) > 50
    for (endpoint, request), (error, _, _) in zip(wrong_shapes, answers, strict=False):
        assert "Shape of tensor" in error, (endpoint, {n: v.shape for n, (v, *_) in request.items()})
    assert answers[-1][0] == ""


def bombs():
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(7_900_000), 9))
    return {
        "not a picture": (b"not a picture", False),
        "empty": (b"", False),
        "zeros": (bytes(200_000_000), False),
        "too many bytes": (GOOD + bytes(images.MAX_FILE_BYTES), False),
        "declared": (GOOD[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + GOOD[24:], False),
        "wide": (png(30000, 1), True),
        "tall": (png(1, 30000), True),
        "too wide": (png(65536, 1), False),
        "large": (png(8192, 8192), True),
        "large, 16 bits": (png(8192, 8192, 16), True),
        "a text": (png(8, 8, before=text), True),
        "compressed texts": (png(8, 8, before=text * (images.MAX_COMPRESSED_TEXTS + 1)), False),
        "profile": (png(8, 8, before=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**8), 9))), True),
        "passes": (many_passes(images.MAX_PASSES), False),
        "progressive": (many_passes(1), True),
        "truncated": (GOOD[:-20], False),
        "GIF": (b"GIF89a" + bytes(100), False),
    }


def test_bombs_have_a_status_and_take_bounded_memory(saved_model):
    files = bombs()
    alone = [("encode_image", {"image_bytes": ([content, GOOD],)}) for content, _ in files.values()]
    four = ("encode_image", {"image_bytes": ([files["large, 16 bits"][0]] * 4,)})
    first, *answers, last = ask(saved_model, ("encode_image", {"image_bytes": ([GOOD],)}), *alone, four)
    embedding = first[1]["image_embeddings"]
    for (name, (_, is_readable)), (error, answer, mib) in zip(files.items(), answers, strict=True):
        assert error == "", name
        assert answer["decoded"] == [is_readable, True], name
        assert any(answer["image_embeddings"][:16]) == is_readable, name
        np.testing.assert_allclose(answer["image_embeddings"][16:], embedding, atol=1e-5, err_msg=name)
        assert mib < 1500, name
    assert last[1]["decoded"] == [True] * 4
    assert sum(mib for _, _, mib in (*answers, last)) < 4000


def test_many_and_long_texts_are_refused_or_cut_and_take_bounded_memory(saved_model):
    texts = {
        "many": [b"edema"] * 10_000,
        "one more": [b"edema"] * (bounds.MAX_ROWS + 1),
        "most": [b"edema"] * bounds.MAX_ROWS,
        "long": [b"edema " * 20_000_000, b"edema " * 20],
        "all long": [b"e " * bounds.MAX_TEXT_BYTES] * bounds.MAX_ROWS,
        "one word": [b"e" * 10_000_000],
        "not UTF-8": [b"\xff\xfe\x00\xed\xa0\x80", b"\x00", b"", b"\xf4\x90\x80\x80"],
        "marks": [b"e" + "\u0301".encode() * 100_000],
        "ligatures": ["\ufdfa".encode() * 10_000] * bounds.MAX_ROWS,
    }
    answers = ask(saved_model, *(("encode_text", {"texts": (value,)}) for value in texts.values()))
    found = dict(zip(texts, answers, strict=True))
    for name, (error, answer, mib) in found.items():
        assert mib < 700, name
        assert ("`texts` must be at most 256 rows." in error) == (name in ("many", "one more")), name
        assert np.isfinite(answer.get("text_embeddings", [])).all(), name
    cut, whole = np.reshape(found["long"][1]["text_embeddings"], (2, 16))
    np.testing.assert_allclose(cut, whole, atol=1e-6)  # more than max_tokens word pieces either way


IDS, MASK = np.ones((2, 5), np.int32), np.ones((2, 5), np.int32)
FILES = np.array([GOOD, GOOD], object)
PROMPTS, CLASSES = np.array([["edema", "lung"]] * 2, object), np.zeros((2, 2), np.int32)
WIDE = np.full((1, bounds.MAX_PER_IMAGE + 1), "edema", object)
MANY = np.full((33, bounds.MAX_PER_IMAGE), "edema", object)
PIXELS, EMBEDDINGS = np.zeros((1, 32, 32, 1), np.float32), np.ones((1, 16), np.float32)
REFUSED = [
    ("encode_tokens", {"token_ids": -IDS, "padding_mask": MASK}, "`token_ids` must be values from 0 to 58."),
    (
        "encode_tokens",
        {"token_ids": 59 * IDS, "padding_mask": MASK},
        "`token_ids` must be values from 0 to 58.",
    ),
    (
        "encode_tokens",
        {"token_ids": IDS, "padding_mask": 2 * MASK},
        "`padding_mask` must be values from 0 to 1.",
    ),
    (
        "encode_tokens",
        {"token_ids": IDS, "padding_mask": -MASK},
        "`padding_mask` must be values from 0 to 1.",
    ),
    ("encode_tokens", {"token_ids": IDS, "padding_mask": 0 * MASK}, "`padding_mask` must be 1 somewhere"),
    (
        "encode_tokens",
        {"token_ids": IDS, "padding_mask": MASK[:, 1:]},
        "`token_ids` must be of padding_mask's",
    ),
    ("encode_tokens", {"token_ids": IDS[:1], "padding_mask": MASK}, "`token_ids` must be of padding_mask's"),
    (
        "encode_tokens",
        {"token_ids": IDS[:, :0], "padding_mask": MASK[:, :0]},
        "`token_ids` must be 1 to 16 tokens",
    ),
    (
        "encode_tokens",
        {"token_ids": np.tile(IDS, 4)[:, :17], "padding_mask": np.tile(MASK, 4)[:, :17]},
        "`token_ids` must be 1 to 16 tokens",
    ),
    (
        "zero_shot_prompts",
        {"image_bytes": FILES, "prompts": PROMPTS, "prompt_class": CLASSES - 1},
        "`prompt_class` must be from 0 to",
    ),
    (
        "zero_shot_prompts",
        {"image_bytes": FILES, "prompts": PROMPTS, "prompt_class": CLASSES + 2},
        "`prompt_class` must be from 0 to",
    ),
    (
        "zero_shot_prompts",
        {"image_bytes": FILES, "prompts": PROMPTS, "prompt_class": CLASSES + np.int32(2**31 - 1)},
        "`prompt_class` must be from 0 to",
    ),
    (
        "zero_shot_prompts",
        {"image_bytes": FILES, "prompts": PROMPTS, "prompt_class": CLASSES[:, :1]},
        "`prompt_class` must be of the prompts' shape.",
    ),
    (
        "zero_shot_prompts",
        {"image_bytes": FILES[:1], "prompts": PROMPTS, "prompt_class": CLASSES},
        "`prompts` must be one list an image.",
    ),
    ("similarity", {"image_bytes": FILES[:1], "texts": PROMPTS}, "`texts` must be one list an image."),
    ("similarity", {"image_bytes": FILES[:1], "texts": WIDE}, "`texts` must be 1 to 256 a row"),
    ("similarity", {"image_bytes": FILES, "texts": PROMPTS[:, :0]}, "`texts` must be 1 to 256 a row"),
    ("similarity", {"image_bytes": FILES.repeat(17)[:33], "texts": MANY}, "at most 8192 in all."),
    ("encode_pixels", {"pixels": PIXELS - 1}, "`pixels` must be values from 0 to 255."),
    ("encode_pixels", {"pixels": PIXELS + 256}, "`pixels` must be values from 0 to 255."),
    ("encode_pixels", {"pixels": PIXELS + np.float32("nan")}, "`pixels` must be values from 0 to 255."),
    ("encode_pixels", {"pixels": PIXELS.repeat(257, axis=0)}, "`pixels` must be at most 256 rows."),
    ("encode_image", {"image_bytes": FILES.repeat(129)}, "`image_bytes` must be at most 256 rows."),
    ("retrieve_embeddings", {"embeddings": EMBEDDINGS * np.inf}, "`embeddings` must be values from"),
    ("retrieve_embeddings", {"embeddings": EMBEDDINGS * np.nan}, "`embeddings` must be values from"),
    ("retrieve_embeddings", {"embeddings": EMBEDDINGS[:, 1:]}, "Shape of tensor embeddings [1,15]"),
]


@pytest.fixture(scope="module")
def served(saved_model):
    import tensorflow as tf

    return tf.saved_model.load(str(saved_model))


@pytest.mark.parametrize(("endpoint", "request_", "sentence"), REFUSED)
def test_values_out_of_bounds_are_refused_by_a_sentence(served, endpoint, request_, sentence):
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        served.signatures[endpoint](**{name: tf.constant(value) for name, value in request_.items()})
    assert sentence in str(error.value).replace("\\'", "'")
    assert "edema" not in str(error.value)


def test_an_error_does_not_quote_a_text(served):
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        served.signatures["encode_text"](texts=tf.constant([["John Doe"]]))
    assert "Doe" not in str(error.value)


def test_the_mark_of_no_score_is_a_number_of_json():
    assert json.loads(json.dumps(float(np.float32(NO_SCORE)))) == np.finfo(np.float32).min


def test_bounds_are_those_of_the_documented_batches():
    config = (pathlib.Path(bounds.__file__).parent / "tensorflow_serving" / "batching.config").read_text()
    assert f"max_batch_size {{ value: {bounds.MAX_ROWS} }}" in config
    assert f"max_execution_batch_size {{ value: {bounds.MAX_PAIRS // bounds.MAX_PER_IMAGE} }}" in config
