"""ConVIRT's retrieval tables: candidates, query images, query sentences."""

import collections

import pytest

from medclip_keras.knowledge.sections import Section
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import convirt_8x200
from medclip_keras.sources.rows import BadRowError, ReportRow
from medclip_keras.sources.tables import CHEXPERT_OBSERVATIONS

POSITIVE, NEGATIVE = LabelState.POSITIVE, LabelState.NEGATIVE
HEADER = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_OBSERVATIONS)
PLACE = "CheXpert-v1.0-small/train"


def candidate(path, *positives):
    codes = ("1.0" if name in positives else "0.0" for name in CHEXPERT_OBSERVATIONS)
    return ",".join((f"{PLACE}/{path}", "Male", "86", "Frontal", "AP", *codes))


CATEGORIES = {"patient1/study1": "Fracture", "patient1/study2": "Edema", "patient2/study1": "No Finding"}
ROWS = [candidate(f"{study}/view1_frontal.jpg", name) for study, name in CATEGORIES.items()]
CANDIDATES = "\n".join((",".join(HEADER), *ROWS))
QUERIES = f"Variable,Path\nEdema,{PLACE}/patient1/study3/view2_lateral.jpg\n"
SENTENCES = 'Variable,Text\nEdema,"Wet, swollen lungs."\nFracture,A broken rib.\nEdema,Wetter lungs.\n'


def write_layout(folder, image_file):
    root = folder / "convirt"
    tables = {
        convirt_8x200.CANDIDATES: CANDIDATES,
        convirt_8x200.QUERY_IMAGES: QUERIES,
        convirt_8x200.QUERY_SENTENCES: SENTENCES,
    }
    for name, text in tables.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for seed, row in enumerate(convirt_8x200.image_rows(root)):
        path = root / PLACE / row.image_id.partition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_file(seed, "jpeg"))
    return root


IMAGES, QUERY = convirt_8x200.CANDIDATES, convirt_8x200.QUERY_IMAGES
DAMAGED = {
    write_layout: [
        (IMAGES, lambda t: t.replace("Edema", "Oedema", 1), "`Edema` must be a column of"),
        (IMAGES, lambda t: t.replace("1.0,", "0.0,"), "`candidate` must be positive for one.*1"),
        (IMAGES, lambda t: t.replace("study2", "study1"), "`Path` .*row 2, which repeats row 1"),
        (IMAGES, lambda t: t.replace(f"{PLACE}/", ""), "`Path` must be such as .*row 1 of"),
        (QUERY, lambda t: t.replace("Edema", "Oedema"), "`Variable` must be one of .*row 1 of"),
        (QUERY, lambda t: t.replace("Path", "path"), "`Path` must be a column .*names: path"),
        (QUERY, lambda t: t.replace("Variable", "Category"), "`Variable` must be a column of"),
        (QUERY, None, r"`input` must be a folder with image-retrieval/query\.csv"),
    ]
}


def test_candidates_have_one_category_and_queries_nothing_else(archive, decoded):
    others = {name: NEGATIVE for name in convirt_8x200.CATEGORIES}
    assert len(others) == 8
    assert decoded(convirt_8x200, archive, "chexpert14") == {
        "candidate/patient1/study1/view1_frontal.jpg": others | {"Fracture": POSITIVE},
        "candidate/patient1/study2/view1_frontal.jpg": others | {"Edema": POSITIVE},
        "candidate/patient2/study1/view1_frontal.jpg": others | {"No Finding": POSITIVE},
        "query/patient1/study3/view2_lateral.jpg": {"Edema": POSITIVE},
    }
    rows = list(convirt_8x200.image_rows(archive))
    assert [row.patient_id for row in rows] == ["patient1", "patient1", "patient2", "patient1"]
    assert [row.study_id for row in rows][:2] == ["patient1/study1", "patient1/study2"]
    assert [row.view for row in rows] == ["frontal", "frontal", "frontal", "lateral"]
    assert {row.split for row in rows} == {"test"}


def test_images_are_found_in_chexpert_beside_the_folder(archive):
    (archive / "CheXpert-v1.0-small").rename(archive.parent / "CheXpert-v1.0")
    first, *_ = convirt_8x200.image_rows(archive)
    assert convirt_8x200.read_image(first).startswith(b"\xff\xd8")


def test_query_sentences_are_reports_by_category(archive):
    rows = list(convirt_8x200.report_rows(archive))
    assert [row.report_id for row in rows] == ["Edema/1", "Fracture/1", "Edema/2"]
    assert {row.split for row in rows} == {"test"}
    assert convirt_8x200.read_report(rows[0]) == (Section("body", "Wet, swollen lungs."),)
    with pytest.raises(BadRowError, match="no text"):
        convirt_8x200.read_report(ReportRow("Edema/1", "Edema/1", "Edema/1", "query.csv"))


def test_missing_tables_and_repeated_sentences_are_refused(archive):
    (archive / convirt_8x200.QUERY_SENTENCES).write_text(SENTENCES + "Fracture,Wetter lungs.\n")
    with pytest.raises(ValueError, match=r"`Text` .*row 4, which repeats row 3") as error:
        next(convirt_8x200.report_rows(archive))
    assert "Wetter" not in str(error.value)
    (archive / convirt_8x200.QUERY_SENTENCES).unlink()
    with pytest.raises(ValueError, match=r"`input` must be a folder with text-retrieval/query\.csv"):
        next(convirt_8x200.report_rows(archive))


def test_real_tables_have_the_counts_of_their_readme(medclip_data):
    root = medclip_data / "convirt_8x200"
    rows = list(convirt_8x200.image_rows(root))
    candidates, queries = rows[:1600], rows[1600:]
    assert all(row.image_id.startswith("candidate/") for row in candidates)
    sentences = list(convirt_8x200.report_rows(root))
    assert (len(candidates), len(queries), len(sentences)) == (1600, 80, 40)

    for rows, count in ((candidates, 200), (queries, 10)):
        positives = [name for row in rows for name, state in row.labels.items() if state == POSITIVE]
        assert collections.Counter(positives) == dict.fromkeys(convirt_8x200.CATEGORIES, count)
    by_category = collections.Counter(row.report_id.partition("/")[0] for row in sentences)
    assert by_category == dict.fromkeys(convirt_8x200.CATEGORIES, 5)
    patients = [{row.patient_id for row in rows} for rows in (candidates, queries)]
    assert (len(patients[0]), len(patients[0] & patients[1])) == (1559, 6)
