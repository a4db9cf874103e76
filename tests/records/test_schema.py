import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from medclip_keras.records import schema
from medclip_keras.records.schema import encode, image_features, parse_batch, parse_report, report_features

SENTENCES = [
    {"text": "Größe unauffällig.", "section": "findings", "label_states": np.array([0, 2, 1], np.int8)},
    {"text": "", "section": "", "label_states": np.array([3, 0, 0], np.int8)},
]


def record(sentences, **more):
    keys = {"record_key": "a1", "study_id": "b2", "patient_id": "c3", "split": "valid"}
    return {**keys, "label_states": np.array([1, 0, 3], np.int8), "sentences": sentences, **more}


def image_record(sentences):
    image = np.random.default_rng(5).integers(0, 256, (16, 16, 1), np.uint8)
    told = {"view": "lateral", "view_position": "LATERAL", "sex": "F", "age": 63}
    return record(sentences, **told, image=image)


def assert_same(parsed, row):
    parsed = tfds.as_numpy(parsed)
    assert parsed.keys() == row.keys()
    for name in row.keys() - {"image", "label_states", "sentences", "age"}:
        assert parsed[name].decode() == row[name]
    assert parsed.get("age") == row.get("age")
    for name in row.keys() & {"image", "label_states"}:
        assert parsed[name].dtype == row[name].dtype
        np.testing.assert_array_equal(parsed[name], row[name])
    sentences = parsed["sentences"]
    assert sentences["label_states"].dtype == np.int8
    # TFDS gives (0,) for no compressed vectors.
    assert sentences["label_states"].reshape(-1, 3).shape == (len(row["sentences"]), 3)
    assert [text.decode() for text in sentences["text"]] == [s["text"] for s in row["sentences"]]
    assert [name.decode() for name in sentences["section"]] == [s["section"] for s in row["sentences"]]
    for states, sentence in zip(sentences["label_states"], row["sentences"], strict=True):
        np.testing.assert_array_equal(states, sentence["label_states"])


@pytest.fixture(params=[512, 2], ids=["numbers", "compressed"])
def wide(request, monkeypatch):
    """Label vectors of three concepts as numbers, and compressed as those of a wide table."""
    monkeypatch.setattr(schema, "WIDE", request.param)


@pytest.mark.parametrize("sentences", [SENTENCES, SENTENCES[:1], []], ids=["two", "one", "none"])
@pytest.mark.parametrize(
    ("make_features", "make"),
    [(lambda: image_features(16, 3), image_record), (lambda: report_features(3), record)],
)
@pytest.mark.usefixtures("wide")
def test_parse_inverts_encode_which_writes_what_tfds_would_write(make_features, make, sentences):
    features = make_features()
    assert_same(features.deserialize_example(encode(features, make(sentences))), make(sentences))
    theirs = tf.train.Example.FromString(features.serialize_example(make(sentences)))
    assert encode(features, make(sentences)) == theirs.SerializeToString(deterministic=True)


@pytest.mark.parametrize("sentences", [SENTENCES, []], ids=["two", "none"])
@pytest.mark.usefixtures("wide")
def test_parse_report_inverts_encode(sentences):
    row = record(sentences)
    parsed = parse_report(encode(report_features(3), row), 3)
    assert parsed.keys() == row.keys()
    assert parsed["label_states"].dtype == np.int8
    np.testing.assert_equal(parsed, row)


@pytest.mark.usefixtures("wide")
def test_a_batch_is_parsed_in_the_graph():
    features, rows = report_features(3), [record(SENTENCES), record([]), record(SENTENCES[1:])]
    batch = parse_batch(features, [encode(features, row) for row in rows], ("label_states", "sentences"))
    np.testing.assert_array_equal(batch["label_states"], [[1, 0, 3]] * 3)
    np.testing.assert_array_equal(
        batch["sentences"]["label_states"].values, [[0, 2, 1], [3, 0, 0], [3, 0, 0]]
    )
    assert batch["sentences"]["label_states"].row_lengths().numpy().tolist() == [2, 0, 1]
    empty = parse_batch(features, [encode(features, record([]))], ("sentences",))
    assert empty["sentences"]["label_states"].values.shape == (0, 3)


def test_a_wide_table_takes_few_bytes():
    states = np.zeros(10_000, np.int8)
    states[[7, 5000]] = 1
    row = record([{"text": "a", "section": "b", "label_states": states}] * 8) | {"label_states": states}
    assert len(encode(report_features(10_000), row)) < 10_000 / 10


def test_encode_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"`label_states` must be of shape \(4,\). Received: \(3,\)"):
        encode(report_features(4), record([]))
    with pytest.raises(ValueError, match=r"`sentences` must be of shape \(3,\)"):
        encode(report_features(3), record([{**SENTENCES[0], "label_states": np.zeros(2, np.int8)}]))
    with pytest.raises(ValueError, match=r"`image` must be of shape \(32, 32, 1\)"):
        encode(image_features(32, 3), image_record([]))


def test_records_of_earlier_versions_tell_no_view_position_sex_or_age():
    """Of an image record with these fields and one without, in one batch."""
    features, row = image_features(16, 3), image_record([])
    old = tf.train.Example.FromString(encode(features, row))
    for name in schema.OPTIONAL:
        del old.features.feature[name]
    records = [encode(features, row), old.SerializeToString()]
    batch = parse_batch(features, records, ("record_key", *schema.OPTIONAL))
    found = {name: values.numpy().tolist() for name, values in batch.items()}
    assert found["view_position"] == [b"LATERAL", b""]
    assert (found["sex"], found["age"]) == ([b"F", b""], [63, -1])


def test_a_record_may_leave_them_out():
    features, row = image_features(16, 3), image_record([])
    known = {name: value for name, value in row.items() if name not in schema.OPTIONAL}
    assert_same(features.deserialize_example(encode(features, known)), {**known, **schema.OPTIONAL})
