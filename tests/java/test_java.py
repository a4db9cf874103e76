"""A reader that is not Python: TensorFlow for Java gives the answers of the export without text operations.

`make test-java` runs this; `make test` does not, as it needs Java (17) and Maven and fetches 200 MB once.
"""

import hashlib
import io
import os
import pathlib
import platform
import shutil
import subprocess

import numpy as np
import PIL.Image
import tensorflow as tf

from medclip_keras.serving.signatures import export_model

HERE = pathlib.Path(__file__).parent
JARS = HERE.parents[1] / ".java"
SYSTEMS = {"Linux": "linux", "Darwin": "macosx", "Windows": "windows"}
TEXTS = ["Edema.", "The heart is large and the lung is wet.", ""]


def fetch() -> pathlib.Path:
    """The folder with the jars that pom.xml names; Maven fetches them if they are missing."""
    pom = HERE / "pom.xml"
    machine = {"x86_64": "x86_64", "AMD64": "x86_64"}.get(platform.machine(), "arm64")
    name = f"{SYSTEMS[platform.system()]}-{machine}"
    folder = JARS / hashlib.sha256(pom.read_bytes() + name.encode()).hexdigest()[:12]
    unfinished = folder.with_suffix(".incomplete")
    if not folder.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        command = ["mvn", "--batch-mode", "--quiet", f"--file={pom}", f"-Dplatform={name}"]
        copy = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={unfinished}"]
        subprocess.run([*command, *copy], check=True)
        unfinished.rename(folder)
    return folder


def picture(seed, shape, dtype=np.uint8):
    pixels, buffer = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype), io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_java_answers_as_python(tiny, tmp_path, capsys):
    saved_model, requests = tmp_path / "1", tmp_path / "requests"
    export_model(tiny.endpoints, tiny.table, saved_model, {}, text_operations=False)
    requests.mkdir()
    files = [picture(0, (50, 37)), b"no picture", picture(1, (20, 64, 3)), picture(2, (33, 33), np.uint16)]
    for i, file in enumerate(files):
        (requests / str(i)).write_bytes(file)
    tokens = tiny.tokenizer(tf.constant(TEXTS))
    for name, values in tokens.items():
        (requests / name).write_bytes(values.numpy().astype("<i4").tobytes())
    jars = os.pathsep.join(map(str, fetch().iterdir()))
    command = ["java", "-cp", jars, str(HERE / "TokensOnly.java"), str(saved_model), str(requests)]
    subprocess.run([*command, str(len(files)), str(len(TEXTS))], check=True)

    expected = {
        **tiny.endpoints.encode_image(tf.constant(files)),
        **tiny.endpoints.encode_tokens(**tokens),
    }
    assert (requests / "decoded").read_bytes() == bytes([1, 0, 1, 1])
    for name in ("image_embeddings", "text_embeddings"):
        answer = np.frombuffer((requests / name).read_bytes(), "<f4").reshape(expected[name].shape)
        difference = np.abs(answer - expected[name]).max()
        with capsys.disabled():
            print(f"{name}: {difference:.1e} from Python's")
        assert difference <= 1e-5
        assert np.abs(answer).max() > 0.1
