import io
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from medclip_keras.preprocess.images import decode_to_square
from medclip_keras.serving.embedders import GraphEmbedder, model_embedder, saved_model_embedder
from medclip_keras.serving.signatures import TOKEN_ENDPOINTS

TEXTS = ["Edema.", "The heart is large and the lung is wet, wet, wet.", "Lung"]


def png(seed, shape=(50, 37)):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_image_file_and_its_record_have_equal_embeddings(tiny):
    files = [png(0), png(1, (20, 64)), png(2, (33, 33, 3))]
    stored = tf.stack([decode_to_square(tf.constant(file), 40) for file in files])
    of_files = tiny.endpoints.encode_image(tf.constant(files))["image_embeddings"]
    of_records = tiny.endpoints.encode_stored_images(stored)["image_embeddings"]
    np.testing.assert_allclose(of_files, of_records, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(of_files, axis=1), 1, atol=1e-5)
    assert np.abs(np.diff(of_files, axis=0)).max() > 1e-3


def test_image_bytes_are_turned_and_bounded_as_in_records(tiny):
    exif = Image.Exif()
    exif[0x0112] = 5
    pixels = np.random.default_rng(0).integers(0, 256, (50, 37), np.uint8)
    stored, upright = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).save(stored, "PNG", exif=exif)
    Image.fromarray(np.ascontiguousarray(pixels.T)).save(upright, "PNG")
    files = [stored.getvalue(), upright.getvalue()]
    turned, expected = tiny.endpoints.encode_image(tf.constant(files))["image_embeddings"]
    np.testing.assert_allclose(turned, expected, atol=1e-6)
    large = files[1][:16] + (23000).to_bytes(4) * 2 + files[1][24:]
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 67,108,864 pixels"):
        tiny.endpoints.encode_image(tf.constant([files[0], large]))


def test_projected_features_are_the_image_embeddings(tiny):
    stored = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 1), np.uint8)
    embedder = model_embedder(tiny.model, tiny.tokenizer)
    features = embedder.embed_features(stored)
    assert features.shape == (3, 64)  # the last stage of a small_resnet of width 8
    projected = features @ tiny.model.image_encoder.projection.kernel.numpy()
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    np.testing.assert_allclose(projected, embedder.embed_images(stored), atol=1e-6)


def test_a_saved_model_without_features_is_refused():
    old = GraphEmbedder(
        {"encode_stored_images": lambda stored_images: {"image_embeddings": stored_images}}, 1.0, None
    )
    with pytest.raises(ValueError, match=r"`saved_model` must be a version whose .* Export the run again"):
        old.embed_features(np.zeros((1, 40, 40, 1), np.uint8))


def test_one_by_one_equals_batched(tiny):
    files = [png(0), png(1, (20, 64))]
    batched = tiny.endpoints.encode_image(tf.constant(files))["image_embeddings"]
    single = [tiny.endpoints.encode_image(tf.constant([f]))["image_embeddings"][0] for f in files]
    np.testing.assert_allclose(batched, single, atol=1e-6)


def test_tokens_without_their_padding_equal_the_text(tiny):
    of_text = tiny.endpoints.encode_text(tf.constant(TEXTS))["text_embeddings"]
    tokens = tiny.tokenizer(tf.constant(TEXTS))
    length = int(tf.reduce_sum(tokens["padding_mask"][0]))
    assert length < 16
    alone = tiny.endpoints.encode_tokens(
        token_ids=tokens["token_ids"][:1, :length], padding_mask=tokens["padding_mask"][:1, :length]
    )
    np.testing.assert_allclose(alone["text_embeddings"], of_text[:1], atol=1e-6)


def test_zero_shot_aggregates_the_prompts_of_each_class(tiny):
    files, classes = tf.constant([png(0), png(1), png(2)]), tf.constant([1, 0, 1])
    found = tiny.endpoints.zero_shot(files, tf.constant(TEXTS), classes)
    images = tiny.endpoints.encode_image(files)["image_embeddings"].numpy()
    texts = tiny.endpoints.encode_text(tf.constant(TEXTS))["text_embeddings"].numpy()
    logits = float(tiny.model.logit_scale()) * images @ texts.T  # (3 images, 3 prompts)
    ones, zeros = logits[:, [0, 2]], logits[:, 1]
    np.testing.assert_allclose(found["logits_single"], np.stack([zeros, ones.max(axis=1)], axis=1), atol=1e-4)
    np.testing.assert_allclose(
        found["logits_ensemble"], np.stack([zeros, ones.mean(axis=1)], axis=1), atol=1e-4
    )


def test_saved_model_has_the_documented_endpoints_and_defaults_to_images(saved_model):
    signatures = tf.saved_model.load(str(saved_model)).signatures
    described = {
        name: (
            {k: (s.dtype.name, s.shape.rank) for k, s in f.structured_input_signature[1].items()},
            sorted(f.structured_outputs),
        )
        for name, f in signatures.items()
    }
    images = ({"image_bytes": ("string", 1)}, ["image_embeddings"])
    tokens = {"token_ids": ("int32", 2), "padding_mask": ("int32", 2)}
    prompts = {"image_bytes": ("string", 1), "prompts": ("string", 1), "prompt_class": ("int32", 1)}
    assert described == {
        "serving_default": images,
        "encode_image": images,
        "encode_text": ({"texts": ("string", 1)}, ["text_embeddings"]),
        "encode_tokens": (tokens, ["text_embeddings"]),
        "zero_shot": (prompts, ["logits_ensemble", "logits_single"]),
        "encode_stored_images": ({"stored_images": ("uint8", 4)}, ["image_embeddings", "image_features"]),
    }


def test_tokens_only_has_the_endpoints_without_text_operations(tokens_only):
    signatures = tf.saved_model.load(str(tokens_only)).signatures
    assert set(signatures) == {"serving_default", *TOKEN_ENDPOINTS}


def test_saved_model_and_model_embed_equally(tiny, saved_model):
    here = model_embedder(tiny.model, tiny.tokenizer)
    loaded, config, table = saved_model_embedder(saved_model)
    stored = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 1), np.uint8)
    np.testing.assert_allclose(loaded.embed_images(stored), here.embed_images(stored), atol=1e-6)
    np.testing.assert_allclose(loaded.embed_features(stored), here.embed_features(stored), atol=1e-6)
    np.testing.assert_allclose(loaded.embed_texts(TEXTS), here.embed_texts(TEXTS), atol=1e-6)
    assert loaded.logit_scale == pytest.approx(1 / 0.07)
    assert config == tiny.config
    assert table.fingerprint == tiny.table.fingerprint


def test_a_version_without_text_endpoints_is_refused_with_the_folder_to_name(tokens_only, saved_model):
    advice = f"Name the same version outside of tokens_only/: {saved_model}."
    with pytest.raises(ValueError, match=f"`saved_model` must be a version with every .*{re.escape(advice)}"):
        saved_model_embedder(tokens_only)


def test_a_folder_without_saved_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`saved_model` must be a version's folder.*saved_model.pb"):
        saved_model_embedder(tmp_path)
