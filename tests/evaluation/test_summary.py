"""The summary's warnings about the main figure and about negation."""

import numpy as np
import pytest

from medclip_keras.evaluation.metrics import Estimate
from medclip_keras.evaluation.summary import _cautions_of_main, _cautions_of_trust
from medclip_keras.evaluation.table import Row


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (Estimate(0.3, 0.2, 0.4), "is below its baseline: worse than chance"),
        (Estimate(0.55, 0.45, 0.6), "holds its baseline: it shows no skill"),
        (Estimate(0.8, 0.75, 0.85), ""),
        (Estimate(0.8, np.nan, np.nan), "has no interval"),
    ],
)
def test_the_main_figure_beside_its_baseline(estimate, words):
    cautions = list(_cautions_of_main(Row("auroc", estimate, None, 0.5)))
    assert len(cautions) == bool(words)
    assert all(words in caution for caution in cautions)


@pytest.mark.parametrize(("auroc", "warns"), [(0.0, True), (0.3, True), (0.95, False), (None, False)])
def test_negation_that_is_not_understood(auroc, warns):
    metrics = {"calibration": {}, "prompts": {}, "negation": {"Edema": {"auroc": {"value": auroc}}}}
    assert ("not understood for Edema" in "".join(_cautions_of_trust(metrics))) == warns
