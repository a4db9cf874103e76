"""The pointing game and the overlap of maps and boxes, with known answers."""

import numpy as np
import pytest

from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.report import sections_of
from medclip_keras.evaluation.results import DatasetResult
from medclip_keras.evaluation.summary import summarize
from medclip_keras.evaluation.where import pointing
from medclip_keras.evaluation.where.pointing import ALL, Boxed
from medclip_keras.evaluation.where.section import localize, pointing_lines

RIGHT_HALF = np.array([[0.5, 0.0, 1.0, 1.0]])
TOP_LEFT = np.array([[0.0, 0.0, 0.5, 0.25]])


def test_the_point_is_the_centre_of_the_highest_cell():
    heat = np.zeros((2, 4))
    heat[0, 1] = 1  # centre (.375, .25)
    assert pointing.hits(heat, np.array([[0.3, 0.2, 0.4, 0.3]])) == 1
    assert pointing.hits(heat, np.array([[0.2, 0.3, 0.3, 0.4]])) == 0  # the transposed place
    assert pointing.hits(heat, np.concatenate([RIGHT_HALF, [[0.3, 0.2, 0.4, 0.3]]])) == 1  # any box


def test_highest_cells_share_a_hit_and_a_flat_map_points_as_chance_does():
    heat = np.zeros((8, 8))
    heat[0, 0] = heat[0, 7] = 2
    assert pointing.hits(heat, RIGHT_HALF) == 0.5
    assert pointing.hits(np.zeros((8, 8)), TOP_LEFT) == 1 / 8
    with pytest.raises(ValueError, match="finite"):
        pointing.hits(np.full((2, 2), np.nan), RIGHT_HALF)


def test_overlap_is_intersection_over_union_above_the_middle_of_the_range():
    heat = np.zeros((64, 64))
    heat[:, 48:] = 1  # a quarter of the picture, all of it in the right half
    assert pointing.overlap(heat, RIGHT_HALF) == 0.5
    assert pointing.overlap(1 - heat, RIGHT_HALF) == pytest.approx(0.25 / 1.0)
    for factor, offset in ((5, -3), (0.1, 0), (0.1, 7)):  # no unit
        assert pointing.overlap(factor * heat + offset, RIGHT_HALF) == 0.5
    assert pointing.overlap(np.zeros((8, 8)), RIGHT_HALF) == 0


def test_boxes_must_lie_within_the_picture():
    for box in ([0.5, 0, 0.4, 1], [0, 0, 1.2, 1], [-0.1, 0, 1, 1], [0, np.nan, 1, 1]):
        with pytest.raises(ValueError, match="`boxes` must be within the picture"):
            Boxed(np.array(["Mass"]), np.array(["a"]), (np.array([box]),))


def boxed_world(num_patients=40, seed=0):
    """Boxes anywhere, maps that point into them for Mass and beside them for Nodule."""
    rng = np.random.default_rng(seed)
    findings, heat, boxes = [], [], []
    for n in range(num_patients):
        row, column = rng.integers(0, 8, 2)
        map_ = np.zeros((8, 8))
        findings.append("Mass" if n % 4 else "Nodule")
        map_[(row, column) if n % 4 else ((row + 4) % 8, column)] = 1
        heat.append(map_)
        boxes.append(np.array([[column, row, column + 1, row + 1]]) / 8)
    boxed = Boxed(np.array(findings), np.arange(num_patients).astype(str), tuple(boxes))
    return localize(boxed, {"grad_cam": heat}, Bootstrap(100, 0))


def test_planted_maps_give_their_figures_beside_chance():
    result = boxed_world()
    found = result.metrics["trained"]["grad_cam"]
    assert found["pointing"]["value"] == 0.75
    assert found["pointing"]["low"] < 0.75 < found["pointing"]["high"]
    assert found["by_class"]["Mass"]["pointing"]["value"] == 1
    assert found["by_class"]["Nodule"]["iou"]["value"] == 0
    base = result.metrics["baseline"]
    assert base[ALL]["pointing"] == base["Mass"]["iou"] == 1 / 64
    assert result.metrics["num_boxed"] == {"Mass": 30, "Nodule": 10}
    (section,) = sections_of(DatasetResult(localization=result))
    (table,) = section.tables
    assert [row[0] for row in table.rows] == [ALL, "Mass", "Nodule"]
    assert table.rows[1][2] == "1.000 [1.000, 1.000]"
    (said,) = pointing_lines(result)
    assert said.startswith("40 images, grad cam: pointing 0.750 [")
    assert "(at random 0.016, at the centre" in said


def test_the_summary_warns_of_maps_that_point_no_better_than_chance():
    good = summarize(DatasetResult(localization=boxed_world()), {})
    assert "40 boxes that radiologists drew on 40 images of 40 patients" in good.measured
    assert good.cautions == ()
    beside = Boxed(np.repeat("Mass", 20), np.arange(20).astype(str), (TOP_LEFT,) * 20)
    heat = [np.eye(8)[::-1]] * 20  # from the lower left to the upper right, past the box
    (caution,) = summarize(
        DatasetResult(localization=localize(beside, {"occlusion": heat}, Bootstrap(20, 0))), {}
    ).cautions
    assert "The maps of occlusion point into the box in 0 % (0 to 0) of images" in caution
