"""Evaluation sets: who is a candidate, how many are taken, and that everybody takes the same."""

import collections
import dataclasses
import hashlib
import random

import pytest

from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import SOURCES, covid, evaluation_sets, rsna
from medclip_keras.sources.evaluation_sets import COMPETITION_FINDINGS, EVALUATION_SETS, choose, members_of
from medclip_keras.sources.rows import ImageRow
from medclip_keras.sources.tables import CHEXPERT_OBSERVATIONS

POSITIVE, NEGATIVE, UNCERTAIN = LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN
FIVE = EVALUATION_SETS["chexpert_5x200"]
PINNED = {  # of `pinned_rows`; another value is another set than that of earlier figures
    "chexpert_5x200": "17ec322f6e2157a0",
    "chexpert_5x200_gloria": "1133f18e2154c977",
    "mimic_5x200": "17ec322f6e2157a0",
}


def row(image, patient, labels=None, view="frontal", split="train"):
    return ImageRow(image, image, patient, f"{image}.jpg", view, labels or {}, split)


def pinned_rows(num_patients=430):
    """For each finding patients with two images that are candidates, and one that is none."""
    for number in range(5 * num_patients):
        finding = COMPETITION_FINDINGS[number % 5]
        others = {name: NEGATIVE for name in COMPETITION_FINDINGS[: number % 4] if name != finding}
        labels = {finding: POSITIVE, **others, "Support Devices": POSITIVE if number % 37 == 0 else NEGATIVE}
        yield row(f"{number}a", f"p{number}", labels)
        yield row(f"{number}b", f"p{number}", labels)
        yield row(f"{number}c", f"p{number}", labels, view="lateral")


def draw(identifier):
    return hashlib.sha256(f"medclip_keras evaluation sets\0{identifier}".encode()).hexdigest()


def digest_of(members):
    listed = "\n".join(f"{image} {split}" for image, split in sorted(members.split_of.items()))
    return hashlib.sha256(listed.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("labels", "of_five", "of_gloria"),
    [
        ({"Edema": POSITIVE}, "Edema", "Edema"),
        ({"Edema": POSITIVE, **dict.fromkeys(CHEXPERT_OBSERVATIONS[:5], NEGATIVE)}, "Edema", "Edema"),
        ({"Edema": POSITIVE, "No Finding": POSITIVE}, "Edema", "Edema"),
        ({"Edema": POSITIVE, "Support Devices": POSITIVE}, "Edema", ""),
        ({"Edema": POSITIVE, "Lung Opacity": UNCERTAIN}, "Edema", ""),
        ({"Edema": POSITIVE, "Atelectasis": POSITIVE}, "", ""),
        ({"Edema": POSITIVE, "Atelectasis": UNCERTAIN}, "", ""),
        ({"Edema": UNCERTAIN}, "", ""),
        ({"Pneumothorax": POSITIVE}, "", ""),
        ({"Edema": NEGATIVE}, "", ""),
        ({}, "", ""),
    ],
)
def test_exactly_one_finding_makes_a_candidate(labels, of_five, of_gloria):
    image = row("i", "p", labels)
    assert evaluation_sets.exclusive_finding(image) == of_five
    assert evaluation_sets.exclusive_finding_of_gloria(image) == of_gloria
    for other in ({"view": "lateral"}, {"view": ""}, {"split": "valid"}, {"split": "test"}):
        assert evaluation_sets.exclusive_finding(dataclasses.replace(image, **other)) == ""
    assert evaluation_sets.exclusive_finding(dataclasses.replace(image, split="")) == of_five


def test_gloria_looks_at_all_observations_but_no_finding():
    assert len(CHEXPERT_OBSERVATIONS) == 14
    for name in set(CHEXPERT_OBSERVATIONS) - {"Edema", "No Finding"}:
        image = row("i", "p", {"Edema": POSITIVE, name: UNCERTAIN})
        assert evaluation_sets.exclusive_finding_of_gloria(image) == ""


@pytest.mark.parametrize("name", ["chexpert_5x200", "chexpert_5x200_gloria", "mimic_5x200"])
def test_200_a_class_of_patients_of_their_own(name):
    rows = {one.image_id: one for one in pinned_rows()}
    members = choose(EVALUATION_SETS[name], rows.values())
    exact = dict.fromkeys(COMPETITION_FINDINGS, 200)
    assert members.counts == {"test": exact, "train": exact}
    patients = {}
    for split in ("test", "train"):
        images = [rows[image] for image, own in members.split_of.items() if own == split]
        found = collections.Counter(next(c for c in exact if one.labels.get(c) == POSITIVE) for one in images)
        assert found == exact
        patients[split] = [one.patient_id for one in images]
        assert len(set(patients[split])) == 1000  # an image a patient
        assert all(EVALUATION_SETS[name].class_of(one) for one in images)
    assert not set(patients["test"]) & set(patients["train"])
    assert members.patients == {*patients["test"], *patients["train"]}
    assert members.sentence.startswith(f"{name}: test 1000 (Atelectasis 200, ")


def test_the_rule_in_five_lines():
    expected = {}
    for finding in COMPETITION_FINDINGS:
        images = {one.image_id: one for one in pinned_rows() if FIVE.class_of(one) == finding}
        first = {images[image].patient_id: image for image in sorted(images, key=draw, reverse=True)}
        drawn = sorted(first.values(), key=draw)
        expected |= dict.fromkeys(drawn[:200], "test") | dict.fromkeys(drawn[200:400], "train")
    assert choose(FIVE, pinned_rows()).split_of == expected


@pytest.mark.parametrize("name", sorted(PINNED))
def test_the_choice_is_pinned_and_the_order_of_rows_does_not_matter(name):
    rows = list(pinned_rows())
    assert digest_of(choose(EVALUATION_SETS[name], rows)) == PINNED[name]
    random.Random(3).shuffle(rows)
    rows += [row(f"more{number}", f"p{number}", {"Fracture": POSITIVE}) for number in range(50)]
    assert digest_of(choose(EVALUATION_SETS[name], rows)) == PINNED[name]


def test_an_image_of_a_new_patient_changes_one_at_most():
    before = choose(FIVE, pinned_rows()).split_of
    after = choose(FIVE, [*pinned_rows(), row("new", "new", {"Edema": POSITIVE})]).split_of
    assert len(before.keys() - after.keys()) <= 2  # one a split


def test_a_second_image_of_a_patient_is_taken_only_where_patients_do_not_suffice():
    three = dataclasses.replace(FIVE, sizes={"test": (3,) * 5, "train": (2,) * 5})
    patients = [(finding, f"{finding}{number}") for finding in COMPETITION_FINDINGS for number in range(5)]
    plenty = [row(patient + k, patient, {finding: POSITIVE}) for finding, patient in patients for k in "ab"]
    members = choose(three, plenty)
    assert len(members.patients) == len(members.split_of) == 25
    # Two patients of Edema with two images each: three images of two patients, and no train.
    few = [one for one in plenty if "Edema" not in one.labels or one.patient_id in ("Edema0", "Edema1")]
    members = choose(three, few)
    assert members.counts["test"] == dict.fromkeys(COMPETITION_FINDINGS, 3)
    assert len(members.patients) == 14
    assert members.counts["train"] == dict.fromkeys(COMPETITION_FINDINGS, 0)
    assert set(members.split_of.values()) == {"test"}


def test_patients_of_two_classes_do_not_starve_the_scarcest_one():
    # All three patients of Consolidation have an image of Atelectasis too, which comes first in the list.
    two = dataclasses.replace(FIVE, classes=("Atelectasis", "Consolidation"), sizes={"test": (3, 3)})
    both = [row(f"{n}{f}", f"p{n}", {f: POSITIVE}) for n in range(3) for f in two.classes]
    others = [row(f"o{n}", f"o{n}", {"Atelectasis": POSITIVE}) for n in range(3)]
    members = choose(two, both + others)
    assert len(members.patients) == 6


def test_too_few_images_are_refused_with_their_counts():
    rows = [one for one in pinned_rows(220) if one.labels.get("Consolidation") != POSITIVE]
    rows += [row(f"more{n}", f"more{n}", {"Consolidation": POSITIVE}) for n in range(199)]
    sentence = (
        r"test split of chexpert_5x200: Atelectasis 200.*Received: \{.*'Consolidation': 199, 'Edema': 440"
    )
    with pytest.raises(ValueError, match=sentence + ".* whole release"):
        choose(FIVE, rows)
    rows.append(row("last", "last", {"Consolidation": POSITIVE}))
    members = choose(FIVE, rows)
    assert members.counts["test"] == dict.fromkeys(COMPETITION_FINDINGS, 200)
    assert members.counts["train"] == dict.fromkeys(COMPETITION_FINDINGS, 0)


def rows_of_two(images_of):
    """Patient → letters: an image each, P with Pneumonia, N normal, X neither."""
    states = {"P": {"Pneumonia": POSITIVE}, "N": {"Pneumonia": NEGATIVE, "No Finding": POSITIVE}}
    states["X"] = {"Pneumonia": NEGATIVE}
    return [
        row(f"{patient}/{number}", patient, states[letter], split="")
        for patient, letters in images_of.items()
        for number, letter in enumerate(letters)
    ]


def choose_of_two(images_of, test, train):
    rsna_set = dataclasses.replace(EVALUATION_SETS["rsna"], sizes={"test": test, "train": train})
    members = choose(rsna_set, rows_of_two(images_of))
    patients = {split: set() for split in ("test", "train")}
    for image, split in members.split_of.items():
        patients[split].add(image.partition("/")[0])
    assert not patients["test"] & patients["train"]
    return members, patients


@pytest.mark.parametrize("trial", range(5))
def test_whole_patients_are_taken_in_the_order_of_their_draw_where_they_fit(trial):
    images_of = {f"{trial}p{n}": "P" * (1 + n % 3) for n in range(12)}
    images_of |= {f"{trial}n{n}": "N" for n in range(9)}
    expected, left = set(), 7
    for patient in sorted((p for p in images_of if "p" in p), key=draw):
        if len(images_of[patient]) <= left:
            expected.add(patient)
            left -= len(images_of[patient])
    # All of the 24 positives are used, which takes that no patient is parted.
    members, patients = choose_of_two(images_of, (7, 4), (17, 4))
    assert {patient for patient in patients["test"] if "p" in patient} == expected
    assert [list(of.values()) for of in members.counts.values()] == [[7, 4], [17, 4]]


@pytest.mark.parametrize("trial", range(5))
def test_normals_of_patients_with_positives_do_not_take_these_away(trial):
    images_of = {f"{trial}b{n}": "PN" for n in range(6)} | {f"{trial}n{n}": "NX" for n in range(6)}
    members, patients = choose_of_two(images_of, (3, 4), (3, 4))
    assert [list(of.values()) for of in members.counts.values()] == [[3, 4], [3, 4]]
    order = sorted(images_of, key=draw)
    with_positives = [patient for patient in order if "b" in patient][:3]
    normals = [patient for patient in order if "n" in patient or patient in with_positives][:4]
    assert patients["test"] == {*with_positives, *normals}
    assert {image for image, split in members.split_of.items() if split == "test"} == {
        *(f"{patient}/0" for patient in with_positives),
        *(f"{patient}/{images_of[patient].index('N')}" for patient in normals),
    }


def test_a_patient_is_parted_where_nothing_else_gives_the_number():
    members, _ = choose_of_two({"a": "PP", "b": "PP", "c": "NNN"}, (3, 2), (1, 1))
    assert members.counts["test"] == {"Pneumonia": 3, "Normal": 2}
    assert members.counts["train"] == {"Pneumonia": 0, "Normal": 0}  # what is left is a test patient's


@pytest.mark.parametrize(
    ("name", "labels", "image_class"),
    [
        ("rsna", rsna._STATES["1", rsna.OPACITY], "Pneumonia"),
        ("rsna", rsna._STATES["0", rsna.NORMAL], "Normal"),
        ("rsna", rsna._STATES["0", rsna.NOT_NORMAL], ""),
        ("rsna_any_negative", rsna._STATES["0", rsna.NOT_NORMAL], "no Pneumonia"),
        ("rsna_any_negative", rsna._STATES["0", ""], "no Pneumonia"),
        ("covid", covid.STATES["COVID"], "COVID-19"),
        ("covid", covid.STATES["Normal"], "Normal"),
        ("covid", covid.STATES["Lung_Opacity"], ""),
        ("covid", covid.STATES["negative"], ""),
        ("covid_any_negative", covid.STATES["negative"], "no COVID-19"),
        ("covid_any_negative", covid.STATES["Viral Pneumonia"], "no COVID-19"),
    ],
)
def test_classes_of_the_sets_of_two(name, labels, image_class):
    assert EVALUATION_SETS[name].class_of(row("i", "i", labels, split="")) == image_class


def test_sizes_are_those_of_the_papers_table():
    for name in ("rsna", "rsna_any_negative", "covid", "covid_any_negative"):
        train, test = (EVALUATION_SETS[name].sizes[split] for split in ("train", "test"))
        if "rsna" in name:
            assert (sum(train), sum(test), train[0] + test[0]) == (8486, 3538, 6012)
        else:
            assert (sum(train), sum(test)) == (2162, 3000)
            assert [round(100 * split[0] / sum(split)) for split in (train, test)] == [19, 49]


def test_the_list_of_sets():
    for name, one in EVALUATION_SETS.items():
        assert name == one.name
        assert name in evaluation_sets.__doc__
        assert one.source == one.patients_of[0]
        assert set(one.patients_of) <= set(SOURCES)
        assert one.citation
    sentence = r"`evaluation_set` must be one of .*Received: 'mimic5x200'. Near names: mimic_5x200"
    with pytest.raises(ValueError, match=sentence):
        members_of("mimic5x200", "nowhere")


def test_real_table_of_rsna_gives_a_pinned_set(medclip_data):
    members = members_of("rsna_any_negative", medclip_data / "rsna")
    sums = {split: sum(counts.values()) for split, counts in members.counts.items()}
    assert sums == {"test": 3538, "train": 8486}
    assert digest_of(members) == "2aa44edbc21d51ca"
    with pytest.raises(ValueError, match=r"split of rsna: .*Received: \{'Pneumonia': 6012, 'Normal': 0\}"):
        members_of("rsna", medclip_data / "rsna")  # the table of classes is not there


def test_real_tables_of_convirt_are_a_set(medclip_data):
    members = members_of("chexpert_8x200", medclip_data / "convirt_8x200")
    assert members.counts == {"test": dict.fromkeys(EVALUATION_SETS["chexpert_8x200"].classes, 200 + 10)}
    kinds = collections.Counter(image.partition("/")[0] for image in members.split_of)
    assert kinds == {"candidate": 1600, "query": 80}
    assert len(members.patients) == 1632
    assert members.names_patients
