"""Evaluation sets through the jobs: recorded alone, or left out with all that is known of their patients."""

import csv
import dataclasses
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from beam_jobs import decode_images, label_reports
from beam_jobs.dataset.job import describe_making
from beam_jobs.dataset.selection import HELD_OUT, select
from beam_jobs.decode_images import DecodeOptions
from medclip_keras.knowledge.label_names import labels_of
from medclip_keras.sources import convirt_8x200, mimic_cxr, rsna
from medclip_keras.sources.evaluation_sets import COMPETITION_FINDINGS, EVALUATION_SETS, members_of

LABELS = labels_of("mimic_cxr")
WANTED = {"test": (2,) * 5, "train": (1,) * 5}


def write_csv(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def small_sets(monkeypatch):
    """The sets of MIMIC-CXR and RSNA with fewer images."""
    for name, sizes in (("mimic_5x200", WANTED), ("rsna", {"test": (1, 1)})):
        monkeypatch.setitem(EVALUATION_SETS, name, dataclasses.replace(EVALUATION_SETS[name], sizes=sizes))


@pytest.fixture
def mimic(tmp_path, small_sets):
    """A tree of 35 patients, without its images.

    Patient k < 30 has the finding k % 5 in the first study, of two frontal images and a lateral one, and
    none in the second, of one image. Patients 30 to 34 have nothing, or are not of the training split.
    """
    root = tmp_path / "mimic"
    images, labels, splits = [], [], []
    for patient in range(35):
        subject = str(10000000 + patient)
        split = {33: "validate", 34: "test"}.get(patient, "train")
        for study, views in enumerate((("PA", "AP", "LATERAL"), ("PA",))):
            study_id = str(50000000 + 10 * patient + study)
            has = COMPETITION_FINDINGS[patient % 5] if study == 0 and not 30 <= patient < 33 else ""
            labels.append((subject, study_id, *("1.0" if label == has else "" for label in LABELS)))
            for number, view in enumerate(views):
                images.append((f"{subject}-{study}-{number}", subject, study_id, view))
                splits.append((images[-1][0], study_id, subject, split))
            report = root / mimic_cxr.REPORTS / f"files/p10/p{subject}/s{study_id}.txt"
            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_text(f"FINDINGS: Mild {(has or 'cardiomegaly').lower()}.\n")
    table = mimic_cxr.TABLES.format
    write_csv(root / table("metadata"), ("dicom_id", "subject_id", "study_id", "ViewPosition"), images)
    write_csv(root / table("split"), ("dicom_id", "study_id", "subject_id", "split"), splits)
    write_csv(root / table("chexpert"), ("subject_id", "study_id", *LABELS), labels)
    return root


@pytest.fixture
def with_images(mimic):
    for seed, row in enumerate(mimic_cxr.image_rows(mimic)):
        os.makedirs(os.path.dirname(row.path), exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (14, 20, 1), np.uint8)
        tf.io.write_file(row.path, tf.io.encode_jpeg(pixels))
    return mimic


@pytest.fixture
def decode(with_images, concepts, tmp_path, records_of):
    """Runs decode_images on the tree, and gives the manifest and the records."""

    def run(name, **options):
        told = {"source": "mimic_cxr", "input": str(with_images), "concepts": concepts, **options}
        manifest = decode_images.run(output=str(tmp_path / name), image_size=16, keep_ids=True, **told)
        return manifest, by_key(records_of(tmp_path / name))

    return run


def by_key(records):
    return {record["record_key"].decode(): record for record in records}


def patients_in(records, split=""):
    return {r["patient_id"].decode() for r in records.values() if not split or r["split"].decode() == split}


def test_a_set_is_recorded_alone_in_its_own_splits(decode, mimic, capsys):
    members = members_of("mimic_5x200", mimic)
    manifest, records = decode("set", evaluation_set="mimic_5x200")
    assert {key: record["split"].decode() for key, record in records.items()} == members.split_of
    assert {split: one["num_records"] for split, one in manifest.splits.items()} == {
        "train": 5,
        "valid": 0,
        "test": 10,
    }
    assert manifest.counts["rows"] == manifest.counts["records"] == 15
    assert manifest.made_from["selection"]["counts"] == {
        "test": dict.fromkeys(COMPETITION_FINDINGS, 2),
        "train": dict.fromkeys(COMPETITION_FINDINGS, 1),
    }
    assert all(name.startswith("medclip_mimic_5x200-") for name in manifest.shard_names)
    assert not patients_in(records, "train") & patients_in(records, "test")
    assert f"Evaluation set {members.sentence}" in capsys.readouterr().out


def test_images_of_held_out_patients_are_counted_and_not_recorded(decode, mimic, capsys):
    members = members_of("mimic_5x200", mimic)
    rows = {row.image_id: row for row in mimic_cxr.image_rows(mimic)}
    others = {image for image, row in rows.items() if row.patient_id not in members.patients}
    os.remove(next(row.path for row in rows.values() if row.patient_id in members.patients))  # nobody looks
    manifest, records = decode("rest", hold_out=("mimic_5x200",), max_bad_fraction=0)
    assert records.keys() == others
    assert len(members.patients) == 15
    assert not patients_in(records) & members.patients
    # Four images a patient: those of both studies, whatever they show.
    assert manifest.counts | {HELD_OUT: 60, "records": 80, "rows": 140, "bad_rows": 0} == manifest.counts
    assert "held out rows 60" in capsys.readouterr().out
    assert {key: record["split"].decode() for key, record in records.items()} == {
        image: rows[image].split for image in others
    }


def test_reports_of_held_out_patients_are_left_out(mimic, concepts, tmp_path, records_of):
    members = members_of("mimic_5x200", mimic)
    # The reports lie apart from the tables of images, as published.
    (tmp_path / "reports").mkdir()
    (mimic / mimic_cxr.REPORTS).rename(tmp_path / "reports" / mimic_cxr.REPORTS)
    split = mimic_cxr.TABLES.format("split")
    (tmp_path / "reports" / split).write_text((mimic / split).read_text())
    told = {"source": "mimic_cxr", "input": str(tmp_path / "reports"), "concepts": concepts, "keep_ids": True}
    output, mentions = str(tmp_path / "records"), tmp_path / "mentions"
    manifest = label_reports.run(
        output=output, hold_out=(f"mimic_5x200={mimic}",), mentions=str(mentions), **told
    )
    records = by_key(records_of(output))
    assert manifest.counts == {"rows": 70, "records": 40, "bad_rows": 0, "unusable_reports": 0, HELD_OUT: 30}
    assert not patients_in(records) & members.patients
    assert len(patients_in(records)) == 20
    lines = [line for path in mentions.iterdir() for line in path.read_text().splitlines()]
    assert {json.loads(line)["report_id"] for line in lines} == set(records)
    with pytest.raises(ValueError, match=r"`input` must be a folder with mimic-cxr-2.0.0-metadata.csv.gz"):
        label_reports.run(output=output, hold_out=("mimic_5x200",), **told)


def test_selection_changes_the_fingerprint(mimic, tmp_path, monkeypatch):
    def making(**options):
        told = {"source": "mimic_cxr", "input": str(mimic), "output": str(tmp_path / "out"), **options}
        return describe_making(decode_images.make_job(DecodeOptions(**told)))

    held_out = making(hold_out=("mimic_5x200",))
    made = [making(), held_out, making(evaluation_set="mimic_5x200")]
    assert len({one["fingerprint"] for one in made}) == 3
    # The same patients, named by the folder, are the same records.
    assert making(hold_out=(f"mimic_5x200={mimic}",)) == held_out
    # Another rule, under the same name, is other records.
    other = dataclasses.replace(EVALUATION_SETS["mimic_5x200"], sizes={"test": (2,) * 5})
    monkeypatch.setitem(EVALUATION_SETS, "mimic_5x200", other)
    assert making(hold_out=("mimic_5x200",))["fingerprint"] != held_out["fingerprint"]


def test_a_set_with_a_missing_image_is_refused(decode, mimic, tmp_path):
    members = members_of("mimic_5x200", mimic)
    row = next(row for row in mimic_cxr.image_rows(mimic) if row.image_id in members.split_of)
    os.remove(row.path)
    sentence = r"`input` must be an archive with every image of mimic_5x200. Received: '1 bad of 15 rows'"
    with pytest.raises(ValueError, match=sentence):
        decode("set", evaluation_set="mimic_5x200", max_bad_fraction=0.5)
    assert not (tmp_path / "set").exists()
    assert "the file does not exist" in (tmp_path / "set.bad_records.jsonl").read_text()


def test_patients_of_convirts_tables_are_held_out_of_chexpert(tmp_path):
    columns = ("Path", "Frontal/Lateral", *convirt_8x200.CATEGORIES)
    image = "CheXpert-v1.0-small/train/patient{}/study1/view1_frontal.jpg"
    no_other = ("0.0",) * (len(convirt_8x200.CATEGORIES) - 1)
    write_csv(tmp_path / convirt_8x200.CANDIDATES, columns, [(image.format(7), "Frontal", "1.0", *no_other)])
    write_csv(tmp_path / convirt_8x200.QUERY_IMAGES, ("Variable", "Path"), [("Edema", image.format(8))])
    selection = select("chexpert", "not read", hold_out=(f"chexpert_8x200={tmp_path}",))
    assert selection.held_out == {"patient7", "patient8"}
    assert selection.tags == (HELD_OUT,)
    sentence = r"NAME=PATH for a set of another .* folder of convirt_8x200: chexpert_8x200=PATH"
    with pytest.raises(ValueError, match=sentence):
        select("chexpert", "not read", hold_out=("chexpert_8x200",))


def test_patients_of_rsna_are_held_out_of_the_nih_by_its_mapping(tmp_path, small_sets):
    write_csv(
        tmp_path / rsna.TABLE,
        ("patientId", "x", "y", "width", "height", "Target"),
        [("a", "", "", "", "", "0"), ("b", "1", "1", "1", "1", "1")],
    )
    write_csv(
        tmp_path / rsna.TABLE_OF_CLASSES, ("patientId", "class"), [("a", rsna.NORMAL), ("b", rsna.OPACITY)]
    )
    hold_out = (f"rsna={tmp_path}",)
    assert select("rsna", str(tmp_path), hold_out=("rsna",)).held_out == {"a", "b"}
    sentence = r"`hold_out` must be a set whose archive tells the images of one patient"
    with pytest.raises(ValueError, match=sentence):
        select("nih_chestxray14", "not read", hold_out=hold_out)
    names = [{"subset_img_id": own, "img_id": f"0000{n}_000.png"} for own, n in (("a", 13), ("b", 14))]
    (tmp_path / rsna.MAPPING).write_text(json.dumps(names))
    assert select("nih_chestxray14", "not read", hold_out=hold_out).held_out == {"13", "14"}


@pytest.mark.parametrize(
    ("source", "options", "sentence"),
    [
        (
            "chexpert",
            {"evaluation_set": "mimic_5x200"},
            r"`evaluation_set` must be a set of chexpert. Received",
        ),
        ("chexpert", {"evaluation_set": "5x200"}, r"`evaluation_set` must be one of .* Near names: "),
        (
            "chexpert",
            {"hold_out": ("chexpert_5x20",)},
            r"must be one of .*'chexpert_5x20'. Near names: chexpert_5x200",
        ),
        (
            "chexpert",
            {"hold_out": ("covid=x",)},
            r"`hold_out` must be a set of patients of chexpert.*of covid\.",
        ),
        (
            "chexpert",
            {"evaluation_set": "chexpert_5x200", "hold_out": ("chexpert_8x200=x",)},
            "`hold_out` must be empty for an evaluation set",
        ),
    ],
)
def test_unusable_sets_get_the_sentence(source, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        select(source, "not read", **options)


def test_the_command_line_takes_sets_by_list_and_by_repetition(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(decode_images, "run", seen.update)
    names = ["--hold_out=a,b=/c", "--hold_out", "d"]
    decode_images.main(["--source=csv", f"--input={tmp_path}", "--output=o", *names])
    assert seen["hold_out"] == ["a", "b=/c", "d"]
    assert seen["evaluation_set"] == ""
