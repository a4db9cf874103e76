import dataclasses
import io
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from medclip_keras.evaluation.prompts import ClassPrompts, finding_prompts, shipped_prompts
from medclip_keras.evaluation.zero_shot import class_scores
from medclip_keras.preprocess.images import decode_to_square
from medclip_keras.serving import signatures
from medclip_keras.serving.embedders import GraphEmbedder, model_embedder, saved_model_embedder
from medclip_keras.serving.signatures import TEXT_ENDPOINTS, TOKEN_ENDPOINTS, Endpoints

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
    found = tiny.endpoints.encode_image(tf.constant([large, files[0], b"", b"no picture"]))
    assert found["decoded"].numpy().tolist() == [False, True, False, False]
    np.testing.assert_allclose(found["image_embeddings"][1], expected, atol=1e-6)
    assert not found["image_embeddings"].numpy()[[0, 2, 3]].any()


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


def similarities(tiny, files, texts):
    images = tiny.endpoints.encode_image(tf.constant(files))["image_embeddings"].numpy()
    return images @ tiny.endpoints.encode_text(tf.constant(texts))["text_embeddings"].numpy().T


def test_zero_shot_scores_the_classes_of_the_run_as_the_evaluation_does(tiny):
    findings, files = tiny.config.evaluation.findings, [png(0), b"no picture", png(1)]
    prompts = ClassPrompts.of({name: shipped_prompts()[name] for name in findings})
    logits = float(tiny.model.logit_scale()) * similarities(tiny, files, list(prompts.texts))
    found = tiny.endpoints.zero_shot(tf.constant(files))
    assert found["classes"].numpy().tolist() == [[name.encode() for name in findings]] * 3
    assert found["decoded"].numpy().tolist() == [True, False, True]
    expected = class_scores(logits, prompts, findings, "ensemble", contrast=False)
    np.testing.assert_allclose(found["scores"].numpy()[[0, 2]], expected[[0, 2]], atol=1e-4)
    assert (found["scores"][1] == tf.float32.min).numpy().all()
    assert np.ptp(expected[0]) > 0.05


def test_zero_shot_of_many_findings_subtracts_the_normal_prompts(tiny, monkeypatch):
    evaluation = dataclasses.replace(
        tiny.config.evaluation,
        task="multi_label",
        findings=("Edema", "No Finding", "Abnormal"),
        num_prompts=2,
    )
    monkeypatch.setattr(tiny.model, "run", dataclasses.replace(tiny.config, evaluation=evaluation))
    found = Endpoints(tiny.model, tiny.tokenizer).zero_shot(tf.constant([png(0)]))["scores"][0]
    texts = [text for name in ("Edema", "No Finding") for text in shipped_prompts()[name][:2]]
    logits = float(tiny.model.logit_scale()) * similarities(tiny, [png(0)], texts)[0]
    edema, normal = logits[:2].mean(), logits[2:].mean()
    np.testing.assert_allclose(found, [edema - normal, normal - edema, edema - normal], atol=1e-4)


def test_zero_shot_subtracts_a_findings_own_denials_where_the_evaluation_does(tiny, monkeypatch):
    findings = ("Edema", "Pleural Effusion")
    changes = {"task": "multi_label", "contrast": "negated", "findings": findings, "num_prompts": 2}
    evaluation = dataclasses.replace(tiny.config.evaluation, **changes)
    monkeypatch.setattr(tiny.model, "run", dataclasses.replace(tiny.config, evaluation=evaluation))
    found = Endpoints(tiny.model, tiny.tokenizer).zero_shot(tf.constant([png(0)]))["scores"]
    prompts = ClassPrompts.of(finding_prompts(evaluation))
    logits = float(tiny.model.logit_scale()) * similarities(tiny, [png(0)], list(prompts.texts))
    expected = class_scores(logits, prompts, findings, "ensemble", negated=True)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    normal = class_scores(logits, prompts, findings, "ensemble")
    assert np.abs(expected - normal).max() > 1e-2


def test_own_prompts_and_sentences_are_baked_in(tiny):
    prompts = {"wet": ["edema", "wet lung"], "large": ["heart"]}
    endpoints = Endpoints(tiny.model, tiny.tokenizer, prompts=prompts, sentences=TEXTS).untraced()
    cosines = similarities(tiny, [png(0)], ["edema", "wet lung", "heart"])[0]
    expected = float(tiny.model.logit_scale()) * np.array([cosines[:2].mean(), cosines[2]])
    found = endpoints.zero_shot(tf.constant([png(0)]))
    assert found["classes"].numpy().tolist() == [[b"wet", b"large"]]
    np.testing.assert_allclose(found["scores"][0], expected, atol=1e-4)
    nearest = endpoints.retrieve(tf.constant([png(0)]))
    assert sorted(nearest["sentences"].numpy()[0]) == sorted(text.encode() for text in TEXTS)
    with pytest.raises(ValueError, match=r"`sentences` must be a list of 1 to 10,000 sentences. Received: 0"):
        Endpoints(tiny.model, tiny.tokenizer, sentences=[])


def test_prompts_are_aggregated_by_class_and_a_class_without_one_never_wins(tiny):
    files, classes = [png(0), png(1), b"no picture"], tf.constant([[2, 0, 2], [0, 0, 0], [1, 1, 1]])
    prompts = [TEXTS, TEXTS[::-1], TEXTS]
    found = tiny.endpoints.zero_shot_prompts(tf.constant(files), tf.constant(prompts), classes)
    logits = float(tiny.model.logit_scale()) * similarities(tiny, files, TEXTS)  # (3 images, 3 prompts)
    for name, aggregate in (("logits_single", np.max), ("logits_ensemble", np.mean)):
        values, least = found[name].numpy(), np.finfo(np.float32).min
        expected = [logits[0, 1], least, aggregate(logits[0, [0, 2]])]
        np.testing.assert_allclose(values[0], expected, atol=1e-4)
        np.testing.assert_allclose(values[1], [aggregate(logits[1]), least, least], atol=1e-4)
        assert (values[2] == least).all()


def test_similarity_compares_each_image_with_its_own_texts(tiny):
    files, texts = [png(0), png(1)], [TEXTS, [TEXTS[2], "", TEXTS[2]]]
    found = tiny.endpoints.similarity(tf.constant(files), tf.constant(texts))["similarities"].numpy()
    cosines = similarities(tiny, files, [*TEXTS, ""])
    np.testing.assert_allclose(found, [cosines[0, :3], cosines[1, [2, 3, 2]]], atol=1e-6)


def test_more_distinct_texts_than_are_embedded_at_once(tiny, monkeypatch):
    monkeypatch.setattr(signatures, "TEXTS_AT_ONCE", 3)
    texts = [f"{a} {b}" for a in "abc" for b in "xyzw"][:10]  # in chunks of 3, 3, 3 and 1
    found = Endpoints(tiny.model, tiny.tokenizer).similarity(tf.constant([png(0)]), tf.constant([texts]))
    np.testing.assert_allclose(found["similarities"], similarities(tiny, [png(0)], texts), atol=1e-6)


def test_two_users_requests_joined_by_a_server_are_answered_as_alone(tiny):
    rows = {
        "encode_image": {"image_bytes": [png(0), b"no picture", png(2)]},
        "encode_text": {"texts": TEXTS},
        "zero_shot": {"image_bytes": [png(0), b"no picture", png(2)]},
        "zero_shot_prompts": {
            "image_bytes": [png(0), b"no picture", png(2)],
            "prompts": [["edema", "wet lung"], ["heart", "lung"], ["no edema", "edema"]],
            "prompt_class": [[0, 1], [1, 1], [1, 1]],
        },
        "similarity": {
            "image_bytes": [png(0), b"no picture", png(2)],
            "texts": [["edema"], ["lung"], ["heart is wet"]],
        },
        "retrieve": {"image_bytes": [png(0), b"no picture", png(2)]},
    }
    for endpoint, request in rows.items():
        function = getattr(tiny.endpoints, endpoint)
        joined = function(**{name: tf.constant(value) for name, value in request.items()})
        for user in (slice(0, 1), slice(1, 3)):
            alone = function(**{name: tf.constant(value[user]) for name, value in request.items()})
            for output, values in alone.items():
                if values.dtype == tf.float32:
                    np.testing.assert_allclose(joined[output][user], values, atol=2e-5, err_msg=output)
                else:
                    np.testing.assert_array_equal(joined[output][user], values, err_msg=output)


def test_texts_beside_images_do_not_see_each_other_with_padded_mean(tiny, monkeypatch):
    text = dataclasses.replace(tiny.config.model.text, pooling="padded_mean")
    model = dataclasses.replace(tiny.config.model, text=text)
    monkeypatch.setattr(tiny.model, "run", dataclasses.replace(tiny.config, model=model))
    monkeypatch.setattr(tiny.model.text_encoder, "pooling", "padded_mean")
    endpoints, texts = Endpoints(tiny.model, tiny.tokenizer), ["lung", "heart edema lung heart edema"]
    together = endpoints.similarity(tf.constant([png(0)]), tf.constant([texts]))["similarities"][0]
    alone = [
        endpoints.similarity(tf.constant([png(0)]), tf.constant([[t]]))["similarities"][0, 0] for t in texts
    ]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_retrieve_returns_the_nearest_sentences(tiny):
    sentences = [text for texts in shipped_prompts().values() for text in texts]
    cosines = similarities(tiny, [png(0)], sentences[:200])[0]
    cosines = np.concatenate([cosines, similarities(tiny, [png(0)], sentences[200:])[0]])
    found = tiny.endpoints.retrieve(tf.constant([png(0), b"no picture"]))
    np.testing.assert_allclose(found["similarities"][0], np.sort(cosines)[::-1][:10], atol=1e-5)
    for position, sentence, cosine in zip(
        *(found[n][0].numpy() for n in ("positions", "sentences", "similarities")), strict=True
    ):
        assert sentence.decode() == sentences[position]
        assert cosine == pytest.approx(cosines[position], abs=1e-5)
    assert (found["similarities"][1] == tf.float32.min).numpy().all()
    embedding = 7 * tiny.endpoints.encode_image(tf.constant([png(0)]))["image_embeddings"]  # of any length
    by_embedding = tiny.endpoints.retrieve_embeddings(embedding)
    np.testing.assert_allclose(by_embedding["similarities"], found["similarities"][:1], atol=1e-5)


def test_pixels_equal_the_record_that_has_the_encoders_size(tiny):
    stored = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 1), np.uint8)
    seen = tf.image.resize(stored, (32, 32), method="bicubic", antialias=True)
    found = tiny.endpoints.encode_pixels(tf.clip_by_value(seen, 0.0, 255.0))
    for name, values in tiny.endpoints.encode_stored_images(stored).items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)


def test_an_empty_batch_has_an_empty_answer(tiny):
    for name, function in tiny.endpoints.functions().items():
        specs = function.input_signature
        request = [tf.zeros([0, *(n or 2 for n in spec.shape[1:])], spec.dtype) for spec in specs]
        for output, values in function(*request).items():
            assert values.shape[0] == 0, (name, output)


def test_saved_model_has_the_documented_endpoints_and_defaults_to_images(saved_model):
    loaded = tf.saved_model.load(str(saved_model)).signatures
    described = {
        name: (
            {k: (s.dtype.name, s.shape.rank) for k, s in f.structured_input_signature[1].items()},
            sorted(f.structured_outputs),
        )
        for name, f in loaded.items()
    }
    images, bytes_ = ["decoded", "image_embeddings"], {"image_bytes": ("string", 1)}
    tokens = {"token_ids": ("int32", 2), "padding_mask": ("int32", 2)}
    prompts = {"prompts": ("string", 2), "prompt_class": ("int32", 2)}
    towers, ranked = ["image_embeddings", "image_features"], ["positions", "sentences", "similarities"]
    documented = {
        "serving_default": (bytes_, images),
        "encode_image": (bytes_, images),
        "encode_text": ({"texts": ("string", 1)}, ["text_embeddings"]),
        "encode_tokens": (tokens, ["text_embeddings"]),
        "encode_stored_images": ({"stored_images": ("uint8", 4)}, towers),
        "encode_pixels": ({"pixels": ("float32", 4)}, towers),
        "zero_shot": (bytes_, ["classes", "decoded", "scores"]),
        "zero_shot_prompts": (bytes_ | prompts, ["decoded", "logits_ensemble", "logits_single"]),
        "similarity": (bytes_ | {"texts": ("string", 2)}, ["decoded", "similarities"]),
        "retrieve": (bytes_, ["decoded", *ranked]),
        "retrieve_embeddings": ({"embeddings": ("float32", 2)}, ranked),
    }
    assert {name: described[name] for name in documented} == documented
    rows = re.findall(r"^\| (\w+)(?: \(serving_default\))? \|", signatures.__doc__, re.MULTILINE)
    assert set(rows) - {"endpoint"} == set(described) - {"serving_default"}


def test_tokens_only_has_the_endpoints_without_text_operations(tokens_only):
    found = tf.saved_model.load(str(tokens_only)).signatures
    assert {"serving_default", *TOKEN_ENDPOINTS} <= set(found)
    assert not set(TEXT_ENDPOINTS) & set(found)


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


def test_a_version_without_text_operations_embeds_texts_equally(tiny, tokens_only):
    loaded, config, _ = saved_model_embedder(tokens_only)
    here = model_embedder(tiny.model, tiny.tokenizer)
    np.testing.assert_allclose(loaded.embed_texts(TEXTS), here.embed_texts(TEXTS), atol=1e-6)
    assert config == tiny.config


def test_a_folder_without_saved_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`saved_model` must be a version's folder.*saved_model.pb"):
        saved_model_embedder(tmp_path)
