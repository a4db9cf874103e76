"""The encoders: shapes, padding, pooling, saving, mixed precision."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from medclip_keras.config import ImageEncoderConfig, ModelConfig, TextEncoderConfig
from medclip_keras.models.dual_encoder import DualEncoder
from medclip_keras.models.image_encoder import PUBLISHED, architecture_of, build_backbone, load_preset
from medclip_keras.models.text_encoder import build_backbone as build_text_backbone

TEXT = TextEncoderConfig(num_layers=4, num_heads=2, hidden_dim=16, intermediate_dim=32)


IMAGE = ImageEncoderConfig(backbone="small_resnet", image_size=32, width=8)


def make(image=IMAGE, text=None, local_features=False, **options) -> DualEncoder:
    """A small model; `text` holds what differs from TEXT."""
    keras.utils.set_random_seed(0)
    text = dataclasses.replace(TEXT, **text or {})
    config = ModelConfig(image=image, text=text, projection_dim=12, **options)
    return DualEncoder(config, 40, 10, local_features=local_features).build_towers()


def draw_images(size=32):
    return np.random.default_rng(0).normal(size=(2, size, size, 1)).astype("float32")


def tokens(lengths, width, seed=0):
    ids = np.random.default_rng(seed).integers(1, 40, (len(lengths), width))
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype("int32")
    return (ids * mask).astype("int32"), mask


def test_embeddings_have_unit_length_and_differ():
    model = make()
    images, texts = model.encode_images(draw_images()), model.encode_tokens(*tokens([3, 5, 2, 6], 6))
    for embeddings, number in ((images.numpy(), 2), (texts.numpy(), 4)):
        assert embeddings.shape == (number, 12)
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)
        assert np.abs(embeddings[0] - embeddings[1]).max() > 1e-3


def test_text_embeddings_do_not_depend_on_the_padding_of_the_batch():
    model = make()
    ids, mask = tokens([4, 7], 7)
    wide_ids, wide_mask = (np.pad(x, [(0, 0), (0, 3)]) for x in (ids, mask))
    narrow = model.encode_tokens(ids, mask)
    np.testing.assert_allclose(model.encode_tokens(wide_ids, wide_mask), narrow, atol=1e-6)
    np.testing.assert_allclose(model.encode_tokens(ids[:1, :4], mask[:1, :4]), narrow[:1], atol=1e-6)


def test_padded_mean_depends_on_the_padding_of_the_batch():
    model = make(text={"pooling": "padded_mean"})
    ids, mask = tokens([4], 4)
    wide = model.encode_tokens(np.pad(ids, [(0, 0), (0, 5)]), np.pad(mask, [(0, 0), (0, 5)]))
    assert np.abs(wide - model.encode_tokens(ids, mask)).max() > 1e-3


LAST_FOUR = {"num_layers": 6, "hidden_states": "last_four", "pooling": "max"}


@pytest.mark.parametrize(
    ("text", "num_states", "combine", "pool"), [({}, 3, np.mean, np.mean), (LAST_FOUR, 4, np.sum, np.max)]
)
def test_text_pools_hidden_states_over_word_pieces_without_padding(text, num_states, combine, pool):
    """The mean of states 1, 2 and last of four; the sum of the last four of six, and its maximum."""
    encoder = make(text=text).text_encoder
    ids, mask = tokens([3, 5], 5)
    inputs = {"token_ids": ids, "padding_mask": mask}
    states = encoder.backbone(inputs | {"segment_ids": np.zeros_like(ids)})
    assert len(states) == num_states
    layers = [s.name for s in encoder.backbone.layers if s.name.startswith("transformer_layer")]
    assert layers == [f"transformer_layer_{i}" for i in range(text.get("num_layers", 4))]
    combined = combine([np.asarray(s) for s in states], axis=0)  # (2, 5, 16)
    pooled = np.stack([pool(combined[i, :n], axis=0) for i, n in enumerate([3, 5])])
    expected = pooled @ encoder.projection.kernel.numpy()
    np.testing.assert_allclose(encoder(inputs).embeddings_unnormalized, expected, atol=1e-5)


def test_an_mlp_projection_has_one_hidden_layer_with_a_relu():
    model = make(projection="mlp")
    for encoder, width in ((model.image_encoder, 64), (model.text_encoder, 16)):
        x = np.random.default_rng(1).normal(size=(3, width)).astype("float32")
        hidden = np.maximum(x @ encoder.hidden.kernel.numpy() + encoder.hidden.bias.numpy(), 0)
        assert hidden.shape == (3, width)
        np.testing.assert_allclose(encoder.hidden(x), hidden, atol=1e-5)
    images = draw_images()
    pooled = np.mean(model.image_encoder.backbone(np.repeat(images, 3, axis=-1)), axis=(1, 2))
    expected = model.image_encoder.hidden(pooled).numpy() @ model.image_encoder.projection.kernel.numpy()
    np.testing.assert_allclose(model.image_encoder(images).embeddings_unnormalized, expected, atol=1e-5)


def test_local_features_are_regions_of_the_third_stage_and_words():
    model, images = make(local_features=True), draw_images()
    ids, mask = tokens([4, 6], 6)
    word_ids = np.array([[-1, 0, 0, -1, -1, -1], [-1, 0, 1, 1, 2, -1]], "int32")
    batch = {"images": images, "token_ids": ids, "padding_mask": mask, "word_ids": word_ids}
    said = model(batch)
    backbone = model.image_encoder.backbone
    third = backbone.outputs[1]
    assert third.shape == (None, 2, 2, 32)  # 32 px in sixteenths, four times the width of 8
    places = np.asarray(backbone(np.repeat(images, 3, axis=-1))[1]).reshape(2, 4, 32)
    kernel = model.image_encoder.region_projection.kernel.numpy()
    np.testing.assert_allclose(said["regions"], places @ kernel, atol=1e-5)
    assert said["word_mask"].numpy().tolist() == [[1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]
    assert said["words"].shape == (2, 6, 12)
    assert np.abs(said["words"][1, :3]).min(axis=-1).max() > 0
    assert np.all(said["words"][1, 3:] == 0)
    # The whole embeddings are what they are without the words.
    np.testing.assert_allclose(said["text_embeddings"], model.encode_tokens(ids, mask), atol=1e-6)
    np.testing.assert_allclose(said["image_embeddings"], model.encode_images(images), atol=1e-6)


def test_images_are_enlarged_for_the_backbone():
    model, images = make(dataclasses.replace(IMAGE, image_size=24, upsampled_size=32)), draw_images(24)
    assert model.image_encoder.backbone.input_shape == (None, 32, 32, 3)
    large = tf.image.resize(images, (32, 32), "bilinear")
    np.testing.assert_allclose(model.encode_images(images), make().encode_images(large), atol=1e-6)


def test_frozen_layers_are_the_embeddings_and_the_first_ones():
    model = make(text={"frozen_layers": 3})
    text = [v.path for v in model.text_encoder.trainable_variables]
    assert not [path for path in text if "embedding" in path]
    layers = {part for path in text for part in path.split("/") if part.startswith("transformer_layer")}
    assert layers == {"transformer_layer_3"}
    with pytest.raises(ValueError, match=r"`model.text.frozen_layers` must be at most 4 layers. Received: 5"):
        make(text={"frozen_layers": 5})


def test_bert_computes_the_exact_gelu():
    layer = make().text_encoder.backbone.get_layer("transformer_layer_0")
    x = np.array([1.0, -2.0], "float32")
    exact = [(1 + math.erf(1 / math.sqrt(2))) / 2, -2 * (1 + math.erf(-2 / math.sqrt(2))) / 2]
    np.testing.assert_allclose(layer._feedforward_intermediate_dense.activation(x), exact, rtol=1e-5)


def test_projections_have_no_bias():
    model = make()
    assert not model.image_encoder.projection.use_bias
    assert not model.text_encoder.projection.use_bias


def test_logit_scale_starts_at_its_temperature_and_is_clamped_by_the_optimizer():
    model = make(initial_temperature=0.1, max_logit_scale=20.0)
    np.testing.assert_allclose(model.logit_scale(), 10.0, rtol=1e-6)
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.apply([tf.constant(-5.0)], [model.log_logit_scale])
    np.testing.assert_allclose(model.logit_scale(), 20.0, rtol=1e-6)
    optimizer.apply([tf.constant(2.0)], [model.log_logit_scale])  # and it can come back
    assert float(model.logit_scale()) < 20


@pytest.mark.parametrize("backbone", ["small_resnet", *PUBLISHED])
def test_every_backbone_has_a_feature_map_of_its_width(backbone):
    size = 64 if backbone == "swin_tiny" else 32
    features = build_backbone(ImageEncoderConfig(backbone=backbone, image_size=size, width=8))
    assert features.output.shape[0] is None
    widths = {
        "small_resnet": 64,
        "resnet18": 512,
        "resnet50": 2048,
        "swin_tiny": 768,
        "efficientnet_lite0": 1280,
    }
    assert features.output.shape[-1] == widths[backbone]


def test_an_unknown_backbone_is_refused_with_the_known_ones():
    sentence = r"must be one of small_resnet, resnet18, .* Near names: resnet50, resnet18"
    with pytest.raises(ValueError, match=sentence):
        build_backbone(ImageEncoderConfig(backbone="resnet51"))


def test_presets_load_from_local_folders_and_their_vocabulary_must_fit(tmp_path):
    import keras_hub

    bert = keras_hub.models.BertBackbone(
        vocabulary_size=40,
        num_layers=3,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=16,
    )
    bert.save_to_preset(str(tmp_path / "bert"))
    model = make(text={"preset": str(tmp_path / "bert")})
    np.testing.assert_array_equal(
        model.text_encoder.backbone.get_layer("token_embedding").embeddings,
        bert.get_layer("token_embedding").embeddings,
    )
    config = TextEncoderConfig(preset=str(tmp_path / "bert"))
    with pytest.raises(ValueError, match=r"`model.text.vocabulary` must be the 40 word pieces"):
        build_text_backbone(config, 41, 10)
    with pytest.raises(ValueError, match=r"`data.max_tokens` must be at most the 16 positions .* 17"):
        build_text_backbone(config, 40, 17)


def test_a_backbone_of_an_architecture_file_computes_in_the_precision_of_its_run(tmp_path):
    import keras_hub

    def build():
        sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}
        return keras_hub.models.BertBackbone(vocabulary_size=40, **sizes)

    inputs = keras.Input((32, 32, 3))
    functional = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs))
    for number, backbone in enumerate((build(), functional)):
        file = tmp_path / f"{number}.json"
        file.write_text(architecture_of(backbone))
        try:
            keras.mixed_precision.set_global_policy("mixed_float16")
            loaded = load_preset(keras_hub.models.Backbone, str(file))
        finally:
            keras.mixed_precision.set_global_policy("float32")
        policies = {layer.dtype_policy.name for layer in loaded._flatten_layers() if layer.weights}
        assert policies == {"mixed_float16"}
        assert [tensor.dtype for tensor in loaded.inputs] == [tensor.dtype for tensor in backbone.inputs]


def test_an_image_preset_loads_from_a_local_folder(tmp_path):
    saved = build_backbone(ImageEncoderConfig(backbone="resnet18", image_size=32))
    saved.save_to_preset(str(tmp_path / "resnet"))
    loaded = build_backbone(ImageEncoderConfig(preset=str(tmp_path / "resnet"), image_size=48))
    assert loaded.input.shape == (None, 48, 48, 3)
    for before, after in zip(saved.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(before, after)


def test_weights_survive_saving(tmp_path):
    model, other = make(), make()
    other.set_weights([w + 0.1 for w in other.get_weights()])
    model.save_weights(tmp_path / "x.weights.h5")
    ids, mask = tokens([3, 5], 5)
    expected = model.encode_tokens(ids, mask)
    assert np.abs(other.encode_tokens(ids, mask) - expected).max() > 1e-3
    other.load_weights(tmp_path / "x.weights.h5")
    np.testing.assert_array_equal(other.encode_tokens(ids, mask), expected)


def test_mixed_precision_gives_float32_embeddings_near_those_of_float32():
    images = draw_images()
    exact = make().encode_images(images)
    try:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        rounded = make().encode_images(images)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert rounded.dtype == tf.float32
    np.testing.assert_allclose(rounded, exact, atol=0.05)
    assert np.abs(rounded - exact).max() > 0
