"""ReXGradient: studies with lists of images, reports in four parts, a file a split."""

import json

import pytest

from medclip_keras.knowledge.sections import Section
from medclip_keras.sources import rexgradient


def study(patient, uid, views, **parts):
    images = [
        f"../deid_png/{patient}/A{uid}/studies/{uid}/series/1/instances/{uid}.{k}.png"
        for k in range(len(views))
    ]
    whole = dict.fromkeys(rexgradient.PARTS) | parts
    ids = {"PatientID": patient, "StudyInstanceUid": uid, "AccessionNumber": f"A{uid}", "PatientSex": "F"}
    return {f"{patient}_A{uid}_{uid}": {**ids, **whole, "ImagePath": images, "ImageViewPosition": views}}


STUDIES = {
    "train": {
        **study(
            "P1", "1.1", ["PA", "LATERAL"], Findings="Big heart.", Impression="None", Indication="Cough."
        ),
        **study("P1", "1.2", ["POSTERO_ANTERIOR"], Findings="Clear."),
    },
    "valid": study("P2", "2.1", [None, "LAO"]),
    "test": study("P3", "3.1", ["AP"], Comparison="None.", Impression="Clear."),
}


def write_layout(folder, image_file):
    root = folder / "rex"
    (root / "metadata").mkdir(parents=True)
    for seed, (split, studies) in enumerate(STUDIES.items()):
        (root / rexgradient.FILES.format(split)).write_text(json.dumps(studies))
        for entry in studies.values():
            for number, image in enumerate(entry["ImagePath"]):
                path = root / image.removeprefix("../")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(image_file(10 * seed + number))
    return root


TRAIN, VALID, _ = (rexgradient.FILES.format(split) for split in rexgradient.SPLITS)
SECRETS = ("P1", "P2", "heart")
DAMAGED = {
    write_layout: [
        (TRAIN, lambda t: t[:-9], "`input` must be one JSON object"),
        (
            TRAIN,
            lambda t: t.replace('"PatientID"', '"Patient"', 1),
            "`PatientID` must be a field of .*'study 1 of",
        ),
        (
            TRAIN,
            lambda t: t.replace('"Findings"', '"findings"', 1),
            "`Findings` must be a field of .*'study 1 of",
        ),
        (VALID, lambda t: t.replace('"ImagePath"', '"Path"'), "`ImagePath` must be a field of .*'study 1 of"),
        (VALID, lambda t: t.replace('"P2"', '"P1"'), "`split` must be the same for all images of a patient"),
        (
            VALID,
            lambda t: t.replace("2.1.1.png", "2.1.0.png"),
            "`ImagePath` must be different .*repeats row 4",
        ),
    ]
}


def test_images_are_listed_by_study_with_their_views(archive):
    rows = list(rexgradient.image_rows(archive))
    assert [(row.patient_id, row.study_id) for row in rows] == [
        *(("P1", "1.1"), ("P1", "1.1"), ("P1", "1.2"), ("P2", "2.1"), ("P2", "2.1"), ("P3", "3.1"))
    ]
    assert [row.view for row in rows] == ["frontal", "lateral", "frontal", "", "", "frontal"]
    assert [row.split for row in rows] == [*3 * ["train"], *2 * ["valid"], "test"]
    assert rows[0].image_id == "deid_png/P1/A1.1/studies/1.1/series/1/instances/1.1.0.png"
    assert {label for row in rows for label in row.labels} == set()


def test_reports_are_in_parts(archive):
    rows = list(rexgradient.report_rows(archive))
    assert [(row.study_id, row.split) for row in rows] == [
        *(("1.1", "train"), ("1.2", "train"), ("2.1", "valid"), ("3.1", "test"))
    ]
    assert [rexgradient.read_report(row) for row in rows] == [
        (Section("indication", "Cough."), Section("findings", "Big heart.")),
        (Section("findings", "Clear."),),
        (),
        (Section("comparison", "None."), Section("impression", "Clear.")),
    ]


def test_some_splits_may_be_missing_but_not_all(archive):
    (archive / TRAIN).unlink()
    assert {row.split for row in rexgradient.image_rows(archive)} == {"valid", "test"}
    for split in ("valid", "test"):
        (archive / rexgradient.FILES.format(split)).unlink()
    with pytest.raises(
        ValueError, match=r"`input` must be a folder with metadata/train_metadata_view_position"
    ):
        next(rexgradient.image_rows(archive))
