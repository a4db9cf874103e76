"""The radiographs: every finding is to be seen, and none is to be had from linear pixels."""

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from medclip_keras.sources.phantom import EVALUATED, FINDINGS
from medclip_keras.sources.phantom.cohort import PhantomFinding, draw_studies
from medclip_keras.sources.phantom.drawing import draw_radiograph


def draw(findings, seed, image_size=72):
    return draw_radiograph(findings, np.random.default_rng(seed), image_size)


def one(name, side="right", severity=0.5, zone="mid"):
    return PhantomFinding(name, side, severity, zone)


def test_draw_radiograph_is_an_image_that_the_seed_decides():
    image = draw([one("Nodule")], seed=1)
    assert image.shape == (72, 72)
    assert draw([], seed=1, image_size=113).shape == (113, 113)
    assert image.dtype == np.uint8
    assert np.array_equal(image, draw([one("Nodule")], seed=1))
    assert not np.array_equal(image, draw([one("Nodule")], seed=2))
    assert image.std() > 20


def lung_means(image):
    """Mean gray of the patient's right and left lung, which lie in the image's left and right half."""
    size = image.shape[0]
    rows = slice(size // 5, size * 3 // 4)
    right, left = slice(size // 8, size * 3 // 8), slice(size * 5 // 8, size * 7 // 8)
    return np.array([image[rows, right].mean(), image[rows, left].mean()])


@pytest.mark.parametrize("name", ["Consolidation", "Pleural Effusion", "Atelectasis", "Nodule"])
def test_shadow_lies_on_the_side_of_its_finding(name):
    differences = {}
    for side in ("left", "right"):
        means = [lung_means(draw([one(name, side, 0.7)], seed)) for seed in range(60)]
        differences[side] = np.mean([right - left for right, left in means])
    assert differences["right"] > differences["left"] + 5


def test_severity_makes_effusion_and_heart_larger():
    for name in ("Pleural Effusion", "Cardiomegaly"):
        slight, severe = (
            np.mean([draw([one(name, severity=s)], seed)[20:60].mean() for seed in range(60)]) for s in (0, 1)
        )
        assert severe > slight + 3


@pytest.mark.parametrize("name", FINDINGS)
def test_every_finding_changes_the_picture_visibly(name):
    # The same seed draws the same chest up to the finding, so the largest difference is far above the grain.
    for seed in range(10):
        healthy, sick = draw([], seed), draw([one(name)], seed)
        assert np.abs(sick.astype(float) - healthy).max() > 40  # gray levels


@pytest.fixture(scope="module")
def cohort():
    """1,200 images with their patients and findings."""
    images, truth, patients = [], [], []
    for index, study in enumerate(draw_studies(np.random.default_rng(5), 1200, "t")):
        image = draw(study.findings, seed=(5, index), image_size=80)
        images.append(np.asarray(Image.fromarray(image).resize((64, 64), Image.BICUBIC)).ravel() / 255.0)
        truth.append([name in {f.name for f in study.findings} for name in EVALUATED])
        patients.append(study.patient_id)
    return np.array(images), np.array(truth), np.array(patients)


def test_linear_pixels_do_not_solve_the_single_finding_task(cohort):
    images, truth, patients = cohort
    order = np.random.default_rng(0).permutation(np.unique(patients))
    held_out = np.isin(patients, order[: len(order) // 4])
    single = truth.sum(axis=1) == 1
    labels = truth.argmax(axis=1)
    pca = PCA(60, whiten=True, random_state=0).fit(images[~held_out])
    train, test = single & ~held_out, single & held_out
    model = LogisticRegression(C=0.1, max_iter=300).fit(pca.transform(images[train]), labels[train])
    accuracy = model.score(pca.transform(images[test]), labels[test])
    assert test.sum() >= 60
    assert 0.30 < accuracy <= 0.70  # above chance (0.20): the pixels do say something


def test_a_quarter_of_the_images_shows_one_evaluated_finding(cohort):
    _, truth, patients = cohort
    assert 0.2 < (truth.sum(axis=1) == 1).mean() < 0.4
    assert 0.1 < (truth.sum(axis=1) > 1).mean() < 0.4
    assert len(np.unique(patients)) < 0.8 * len(patients)  # some are examined again
