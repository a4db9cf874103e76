"""VinDr-CXR: votes of an image's radiologists as states, consensus in test."""

import pytest

from medclip_keras.knowledge.label_names import labels_of
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import vindr_cxr

POSITIVE, NEGATIVE, UNCERTAIN = LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN
LABELS = [label for label in labels_of("vindr_cxr") if label not in vindr_cxr.OTHER]
TRAIN, TEST = (f"annotations/{name}" for name in vindr_cxr.TABLES.values())
VOTES = {  # image → what each radiologist sees
    "aaaa": (["Cardiomegaly", "Rib fracture"], ["Cardiomegaly"], ["Cardiomegaly", "Rib fracture"]),
    "bbbb": 3 * (["No finding"],),
    "cccc": (["Nodule/Mass"], ["Lung tumor"], ["Nodule/Mass", "Other lesion"]),
}
CONSENSUS = {"dddd": ["Clavicle fracture", "Other disease"], "eeee": ["Pneumonia"]}


def line(keys, seen, other):
    return ",".join([*keys, *("1" if label in seen else "0" for label in (*LABELS, other))])


def write_layout(folder, image_file):
    root = folder / "vindr-cxr"
    for name in ("annotations", "train", "test"):
        (root / name).mkdir(parents=True)
    for seed, image in enumerate((*VOTES, *CONSENSUS)):
        split = "train" if image in VOTES else "test"
        (root / split / f"{image}.dicom").write_bytes(image_file(seed, "dicom"))
    train = [",".join(["image_id", "rad_id", *LABELS, "Other diseases"])]
    train += [
        line((image, f"R{rad}"), seen, "Other diseases")
        for image, votes in VOTES.items()
        for rad, seen in enumerate(votes, 8)
    ]
    (root / TRAIN).write_text("\n".join(train) + "\n")
    test = [",".join(["image_id", *LABELS, "Other disease"])]
    test += [line((image,), seen, "Other disease") for image, seen in CONSENSUS.items()]
    (root / TEST).write_text("\n".join(test) + "\n")
    return root


def delete_tables(root):
    for name in (TRAIN, TEST):
        (root / name).unlink()
    return root


DAMAGED = {
    write_layout: [
        (TRAIN, lambda t: t.replace("rad_id", "rad"), "`rad_id` must be a column of"),
        (
            TRAIN,
            lambda t: t.replace("Emphysema", "emphysema"),
            "`Emphysema` must be a column .*names: emphysema",
        ),
        (
            TRAIN,
            lambda t: t.replace("R9", "R8", 1),
            "`image_id and rad_id` must be .*'row 2, which repeats row 1'",
        ),
        (TRAIN, lambda t: t.replace("R8,0", "R8,-1", 1), "must be 1 or 0.*'-1'"),
        (
            TEST,
            lambda t: t + t.split("\n")[1] + "\n",
            "`image_id` must be different .*'row 3, which repeats row 1'",
        ),
        (
            TEST,
            lambda t: t.replace("dddd", "aaaa"),
            "`image_id` must be different in every row of the tables",
        ),
        (TEST, lambda t: t.replace("eeee,0", "eeee,"), "must be 1 or 0"),
    ]
}


def test_an_image_is_a_study_and_a_patient_of_its_own(archive):
    rows = list(vindr_cxr.image_rows(archive))
    assert [row.image_id for row in rows] == [*VOTES, *CONSENSUS]
    assert all(row.image_id == row.study_id == row.patient_id for row in rows)
    assert [row.split for row in rows] == [*3 * ["train"], *2 * ["test"]]
    assert {row.view for row in rows} == {"frontal"}
    assert rows[3].path == f"{archive}/test/dddd.dicom"


def test_all_votes_decide_and_disagreement_is_uncertain(archive, decoded):
    states = decoded(vindr_cxr, archive)
    present = {image: {k: v for k, v in own.items() if v != NEGATIVE} for image, own in states.items()}
    heart = {"Cardiomegaly": POSITIVE, "Enlarged Cardiomediastinum": POSITIVE}
    assert present == {
        "aaaa": {**heart, "Rib Fracture": UNCERTAIN, "Fracture": UNCERTAIN},
        "bbbb": {"No Finding": POSITIVE},
        "cccc": {"Lung Lesion": UNCERTAIN},
        "dddd": {"Clavicle Fracture": POSITIVE, "Fracture": POSITIVE},
        # the radiologists' own Consolidation and Lung Opacity stay negative
        "eeee": {"Pneumonia": POSITIVE, "Alveolar Pattern": POSITIVE},
    }
    assert states["eeee"]["Consolidation"] == states["eeee"]["Lung Opacity"] == NEGATIVE
    assert len(states["bbbb"]) == 24  # 28 columns, three of no concept, two of one


def test_tables_may_lie_beside_the_images_and_be_one(archive):
    rows = list(vindr_cxr.image_rows(archive))
    (archive / TRAIN).rename(archive / vindr_cxr.TABLES["train"])
    (archive / TEST).unlink()
    assert list(vindr_cxr.image_rows(archive)) == rows[:3]


def test_no_table_is_refused(archive):
    with pytest.raises(
        ValueError, match=r"`input` must be a folder with annotations/image_labels_train\.csv or"
    ):
        next(vindr_cxr.image_rows(delete_tables(archive)))
