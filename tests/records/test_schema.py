import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from medclip_keras.records.schema import encode, image_features, parse_report, report_features

SENTENCES = [
    {"text": "Größe unauffällig.", "section": "findings", "label_states": np.array([0, 2, 1], np.int8)},
    {"text": "", "section": "", "label_states": np.array([3, 0, 0], np.int8)},
]


def record(sentences, **more):
    keys = {"record_key": "a1", "study_id": "b2", "patient_id": "c3", "split": "valid"}
    return {**keys, "label_states": np.array([1, 0, 3], np.int8), "sentences": sentences, **more}


def image_record(sentences):
    image = np.random.default_rng(5).integers(0, 256, (16, 16, 1), np.uint8)
    return record(sentences, view="lateral", image=image)


def assert_same(parsed, row):
    parsed = tfds.as_numpy(parsed)
    assert parsed.keys() == row.keys()
    for name in row.keys() - {"image", "label_states", "sentences"}:
        assert parsed[name].decode() == row[name]
    for name in row.keys() & {"image", "label_states"}:
        assert parsed[name].dtype == row[name].dtype
        np.testing.assert_array_equal(parsed[name], row[name])
    sentences = parsed["sentences"]
    assert sentences["label_states"].dtype == np.int8
    assert sentences["label_states"].shape == (len(row["sentences"]), 3)
    assert [text.decode() for text in sentences["text"]] == [s["text"] for s in row["sentences"]]
    assert [name.decode() for name in sentences["section"]] == [s["section"] for s in row["sentences"]]
    for states, sentence in zip(sentences["label_states"], row["sentences"], strict=True):
        np.testing.assert_array_equal(states, sentence["label_states"])


@pytest.mark.parametrize("sentences", [SENTENCES, SENTENCES[:1], []], ids=["two", "one", "none"])
@pytest.mark.parametrize(
    ("features", "make"), [(image_features(16, 3), image_record), (report_features(3), record)]
)
def test_parse_inverts_encode_which_writes_what_tfds_would_write(features, make, sentences):
    assert_same(features.deserialize_example(encode(features, make(sentences))), make(sentences))
    theirs = tf.train.Example.FromString(features.serialize_example(make(sentences)))
    assert encode(features, make(sentences)) == theirs.SerializeToString(deterministic=True)


@pytest.mark.parametrize("sentences", [SENTENCES, []], ids=["two", "none"])
def test_parse_report_inverts_encode(sentences):
    row = record(sentences)
    parsed = parse_report(encode(report_features(3), row), 3)
    assert parsed.keys() == row.keys()
    assert parsed["label_states"].dtype == np.int8
    np.testing.assert_equal(parsed, row)


def test_encode_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"`label_states` must be of shape \(4,\). Received: \(3,\)"):
        encode(report_features(4), record([]))
    with pytest.raises(ValueError, match=r"`sentences` must be of shape \(3,\)"):
        encode(report_features(3), record([{**SENTENCES[0], "label_states": np.zeros(2, np.int8)}]))
    with pytest.raises(ValueError, match=r"`image` must be of shape \(32, 32, 1\)"):
        encode(image_features(32, 3), image_record([]))
