"""R2Gen: entries of IU X-Ray and of MIMIC-CXR, joined with their own reports."""

import json

from medclip_keras.knowledge.sections import Section
from medclip_keras.sources import r2gen

IU = {
    "train": [
        {
            "id": "CXR1_IM-0001",
            "report": "Big heart.",
            "image_path": ["CXR1_IM-0001/0.png", "CXR1_IM-0001/1.png"],
        },
        {"id": "CXR10_IM-0002-1001", "report": "Clear.", "image_path": ["CXR10_IM-0002-1001/0.png"]},
    ],
    "val": [
        {"id": "CXR2_IM-0652", "report": "No effusion.", "image_path": ["CXR2_IM-0652/0.png"], "split": "val"}
    ],
    "test": [],
}


def of_mimic(image, patient, study, report):
    path = f"p{str(patient)[:2]}/p{patient}/s{study}/{image}.jpg"
    return {"id": image, "study_id": study, "subject_id": patient, "report": report, "image_path": [path]}


MIMIC = {
    "train": [of_mimic("aaaa", 10000032, 50414267, "Edema."), of_mimic("bbbb", 10000032, 50414267, "Edema.")],
    "val": [of_mimic("cccc", 10000980, 50985099, " ")],
    "test": [of_mimic("dddd", 10001038, 57861150, "Clear.")],
}


def write(folder, image_file, annotation, kind):
    root = folder / "r2gen"
    images = [image for entries in annotation.values() for entry in entries for image in entry["image_path"]]
    for seed, image in enumerate(images):
        path = root / "images" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_file(seed, kind))
    (root / r2gen.FILE).write_text(json.dumps(annotation))
    return root


def write_layout(folder, image_file):
    return write(folder, image_file, IU, "png")


def write_mimic_layout(folder, image_file):
    return write(folder, image_file, MIMIC, "jpeg")


FILE = r2gen.FILE
SECRETS = ("CXR", "heart", "10000032")
DAMAGED = {
    write_layout: [
        (FILE, None, rf"`input` must be a folder with {FILE}\. .*cuhksz-nlp/R2Gen"),
        (FILE, lambda t: t[:-1], r"`input` must be one JSON object\. Received: '.*annotation\.json'"),
        (FILE, lambda t: t.replace('"val"', '"dev"', 1), "`split` must be train, val or test .*'dev'"),
        (
            FILE,
            lambda t: t.replace('"report"', '"text"', 1),
            "`input` must be an object with id.*entry 1 of train",
        ),
        (
            FILE,
            lambda t: t.replace('["CXR2_IM-0652/0.png"]', '"CXR2_IM-0652/0.png"'),
            "`image_path` must be a list",
        ),
        (
            FILE,
            lambda t: t.replace("CXR2_IM-0652/0", "CXR1_IM-0001/1"),
            "`image_path` must be different .*repeats",
        ),
        (
            FILE,
            lambda t: t.replace('"CXR2_IM-0652"', '"CXR1_IM-9"'),
            "`split` must be the same for.*entry 1 of val",
        ),
    ],
    write_mimic_layout: [
        (
            FILE,
            lambda t: t.replace('"id": "bbbb"', '"id": "aaaa"'),
            "`id` must be different .*'row 2, which repeats",
        ),
        (
            FILE,
            lambda t: t.replace("10001038", "10000032"),
            "`split` must be the same for all.*entry 1 of test",
        ),
    ],
}


def test_entries_of_iu_x_ray_have_the_studies_of_openi(archive):
    rows = list(r2gen.image_rows(archive))
    assert [(row.study_id, row.patient_id, row.split) for row in rows] == [
        *2 * [("CXR1", "CXR1", "train")],
        ("CXR10", "CXR10", "train"),
        ("CXR2", "CXR2", "valid"),
    ]
    assert rows[1].path == f"{archive}/images/CXR1_IM-0001/1.png"
    reports = list(r2gen.report_rows(archive))
    assert [(row.study_id, row.split) for row in reports] == [
        ("CXR1", "train"),
        ("CXR10", "train"),
        ("CXR2", "valid"),
    ]
    assert r2gen.read_report(reports[0]) == (Section("body", "Big heart."),)
    assert {state for row in rows for state in row.labels} == set()


def test_entries_of_mimic_have_its_patients_and_one_report_a_study(tmp_path, image_file):
    root = write_mimic_layout(tmp_path, image_file)
    rows, reports = list(r2gen.image_rows(root)), list(r2gen.report_rows(root))
    assert [(row.patient_id, row.study_id) for row in rows[:2]] == 2 * [("10000032", "50414267")]
    assert [row.split for row in rows] == ["train", "train", "valid", "test"]
    bare = {
        split: [{k: entry[k] for k in ("id", "report", "image_path")} for entry in entries]
        for split, entries in MIMIC.items()
    }
    (root / FILE).write_text(json.dumps(bare))
    assert list(r2gen.image_rows(root)) == rows  # the path tells study and patient
    assert [(row.study_id, row.patient_id) for row in reports] == [
        ("50414267", "10000032"),
        ("57861150", "10001038"),
    ]
