"""`medclip_keras.load`: one object from a workdir and from its export, on every kind of image."""

import numpy as np
import PIL.Image
import pytest

import medclip_keras
from medclip_keras.evaluation.prompts import shipped_prompts

PROMPTS = {"Edema": ["edema", "swollen lungs"], "Mass": ["a mass"]}


def test_a_picture_has_one_embedding_in_every_form(model, files, pixels):
    gray = files / "gray.png"
    forms = [
        gray,
        str(gray),
        gray.read_bytes(),
        (files / "deep.png"),
        (files / "picture.dcm"),
        (files / "picture.dcm").read_bytes(),
        pixels.gray,
        pixels.gray[..., None],
        pixels.deep,
        PIL.Image.open(gray),
        PIL.Image.open(files / "deep.png"),
        np.repeat(pixels.gray[..., None], 3, axis=2),
    ]
    embeddings = model.encode_images(forms)
    assert embeddings.shape == (len(forms), 16)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, np.repeat(embeddings[:1], len(forms), axis=0), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(model.encode_images(gray), embeddings[:1], atol=1e-6)


def test_a_photograph_on_its_side_has_one_embedding_in_every_form(model, pixels, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 8
    PIL.Image.fromarray(pixels.gray).save(tmp_path / "side.png", exif=exif)
    upright = np.ascontiguousarray(np.rot90(pixels.gray))
    forms = [upright, tmp_path / "side.png", PIL.Image.open(tmp_path / "side.png")]
    embeddings = model.encode_images(forms)
    np.testing.assert_allclose(embeddings, np.repeat(embeddings[:1], 3, axis=0), atol=1e-6)
    assert abs(embeddings[0] - model.encode_images(pixels.gray)[0]).max() > 1e-3


def test_colour_pictures_have_one_embedding_as_file_and_as_pixels(model, files, pixels):
    forms = [files / "colour.png", pixels.colour, PIL.Image.open(files / "colour.png")]
    embeddings = model.encode_images(forms)
    np.testing.assert_allclose(embeddings, np.repeat(embeddings[:1], 3, axis=0), atol=1e-6)
    assert abs(embeddings[0] - model.encode_images(files / "gray.png")[0]).max() > 1e-3


def test_the_export_answers_as_the_workdir(models, model, files):
    exported = medclip_keras.load(models["saved_model"])
    images = sorted(files.iterdir())
    assert len(images) == 5
    for answer in (
        lambda one: one.encode_images(images),
        lambda one: one.encode_texts(["edema", "a mass"]),
        lambda one: one.similarity(images, "edema"),
        lambda one: np.stack(list(one.classify(images, PROMPTS).values())),
    ):
        np.testing.assert_allclose(answer(exported), answer(model), atol=1e-5)
    assert exported.made_from["run"] == model.made_from["run"] == "tiny"


@pytest.mark.parametrize(("mode", "reduce"), [("ensemble", np.mean), ("single", np.max)])
def test_classify_contrasts_the_logits_with_those_of_the_normal_prompts(model, mode, reduce, pixels):
    images = [pixels.gray, pixels.colour]
    normal = reduce(model.similarity(images, shipped_prompts()["No Finding"]), axis=1)
    scores = model.classify(images, PROMPTS, mode=mode)
    assert list(scores) == ["Edema", "Mass"]
    for name, prompts in PROMPTS.items():
        cosines = reduce(model.similarity(images, prompts), axis=1) - normal  # (2,)
        np.testing.assert_allclose(scores[name], cosines * model.logit_scale, atol=1e-5)


def test_given_normal_prompts_replace_the_shipped_ones_and_are_scored_against_all_others(model, pixels):
    scores = model.classify(pixels.gray, {**PROMPTS, "No Finding": ["clear lungs"]})
    edema, swollen, mass, clear = (
        model.logit_scale
        * model.similarity(pixels.gray, [*PROMPTS["Edema"], *PROMPTS["Mass"], "clear lungs"])[0]
    )
    np.testing.assert_allclose(scores["Edema"], [(edema + swollen) / 2 - clear], atol=1e-5)
    np.testing.assert_allclose(scores["Mass"], [mass - clear], atol=1e-5)
    np.testing.assert_allclose(scores["No Finding"], [clear - (edema + swollen + mass) / 3], atol=1e-5)


def test_negative_prompts_of_a_class_are_its_contrast(model, pixels):
    negatives = {"Edema": ["no edema"], "Mass": ["no mass", "no nodule"]}
    scores = model.classify(pixels.gray, PROMPTS, contrast=negatives)
    plain = model.classify(pixels.gray, PROMPTS, contrast="none")
    for name, texts in negatives.items():
        denied = model.logit_scale * model.similarity(pixels.gray, texts).mean()
        np.testing.assert_allclose(scores[name], plain[name] - denied, atol=1e-5)


def test_names_of_findings_take_the_shipped_prompts(model, pixels):
    named = model.classify(pixels.gray, ["Pleural Effusion"])
    written = model.classify(pixels.gray, {"Pleural Effusion": shipped_prompts()["Pleural Effusion"]})
    np.testing.assert_array_equal(named["Pleural Effusion"], written["Pleural Effusion"])


def test_rank_gives_the_nearest_sentences_first(model, pixels):
    texts = ["edema", "a mass", "clear lungs"]
    cosines = model.similarity([pixels.gray, pixels.colour], texts)
    for ranked, row in zip(model.rank([pixels.gray, pixels.colour], texts, k=2), cosines, strict=True):
        nearest = sorted(zip(row, texts, strict=True), reverse=True)[:2]
        assert [text for text, _ in ranked] == [text for _, text in nearest]
        np.testing.assert_allclose([cosine for _, cosine in ranked], [cosine for cosine, _ in nearest])


def test_an_unreadable_image_is_named(model, files, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    bad = [files / "gray.png", tmp_path / "notes.png", b"\x89PNG", str(tmp_path / "missing.png")]
    with pytest.raises(ValueError, match=r"notes\.png' cannot be read: it is not a whole JPEG, PNG or DICOM"):
        model.encode_images(bad)
    embeddings, reasons = model.encode_readable(bad)
    assert embeddings.shape == (1, 16)
    assert reasons[0] == ""
    assert reasons[2].startswith("images[2] cannot be read")
    assert reasons[3].endswith("missing.png' cannot be read: No such file or directory")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda m, p: m.encode_images([]), "`images` must be an image or a sequence"),
        (lambda m, p: m.encode_images(None), "`images` must be an image or a sequence"),
        (lambda m, p: m.encode_images(p.gray.astype(float)), "uint8 or uint16"),
        (lambda m, p: m.encode_images([None]), "NoneType"),
        (lambda m, p: m.encode_texts([3]), "`texts` must be a sentence"),
        (lambda m, p: m.classify(p.gray, ["Plural Effusion"]), "Near names: Pleural Effusion"),
        (lambda m, p: m.classify(p.gray, {}), "at least one class"),
        (lambda m, p: m.classify(p.gray, {"Edema": []}), r"prompts\['Edema'\]"),
        (lambda m, p: m.classify(p.gray, PROMPTS, mode="best"), "single, ensemble"),
        (lambda m, p: m.classify(p.gray, PROMPTS, contrast="both"), "'normal', 'none'"),
        (lambda m, p: m.classify(p.gray, PROMPTS, contrast={"Mass": ["no mass"]}), r"contrast\['Edema'\]"),
        (lambda m, p: m.rank(p.gray, "edema", k=0), "`k` must be at least 1"),
    ],
)  # fmt: skip
def test_wrong_arguments_end_in_a_sentence(model, pixels, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(model, pixels)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"`path` must be a workdir .*, an exported version .* or a server's address"
    ):
        medclip_keras.load(tmp_path)
