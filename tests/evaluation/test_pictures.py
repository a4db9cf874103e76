"""Strips of pictures: the nearest images, frames, overlays; and none of real images unasked."""

import base64
import io

import numpy as np
import PIL.Image
import pytest

from medclip_keras.evaluation.pictures import SIDE, nearest, overlay, pictures_section, png_url
from medclip_keras.evaluation.report import write


def pixels_of(url):
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


@pytest.fixture(scope="module")
def section(measured):
    """The oracle's strips; an image's gray is its row."""

    def read(rows):
        return np.broadcast_to(rows.astype(np.uint8)[:, None, None, None], (len(rows), 8, 8, 1))

    def heat(images, texts):
        return np.broadcast_to(np.eye(4), (len(images), 4, 4))

    return pictures_section(measured.zero_shot, read, heat)


def test_the_nearest_images_of_a_prompt_have_its_finding(section, measured):
    result = measured.zero_shot
    strips = {strip.title: strip for strip in section.strips}
    for k, name in enumerate(result.task.classes):
        first = result.prompts.columns(name)[0]
        strip = strips[f"“{result.prompts.texts[first]}”"]
        assert [picture.right for picture in strip.pictures] == [True] * 6
        cosines = result.image_embeddings["trained"] @ result.prompt_embeddings["trained"][first]
        rows = [int(pixels_of(picture.url)[0, 0]) for picture in strip.pictures]
        assert cosines[rows].tolist() == sorted(cosines, reverse=True)[:6]
        assert {picture.caption for picture in strip.pictures} == {name}
        query, *others = strips[f"An image with {name}, and the images nearest to it"].pictures
        assert query.right is None
        assert result.task.labels[int(pixels_of(query.url)[0, 0]), k] == 1
        assert query.url not in {picture.url for picture in others}


def test_heat_maps_stand_beside_their_images(section, measured):
    strips = [strip for strip in section.strips if strip.title.startswith("Where it looked")]
    assert len(strips) == len(measured.zero_shot.task.classes)
    for strip in strips:
        captions = [picture.caption for picture in strip.pictures]
        assert captions == ["image", "heat map"] * (len(captions) // 2)


def test_an_overlay_is_bright_where_the_map_is_high_and_gray_where_it_is_flat():
    gray = np.full((32, 32), 100, np.uint8)
    heat = np.zeros((4, 4))
    heat[1, 3] = 1
    drawn = overlay(gray, heat).astype(int)
    changed = np.abs(drawn - 100).sum(axis=-1)
    assert np.unravel_index(changed.argmax(), changed.shape)[0] in range(6, 18)
    assert np.unravel_index(changed.argmax(), changed.shape)[1] in range(22, 32)
    assert (overlay(gray, np.full((4, 4), 7.0)) == 100).all()


def test_pictures_of_the_page_are_small_and_lose_nothing_else():
    small = np.arange(64, dtype=np.uint8).reshape(8, 8)
    np.testing.assert_array_equal(pixels_of(png_url(small)), small)
    assert max(pixels_of(png_url(np.zeros((1000, 500), np.uint8))).shape) == SIDE


def test_equal_cosines_come_in_the_order_of_the_rows():
    assert nearest(np.array([1.0]), np.array([[0.5], [1.0], [0.5], [1.0]]), 4).tolist() == [1, 3, 0, 2]


def test_the_page_shows_strips_only_where_they_are_given(section, measured, tmp_path):
    write({"world": measured}, tmp_path / "without", {"run": "r"})
    write({"world": measured}, tmp_path / "with", {"run": "r"}, more={"world": [section]})
    pages = {name: (tmp_path / name / "report.html").read_text() for name in ("without", "with")}
    assert "<img" not in pages["without"]
    assert pages["with"].count("<img") == sum(len(strip.pictures) for strip in section.strips)
