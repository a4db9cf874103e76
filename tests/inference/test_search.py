"""`medclip_keras.search`: indexes, their recall, composed queries, and the command line."""

import json

import numpy as np
import pytest

import medclip_keras
from beam_jobs import embed_images
from medclip_keras.embeddings import ModelProbe
from medclip_keras.search import SearchIndex, __main__, ask, compose, index
from medclip_keras.search.index import Rows, build

SENTENCES = ["edema is seen", "the heart is large", "no effusion", "a nodule"]


class Fixed:
    """A model whose embeddings are rows of the identity: images by number, texts by their last letter."""

    def __init__(self, dim=4, run="fixed"):
        self.made_from, self._dim = {"run": run}, dim

    def encode_images(self, images):
        first = [image if isinstance(image, int) else 0 for image in images]
        return np.eye(self._dim, dtype=np.float32)[first[:1] if isinstance(images, np.ndarray) else first]

    def encode_texts(self, texts):
        texts = [texts] if isinstance(texts, str) else texts
        return np.eye(self._dim, dtype=np.float32)[[ord(text[-1]) % self._dim for text in texts]]


def clustered(num_rows, dim=32, seed=0):
    """Unit vectors around 40 centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, dim))
    drawn = centres[rng.integers(40, size=num_rows)] + 0.7 * rng.standard_normal((num_rows, dim))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def rows_of(vectors, model=None, part=1000):
    """Named rows, in parts of uneven sizes."""
    cuts = range(0, len(vectors), part)
    parts = [
        ({"path": [f"{n}.png" for n in range(i, min(i + part, len(vectors)))]}, vectors[i : i + part])
        for i in cuts
    ]
    probe = ModelProbe.of(model or Fixed())
    return Rows(lambda: iter(parts), len(vectors), vectors.shape[1], "path", probe, {})


@pytest.fixture(scope="module")
def embeddings(models, files, tmp_path_factory):
    """The embeddings of the five pictures by the workdir's model."""
    output = tmp_path_factory.mktemp("embeddings") / "five"
    embed_images.run(model=str(models["workdir"]), input=str(files), output=str(output))
    return output


def names(matches):
    return [match.name for match in matches]


def test_a_small_index_is_exact(tmp_path):
    vectors = clustered(2500)
    manifest = build(rows_of(vectors), tmp_path / "index")
    assert (manifest.method, manifest.groups_read, manifest.num_rows) == ("Flat", 0, 2500)
    found = SearchIndex.open(tmp_path / "index").search(vectors[[7, 1999]], k=4)
    cosines = vectors[[7, 1999]] @ vectors.T
    for matches, row in zip(found, cosines, strict=True):
        assert names(matches) == [f"{n}.png" for n in np.argsort(-row)[:4]]
        np.testing.assert_allclose([match.score for match in matches], np.sort(row)[:-5:-1], atol=1e-6)


def test_a_large_index_finds_the_exact_answers_of_new_queries(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "EXACT_ROWS", 2000)
    vectors, queries = clustered(5000), clustered(60, seed=1)
    manifest = build(rows_of(vectors), tmp_path / "index")
    assert manifest.method == "IVF128,SQ8"  # 2 sqrt(5000) = 141, the nearest power of two
    assert min(manifest.recall.values()) >= index.TARGET_RECALL
    opened = SearchIndex.open(tmp_path / "index")
    exact = np.argsort(-queries @ vectors.T, axis=1)[:, :10]
    expected = [{f"{n}.png" for n in row} for row in exact]
    hits = [len(set(names(m)) & e) for m, e in zip(opened.search(queries), expected, strict=True)]
    assert np.mean(hits) / 10 >= 0.95
    scores = [[match.score for match in matches] for matches in opened.search(queries)]
    np.testing.assert_allclose(scores, -np.sort(-queries @ vectors.T, axis=1)[:, :10], atol=0.02)


def test_as_many_groups_are_read_as_the_recall_needs(monkeypatch):
    """Uniform vectors have no groups: nearly all must be read; few are enough for clustered ones."""
    monkeypatch.setattr(index, "EXACT_ROWS", 2000)
    uniform = np.random.default_rng(0).standard_normal((5000, 32)).astype(np.float32)
    uniform /= np.linalg.norm(uniform, axis=1, keepdims=True)
    read = []
    for vectors in (clustered(5000), uniform):
        rows = rows_of(vectors)
        trained, _ = index.train_index(rows)
        for _, part in rows.parts():
            trained.add(part)
        index.set_groups_read(trained, rows)
        read.append(trained.nprobe)
    assert read[0] < read[1] <= 128


def test_take_and_nearest_rows_agree_with_one_array():
    vectors = clustered(2300)
    rows, wanted = rows_of(vectors), np.array([2299, 5, 1000, 5, 999])
    np.testing.assert_array_equal(index.take(rows, wanted), vectors[wanted])
    queries = clustered(9, seed=2)
    np.testing.assert_array_equal(
        index.nearest_rows(rows, queries, 3), np.argsort(-queries @ vectors.T, axis=1)[:, :3]
    )


def test_composed_rank_is_that_of_the_weighted_sum_of_cosines():
    rng, rows = np.random.default_rng(5), clustered(300)
    images, texts, without = (clustered(n, seed=n) for n in (2, 3, 1))
    b, c = rng.uniform(0.3, 2, 2)
    query = compose(images, texts, without, text_weight=b, without_weight=c)
    parts = [(rows @ one.T).mean(axis=1) for one in (images, texts, without)]
    expected = parts[0] + b * parts[1] - c * parts[2]
    np.testing.assert_array_equal(np.argsort(-rows @ query), np.argsort(-expected))
    assert abs(np.linalg.norm(query) - 1) < 1e-6
    np.testing.assert_allclose(compose(texts=texts[:1], text_weight=0.1), texts[0], atol=1e-6)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({}, "`query` must be an image or a text to be near to"),
        ({"without": np.eye(2)[:1]}, "`query` must be an image or a text to be near to"),
        ({"texts": np.eye(2)[:1], "text_weight": -1}, "`text_weight` must be a finite number, at least 0"),
        ({"images": np.eye(2)[:1], "without": np.eye(2)[:1]}, "parts that do not cancel out"),
    ],
)
def test_queries_without_a_direction_are_refused(parts, sentence):
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        compose(**parts)


def test_ask_joins_a_picture_with_words(tmp_path):
    """Rows e0, .8 e0 + .6 e1 and .7 e0 + .71 e2, a picture e0, and words e1 and e2."""
    vectors = np.float32([[1, 0, 0, 0], [0.8, 0.6, 0, 0], [0.7, 0, 0.51**0.5, 0]])
    build(rows_of(vectors), tmp_path / "index")
    opened, model = SearchIndex.open(tmp_path / "index"), Fixed()
    words = {n: chr(ord("d") + n) for n in range(4)}  # "d" is 0 modulo 4
    assert names(ask(opened, model, image=0)) == ["0.png", "1.png", "2.png"]
    assert names(ask(opened, model, image=0, without=[words[1]])) == ["0.png", "2.png", "1.png"]
    assert names(ask(opened, model, image=0, texts=[words[2]], without=[words[1]], k=1)) == ["2.png"]
    assert names(ask(opened, model, image=0, texts=[words[2]], text_weight=0)) == ["0.png", "1.png", "2.png"]


def test_another_model_is_refused_and_an_export_is_not(embeddings, models, model, files, tmp_path):
    build(Rows.of_folder(embeddings), tmp_path / "index")
    opened = SearchIndex.open(tmp_path / "index")
    exported = medclip_keras.load(models["saved_model"])
    assert names(ask(opened, exported, image=files / "gray.png", k=1)) in (
        [str(files / "gray.png")],
        [str(files / "deep.png")],  # the same pixels
        [str(files / "picture.dcm")],
    )
    for other in (Fixed(4), Fixed(16, run="other")):
        with pytest.raises(ValueError, match="the model that made the embeddings: run 'tiny'"):
            ask(opened, other, texts=["edema"])
    nearly = np.float32(opened._probe.text)
    nearly[3] += 0.01
    changed = ModelProbe("tiny", opened._probe.image, tuple(nearly.tolist()))
    with pytest.raises(ValueError, match="Embed the images again"):
        opened._probe.require_same(changed)


def test_the_command_line_builds_and_queries(embeddings, models, files, tmp_path, capsys):
    place = str(tmp_path / "index")
    assert __main__.main(["build", "--embeddings", str(embeddings), "--output", place]) == 0
    assert "5 rows, Flat" in capsys.readouterr().out
    asked = ["query", "--index", place, "--model", str(models["workdir"]), "-k", "2"]
    assert __main__.main([*asked, "--image", str(files / "colour.png"), "--json"]) == 0
    first, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["path"] == str(files / "colour.png")
    assert first["score"] == pytest.approx(1, abs=1e-3)
    assert __main__.main([*asked, "--text", SENTENCES[0], "--without", SENTENCES[1]]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert __main__.main([*asked, "--without", SENTENCES[1]]) == 1
    assert "Add --text or --image" in capsys.readouterr().err


def test_sentences_are_indexed_once_each(models, model, tmp_path, capsys):
    (tmp_path / "sentences.txt").write_text("\n".join([*SENTENCES, "", SENTENCES[0]]) + "\n")
    named = ["--sentences", str(tmp_path / "sentences.txt"), "--output", str(tmp_path / "index")]
    assert __main__.main(["build", *named, "--model", str(models["workdir"])]) == 0
    opened = SearchIndex.open(tmp_path / "index")
    assert (len(opened), opened.manifest.key) == (4, "sentence")
    assert names(ask(opened, model, texts=[SENTENCES[2]], k=1)) == [SENTENCES[2]]


def test_incomplete_indexes_and_outputs_of_others_are_refused(tmp_path):
    place = tmp_path / "index"
    build(rows_of(clustered(20)), place)
    build(rows_of(clustered(30)), place)  # an older index is replaced
    assert len(SearchIndex.open(place)) == 30
    (place / "names.arrow").write_bytes(b"")
    with pytest.raises(ValueError, match=r"complete.*names\.arrow of 0 bytes"):
        SearchIndex.open(place)
    with pytest.raises(ValueError, match=r"that python -m medclip_keras\.search build wrote"):
        SearchIndex.open(tmp_path)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="an older index"):
        build(rows_of(clustered(20)), place)
    with pytest.raises(ValueError, match=r"finite, of shape \(num_queries, 32\)"):
        SearchIndex(
            None, None, index.IndexManifest("Flat", 0, {}, {}, "path", 32, 1, vars(ModelProbe("", (), ())))
        ).search(np.full((1, 32), np.nan))
