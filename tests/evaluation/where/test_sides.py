"""Left and right, with known answers."""

import numpy as np
import pytest

from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.report import sections_of
from medclip_keras.evaluation.results import DatasetResult
from medclip_keras.evaluation.where.pointing import ALL, Boxed
from medclip_keras.evaluation.where.section import localize
from medclip_keras.evaluation.where.sides import side_of, sides

AT_LEFT, AT_RIGHT, MIDDLE = [0.6, 0.2, 0.9, 0.5], [0.1, 0.2, 0.4, 0.5], [0.4, 0.2, 0.6, 0.5]  # patient's
BOOTSTRAP = Bootstrap(100, seed=0)


def test_the_side_is_the_patients_and_none_for_both_sides_or_the_midline():
    assert side_of(np.array([AT_LEFT])) == "left"
    assert side_of(np.array([AT_RIGHT, AT_RIGHT])) == "right"
    assert side_of(np.array([AT_LEFT, AT_RIGHT])) == side_of(np.array([MIDDLE])) == ""


def boxed_world():
    """Eight effusions on one side, two at the midline, four masses on the left alone."""
    boxes = [AT_LEFT, AT_RIGHT] * 4 + [MIDDLE] * 2 + [AT_LEFT] * 4
    findings = np.repeat(["Pleural Effusion", "Mass"], [10, 4])
    return Boxed(findings, np.arange(14).astype(str), tuple(np.array([box]) for box in boxes))


def test_planted_margins_give_their_shares_and_areas():
    boxed = boxed_world()
    margins = np.array([3, -1, 2, -2, 1, 1.5, -3, -4, 9, 9, 1, 1, 0, -1.0])
    table = sides(boxed, margins, BOOTSTRAP)
    # Effusion: left 3, 2, 1 right, -3 wrong; right -1, -2, -4 right, 1.5 wrong.
    assert table["Pleural Effusion"]["own_side"].value == 6 / 8
    # Pairs of a left and a right image in order: 3 and 2 above all four, 1 above three, -3 above one.
    assert table["Pleural Effusion"]["auroc"].value == pytest.approx((4 + 4 + 3 + 1) / 16)
    assert table["Mass"]["own_side"].value == (2 + 0.5) / 4
    assert np.isnan(table["Mass"]["auroc"].value)
    assert table[ALL]["own_side"].value == (6 + 2.5) / 12
    mirrored = sides(boxed, -margins, BOOTSTRAP)
    assert mirrored["Pleural Effusion"]["auroc"].value == pytest.approx(1 - 12 / 16)


def test_the_section_shows_a_row_a_finding_with_its_counts():
    boxed = boxed_world()
    margins = np.where([side_of(boxes) == "left" for boxes in boxed.boxes], 1.0, -1.0)
    result = localize(boxed, {"occlusion": [np.eye(8)] * 14}, BOOTSTRAP, margins)
    (section,) = sections_of(DatasetResult(localization=result))
    table = section.tables[-1]
    assert table.title == "Does it tell left from right?"
    assert [row[:3] for row in table.rows] == [
        (ALL, "8", "4"),
        ("Mass", "4", "0"),
        ("Pleural Effusion", "4", "4"),
    ]
    assert table.rows[2][4] == "1.000 [1.000, 1.000]"
    assert len(sections_of(DatasetResult(localization=localize(boxed, {}, BOOTSTRAP)))[0].tables) == 0
