"""`python -m medclip_keras.demo`: the server's answers, its bounds, and the page in a browser."""

import base64
import contextlib
import io
import json
import shutil
import sys
import threading

import numpy as np
import PIL.Image
import pytest
import uvicorn
from starlette.testclient import TestClient

from medclip_keras.demo import __main__, app
from medclip_keras.evaluation.where import occlusion as regions
from medclip_keras.inference import read_square
from medclip_keras.search import SearchIndex, ask
from medclip_keras.search.index import Rows, build

SENTENCES = ["edema is seen", "the heart is large", "no effusion"]
BINARY = {"Content-Type": "application/octet-stream"}
NO_NETWORK = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def index(model, tmp_path_factory):
    """An index of sentences."""
    place = tmp_path_factory.mktemp("sentences") / "index"
    build(Rows.of_sentences([*SENTENCES, "a nodule"], model), place)
    return SearchIndex.open(place)


@pytest.fixture(scope="module")
def application(model, index):
    return app.create_app(model, index)


@pytest.fixture
def client(application):
    return TestClient(application, base_url="http://127.0.0.1")


def body(picture, **asked):
    return json.dumps(asked).encode() + b"\n" + picture


def send(client, path, picture, **asked):
    return client.post(path, content=body(picture, **asked), headers=BINARY)


@pytest.mark.parametrize("name", ["gray.png", "picture.dcm", "picture.jpg"])
def test_answers_are_the_models(client, model, files, name):
    picture = (files / name).read_bytes()
    answer = send(client, "/answer", picture, sentences=[*SENTENCES, " ", SENTENCES[0]]).json()
    cosines = model.similarity(picture, SENTENCES)[0]
    assert [row["sentence"] for row in answer["sentences"]] == SENTENCES
    np.testing.assert_allclose([row["cosine"] for row in answer["sentences"]], cosines, atol=1e-6)
    powers = np.exp(model.logit_scale * cosines)
    np.testing.assert_allclose(
        [row["share"] for row in answer["sentences"]], powers / powers.sum(), rtol=1e-4
    )
    best = [name for name, _ in model.rank(picture, [*SENTENCES, "a nodule"])[0]]
    assert [row["name"] for row in answer["nearest"]] == best
    seen = PIL.Image.open(io.BytesIO(base64.b64decode(answer["picture"].partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(seen), read_square(picture, 40)[..., 0])


def test_nearest_rows_avoid_words(client, model, index, files):
    picture = (files / "gray.png").read_bytes()
    answers = [
        send(client, "/answer", picture, sentences=["a"], **more).json()["nearest"]
        for more in ({}, {"without": [SENTENCES[0]]})
    ]
    expected = ask(index, model, image=picture, without=[SENTENCES[0]])
    assert [row["name"] for row in answers[1]] == [match.name for match in expected]
    scores = [{row["name"]: row["score"] for row in answer} for answer in answers]
    assert scores[1][SENTENCES[0]] < scores[0][SENTENCES[0]]


class Corner:
    """Embeds a picture as (mean of its upper left quarter, 0) in units of white."""

    def encode_stored_images(self, images):
        half = images.shape[1] // 2
        means = images[:, :half, :half].mean(axis=(1, 2, 3)) / 255
        return np.stack([means, np.zeros_like(means)], axis=1).astype(np.float32)


def test_regions_are_the_loss_of_the_cosine_when_a_window_is_gray():
    """White in 20 x 20 of 40 x 40 pixels: the mean is 64, and a hidden white pixel costs 191 / 255."""
    square = np.zeros((40, 40, 1), np.uint8)
    square[:20, :20] = 255
    found = regions.region_map(Corner().encode_stored_images, square, np.float32([1, 0]))
    assert found.shape == (8, 8)
    loss = 191 / 255 / 400
    # Cell 2 is centred at 12.5 pixels, its window of 14 from 5.5 (even: 6) to 19.5 (20): 14 x 14 pixels.
    assert found[2, 2] == pytest.approx(14 * 14 * loss, abs=1e-5)
    # Cell 0: from -4.5 to 9.5 (even: 10). Cell 3: from 10.5 (10) to 24.5, 10 pixels of them in the corner.
    assert found[0, 3] == pytest.approx(10 * 10 * loss, abs=1e-5)
    assert np.abs(found[5:]).max() == 0
    np.testing.assert_allclose(found, found.T, atol=1e-6)


def test_the_regions_of_a_sentence_are_sent(client, model, files):
    picture = (files / "colour.png").read_bytes()
    answer = send(client, "/regions", picture, sentences=[SENTENCES[1]]).json()
    square = read_square(picture, 40)
    expected = regions.region_map(model.encode_stored_images, square, model.encode_texts(SENTENCES[1])[0])
    np.testing.assert_allclose(answer["regions"], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("content", "status", "sentence"),
    [
        (body(b"no picture", sentences=["a"]), 400, "The picture cannot be read"),
        (body(b"", sentences=["a"]), 400, "`picture` must be a JPEG, PNG or DICOM file"),
        (body(b"x", sentences=[" "]), 400, "`sentences` must be at least one sentence"),
        (body(b"x", sentences="a"), 400, "`sentences` must be a list of strings"),
        (body(b"x", sentences=["a"], without=[1]), 400, "`without` must be a list of strings"),
        (body(b"x", sentences=["a"] * 33), 400, "at most 32 sentences"),
        (body(b"x", sentences=["a" * 501]), 400, "at most 500 characters"),
        (b"{]\nx", 400, "a line of JSON and a picture"),
        (b"[]\nx", 400, "a line of JSON and a picture"),
    ],
)
def test_wrong_questions_get_a_sentence(client, content, status, sentence):
    answer = client.post("/answer", content=content, headers=BINARY)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]


def test_large_requests_are_refused_before_they_are_read(client, monkeypatch):
    monkeypatch.setattr(app, "MAX_BYTES", 1000)
    announced = client.post("/answer", content=b"x" * 1001, headers=BINARY)
    sent = client.post("/answer", content=iter([b"x" * 600, b"x" * 401]), headers=BINARY)
    assert [answer.status_code for answer in (announced, sent)] == [413, 413]
    assert client.post("/answer", content=b"x" * 1000, headers=BINARY).status_code == 400


def test_pages_of_other_sites_cannot_ask(application, client, files):
    """A form or a simple request of another site has another type, and a rebound name another Host."""
    content = body((files / "gray.png").read_bytes(), sentences=["a"])
    assert client.post("/answer", content=content, headers={"Content-Type": "text/plain"}).status_code == 415
    asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    consent = client.options("/answer", headers={**asked, "Access-Control-Request-Headers": "content-type"})
    assert "access-control-allow-origin" not in consent.headers
    assert TestClient(application, base_url="http://example.org").get("/").status_code == 400
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy


_written: list = []
_watching = threading.Event()


def _note_files(event, arguments):
    if event == "open" and _watching.is_set():
        path, mode, flags = arguments
        if (isinstance(mode, str) and set("wax+") & set(mode)) or (isinstance(flags, int) and flags & 3):
            _written.append(path)
    elif event in ("tempfile.mkstemp", "tempfile.mkdtemp") and _watching.is_set():
        _written.append(arguments[0])


def test_no_upload_is_written_to_disk(client):
    """Files that Python opens to write, of a picture of three megabytes, which a form would write."""
    noise, file = np.random.default_rng(0).integers(0, 256, (1800, 1700), np.uint8), io.BytesIO()
    PIL.Image.fromarray(noise).save(file, "PNG")
    sys.addaudithook(_note_files)
    _watching.set()
    try:
        answer = send(client, "/answer", file.getvalue(), sentences=["a"])
        assert send(client, "/regions", file.getvalue(), sentences=["a"]).status_code == 200
    finally:
        _watching.clear()
    assert answer.status_code == 200
    assert len(file.getvalue()) > 2**20
    assert [path for path in _written if path != "/dev/null"] == []


def test_examples_are_drawn_alike_each_time(client):
    first = [client.get(f"/examples/{n}.png").content for n in range(len(app.EXAMPLES))]
    app.example.cache_clear()
    assert [app.example(n) for n in range(len(app.EXAMPLES))] == first
    assert len(set(first)) == len(app.EXAMPLES)
    assert client.get(f"/examples/{len(app.EXAMPLES)}.png").status_code == 404


def test_the_command_binds_to_this_machine_alone(models, monkeypatch, capsys):
    bound = []

    def run(server, sockets):
        bound.extend(one.getsockname()[0] for one in sockets)
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", run)
    asked = ["--model", str(models["workdir"]), "--port"]
    assert __main__.main([*asked, "0"]) == 0
    assert bound == ["127.0.0.1"]
    assert "demo: http://127.0.0.1:" in capsys.readouterr().out
    with __main__.open_socket(0) as taken:
        taken.listen()
        assert __main__.main([*asked, str(taken.getsockname()[1])]) == 1
    assert "`--port` must be a free port" in capsys.readouterr().err


def test_an_index_of_another_model_is_refused(model, tmp_path):
    class Other:
        made_from, encode_texts = {"run": "other"}, model.encode_texts

        def encode_images(self, images):
            return -model.encode_images(images)

    build(Rows.of_sentences(SENTENCES, Other()), tmp_path / "index")
    with pytest.raises(ValueError, match="the model that made the embeddings: run 'other'"):
        app.create_app(model, SearchIndex.open(tmp_path / "index"))


@pytest.fixture(scope="module")
def address(application):
    """The address of a running server."""
    with __main__.open_socket(0) as listening:
        server = uvicorn.Server(uvicorn.Config(application, log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=NO_NETWORK)


@contextlib.contextmanager
def opened(browser, address, refused=(), **options):
    """The page; afterwards nothing but what the server refused went wrong, and no other machine was asked."""
    page, wrong = browser.new_page(**options), []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((address, "data:")) else wrong.append(r.url))
    page.goto(address)
    page.wait_for_selector(f"#examples button:nth-child({len(app.EXAMPLES)})")
    yield page
    assert wrong == list(refused)
    page.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_click_on_a_phantom_shows_scores_regions_and_neighbours(browser, address, model, width, scheme):
    size = {"width": width, "height": 800}
    with opened(browser, address, viewport=size, color_scheme=scheme) as page:
        page.fill("#sentences", "\n".join(SENTENCES))
        page.click("#examples button:nth-child(2)")
        page.wait_for_selector("#rows tr")
        expected = [f"{cosine:.3f}" for cosine in model.similarity(app.example(1), SENTENCES)[0]]
        assert page.locator("#rows td:nth-child(2)").all_inner_texts() == expected
        assert page.locator("#nearest li").count() == 4
        page.click("#rows tr:nth-child(2) button")
        page.wait_for_selector("#map:visible")
        assert SENTENCES[1] in page.inner_text("#caption")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.get_attribute("#rows tr:nth-child(2) button", "aria-pressed") == "true"


def test_a_dropped_file_is_answered_and_a_broken_one_is_explained(browser, address, files, tmp_path):
    shutil.copy(files / "picture.dcm", tmp_path / "<b>own.dcm")
    refused = ["Failed to load resource: the server responded with a status of 400 (Bad Request)"]
    with browser.new_context() as context, opened(context, address, refused) as page:
        page.fill("#sentences", "<img src=x onerror=alert(1)>\n" + SENTENCES[0])
        page.set_input_files("#file", tmp_path / "<b>own.dcm")
        page.wait_for_selector("#rows tr")
        assert page.inner_text("#rows tr:first-child button") == "<img src=x onerror=alert(1)>"
        page.evaluate(
            """async () => {
                const data = new DataTransfer();
                data.items.add(new File(["no picture"], "notes.txt"));
                document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: data}));
            }"""
        )
        page.wait_for_selector("#status.bad")
        assert "The picture cannot be read" in page.inner_text("#status")
        assert page.is_hidden("#answer")
