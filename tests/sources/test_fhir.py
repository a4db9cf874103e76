"""FHIR: which versions of a report are read, what is its text, its study and its patient."""

import base64
import gzip
import json

import numpy as np
import pytest
from PIL import Image

from medclip_keras.knowledge.sections import Section
from medclip_keras.sources import fhir
from medclip_keras.sources.rows import BadRowError

TEXT = "FINDINGS: Small left effusion.\nIMPRESSION: Pleural effusion."
SECTIONS = (Section("findings", "Small left effusion."), Section("impression", "Pleural effusion."))


def form(text=TEXT, kind="text/plain", charset="utf-8"):
    return {"contentType": kind, "data": base64.b64encode(text.encode(charset)).decode()}


def uid(value):
    return {"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{value}"}}


def report(name="r1", **elements):
    return {
        "resourceType": "DiagnosticReport",
        "id": name,
        "status": "final",
        "category": [
            {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD"}]}
        ],
        "subject": {"reference": "Patient/x1", "display": "Jane Doe", "identifier": {"value": "ID-1"}},
        "imagingStudy": [uid("1.2.1")],
        "presentedForm": [form()],
        **elements,
    }


def write(path, resources):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(resource) + "\n" for resource in resources))
    return path


def read(path):
    """{(report, study, patient): sections}."""
    rows = list(fhir.report_rows(str(path)))
    return {(row.report_id, row.study_id, row.patient_id): fhir.read_report(row) for row in rows}


LAB = [{"coding": [{"code": "LAB"}]}]


def write_layout(folder, image_file=None):
    """An export in three files: reports, the study and the patient that one of them names by reference."""
    study = {"resourceType": "ImagingStudy", "id": "s3", "identifier": [uid("1.2.3")["identifier"]]}
    numbers = [{"value": "social-security"}, {"type": {"coding": [{"code": "MR"}]}, "value": "ID-2"}]
    patient = {"resourceType": "Patient", "id": "x2", "identifier": numbers, "name": [{"family": "Doe"}]}
    by_reference = {
        "imagingStudy": [{"reference": "ImagingStudy/s3"}],
        "subject": {"reference": "https://fhir.example.org/r4/Patient/x2/_history/3"},
    }
    reports = [
        report(),
        report("r2", **by_reference),
        report("r3", status="preliminary"),
        report("r4", category=LAB),
    ]
    write(folder / "fhir" / "DiagnosticReport.ndjson", reports)
    write(folder / "fhir" / "ImagingStudy.ndjson", [study])
    write(folder / "fhir" / "Patient.000.ndjson", [patient])
    (folder / "fhir" / "manifest.json").write_text("{}")
    return folder / "fhir"


def test_an_export_gives_its_final_reports_of_radiology_with_study_and_patient(tmp_path):
    found = read(write_layout(tmp_path))
    assert found == {("r1", "ID-1/1.2.1", "ID-1"): SECTIONS, ("r2", "ID-2/1.2.3", "ID-2"): SECTIONS}


def test_a_file_gives_the_rows_of_its_folder_packed_or_not(tmp_path):
    path = write(tmp_path / "DiagnosticReport.ndjson", [report()])
    expected = {("r1", "ID-1/1.2.1", "ID-1"): SECTIONS}
    assert read(path) == read(tmp_path) == expected
    packed = tmp_path / "packed" / "DiagnosticReport.ndjson.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + path.read_bytes() + b"\n"))
    assert read(packed) == expected


@pytest.mark.parametrize("status", ["final", "amended", "corrected", "appended"])
def test_finished_reports_are_read(status, tmp_path):
    assert len(read(write(tmp_path / "r.ndjson", [report(status=status)]))) == 1


@pytest.mark.parametrize(
    "status", ["registered", "partial", "preliminary", "cancelled", "entered-in-error", "unknown", "", None]
)
def test_unfinished_and_withdrawn_reports_are_not_read(status, tmp_path):
    reports = [report("kept"), report("r1", status=status)]
    assert [name for name, *_ in read(write(tmp_path / "r.ndjson", reports))] == ["kept"]
    with pytest.raises(ValueError, match="`input` must be a DiagnosticReport in radiology that is final"):
        next(fhir.report_rows(str(write(tmp_path / "r.ndjson", reports[1:]))))


def version(name, updated, text=TEXT, **elements):
    return report(name, presentedForm=[form(text)], meta={"lastUpdated": updated}, **elements)


def test_of_several_versions_the_last_one_counts(tmp_path):
    number = {"identifier": [{"system": "urn:ris", "value": "A7"}]}
    reports = [
        version("r1", "2024-02-02", "IMPRESSION: Corrected.", status="amended"),
        version("r1", "2024-01-01", "IMPRESSION: First."),
        version("r2", "2024-01-01", "IMPRESSION: First.", **number),
        version("r3", "2024-03-01", "IMPRESSION: Other id, the same number.", status="corrected", **number),
        version("r4", "2024-01-01"),
        version("r4", "2024-01-02", status="entered-in-error"),
    ]
    found = {
        name: sections[0].text for (name, *_), sections in read(write(tmp_path / "r.ndjson", reports)).items()
    }
    assert found == {"r1": "Corrected.", "r3": "Other id, the same number."}


def test_times_of_versions_are_compared_in_utc(tmp_path):
    reports = [
        version("r1", "2024-05-01T09:00:00Z", "IMPRESSION: Later."),
        version("r1", "2024-05-01T10:00:00+02:00", "IMPRESSION: Earlier."),
        version("r2", "2024-05-01T10:00:00Z"),
        version("r2", "2024-05-01T10:00:00.500Z", status="entered-in-error"),
    ]
    found = read(write(tmp_path / "r.ndjson", reports))
    assert {name: sections[0].text for (name, *_), sections in found.items()} == {"r1": "Later."}


def test_reports_of_one_accession_number_are_not_versions_of_each_other(tmp_path):
    accession = {"type": {"coding": [{"code": "ACSN"}]}, "system": "urn:ris", "value": "A7"}
    reports = [report("r1", identifier=[accession]), report("addendum", identifier=[accession])]
    found = read(write(tmp_path / "r.ndjson", reports))
    assert sorted(name for name, *_ in found) == ["addendum", "r1"]


HTML = (
    "<html><head><title>Jane Doe</title><style>p {}</style></head><body><h3>Findings:</h3><p>Small left&nbsp;"
    "effusion.</p><b>Impression:</b> Pleural<br/>effusion &lt; 1 cm.</body></html>"
)


@pytest.mark.parametrize(
    ("elements", "sections"),
    [
        ({"presentedForm": [form(HTML, "text/html"), form()]}, SECTIONS),
        (
            {"presentedForm": [form(HTML, "text/html; charset=UTF-8")]},
            (Section("findings", "Small left effusion."), Section("impression", "Pleural\neffusion < 1 cm.")),
        ),
        (
            {
                "presentedForm": [
                    form("IMPRESSION: Größe 1 cm.", 'text/plain; charset="iso-8859-1"', "latin-1")
                ]
            },
            (Section("impression", "Größe 1 cm."),),
        ),
        (
            {"presentedForm": [form("%PDF", "application/pdf")], "conclusion": " Clear. "},
            (Section("impression", "Clear."),),
        ),
        ({"presentedForm": [], "conclusion": "Clear."}, (Section("impression", "Clear."),)),
        (
            {"presentedForm": [form("IMPRESSION: A."), form("ADDENDUM: B.")]},
            (Section("impression", "A."), Section("addendum", "B.")),
        ),
    ],
    ids=["plain before html", "html", "latin-1", "pdf and conclusion", "conclusion", "two forms"],
)
def test_text_of_a_report(elements, sections, tmp_path):
    (found,) = read(write(tmp_path / "r.ndjson", [report(**elements)])).values()
    assert found == sections


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"presentedForm": [form("%PDF", "application/pdf")]}, "no attachment of text and no conclusion"),
        ({"presentedForm": [{"contentType": "text/plain", "url": "Binary/1"}]}, "no attachment of text"),
        (
            {"presentedForm": [{"contentType": "text/plain", "data": "§§"}]},
            "no text in base64 of its charset",
        ),
        ({"presentedForm": [form("Größe", charset="latin-1")]}, "no text in base64 of its charset"),
        ({"presentedForm": [form(kind="text/plain; charset=klingon")]}, "no text in base64 of its charset"),
        ({"subject": {"display": "Jane Doe"}}, "names no subject"),
        ({"subject": None}, "names no subject"),
    ],
)
def test_a_damaged_report_is_a_bad_row(elements, reason, tmp_path):
    (row,) = fhir.report_rows(str(write(tmp_path / "r.ndjson", [report(**elements)])))
    with pytest.raises(BadRowError, match=reason) as error:
        fhir.read_report(row)
    assert "Jane" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            json.dumps(report()) + "\n" + json.dumps(report())[:200],
            "lines of JSON objects in UTF-8. Received: 'line 2 of",
        ),
        ("[1]\n", "lines of JSON objects in UTF-8. Received: 'line 1 of"),
        ("<html>404</html>", "lines of JSON objects"),
        ("version https://git-lfs.github.com/spec/v1\n", "lines of JSON objects"),
        ("", "a DiagnosticReport in radiology that is final"),
        (json.dumps(report(category=LAB)), "a DiagnosticReport in radiology that is final"),
    ],
)
def test_a_damaged_file_is_refused_before_any_row(content, sentence, tmp_path):
    (tmp_path / "r.ndjson").write_text(content)
    with pytest.raises(ValueError, match=f"^`input` must be {sentence}"):
        next(fhir.report_rows(str(tmp_path)))
    (tmp_path / "r.ndjson").unlink()
    with pytest.raises(
        ValueError, match=r"^`input` must be a file \.ndjson or \.ndjson\.gz, or a folder of them"
    ):
        next(fhir.report_rows(str(tmp_path)))


@pytest.mark.parametrize(
    ("elements", "studies"),
    [
        ({"imagingStudy": [uid("1.2.1"), uid("1.2.5"), uid("1.2.1")]}, {"r1": "1.2.1", "r1 1": "1.2.5"}),
        ({"imagingStudy": [], "study": [uid("1.2.6")]}, {"r1": "1.2.6"}),
        ({"imagingStudy": []}, {"r1": "DiagnosticReport/r1"}),
        ({"imagingStudy": [{"reference": "ImagingStudy/unknown"}]}, {"r1": "ImagingStudy/unknown"}),
        (
            {
                "imagingStudy": [{"reference": "#one"}],
                "contained": [{"resourceType": "ImagingStudy", "id": "one", "uid": "urn:oid:1.2.7"}],
            },
            {"r1": "1.2.7"},
        ),
    ],
    ids=["two", "R5", "none", "not exported", "contained"],
)
def test_studies_of_a_report(elements, studies, tmp_path):
    rows = fhir.report_rows(str(write(tmp_path / "r.ndjson", [report(**elements)])))
    assert {row.report_id: row.study_id for row in rows} == {k: f"ID-1/{v}" for k, v in studies.items()}


def contained(number):
    patient = {"resourceType": "Patient", "id": "pat", "identifier": [{"value": number}] if number else []}
    return {"subject": {"reference": "#pat"}, "contained": [patient]}


def test_patients_inside_of_reports_are_known_by_their_numbers(tmp_path):
    reports = [report("r1", **contained("MRN-1")), report("r2", **contained("MRN-2"))]
    rows = list(
        fhir.report_rows(str(write(tmp_path / "r.ndjson", [*reports, report("r3", **contained(""))])))
    )
    assert [row.patient_id for row in rows] == ["MRN-1", "MRN-2", ""]
    with pytest.raises(BadRowError, match="names no subject"):
        fhir.read_report(rows[2])


def test_exports_of_two_servers_in_one_folder_are_refused_without_a_number(tmp_path):
    patients = [{"resourceType": "Patient", "id": "1", "identifier": [{"value": n}]} for n in ("A-7", "B-9")]
    later = {"resourceType": "Patient", "id": "1"}  # a version without a number
    by_reference = report(subject={"reference": "Patient/1"})
    rows = fhir.report_rows(str(write(tmp_path / "r.ndjson", [by_reference, later, patients[0], later])))
    assert [row.patient_id for row in rows] == ["A-7"]
    write(tmp_path / "r.ndjson", [report(), *patients[:1], *patients])
    with pytest.raises(ValueError, match=r"one patient for each Patient\.id\. Received: 'line 4 of") as error:
        list(fhir.report_rows(str(tmp_path)))
    assert "B-9" not in str(error.value)


def test_cells_of_a_page_are_lines_of_their_own(tmp_path):
    page = "<table><tr><td>Pneumothorax</td><td>No effusion.</td></tr></table><dl><dt>A</dt><dd>B</dd></dl>"
    forms = [form(page, "text/html")]
    (sections,) = read(write(tmp_path / "r.ndjson", [report(presentedForm=forms)])).values()
    assert [section.text for section in sections] == ["Pneumothorax\nNo effusion.\nA\nB"]


def test_reports_join_the_images_of_a_folder_of_dicom_files(tmp_path):
    from test_dicom import write_layout as write_dicom

    from beam_jobs import decode_images, label_reports

    def image_file(*_):
        return b"no image"

    reports = label_reports.run(
        source="fhir", input=str(write_layout(tmp_path)), output=str(tmp_path / "out/reports")
    )
    assert (reports.counts["records"], reports.counts["bad_rows"]) == (2, 0)
    images = decode_images.run(
        source="dicom",
        input=str(write_dicom(tmp_path, image_file)),
        output=str(tmp_path / "out/images"),
        reports=str(tmp_path / "out/reports"),
        image_size=16,
    )
    assert images.counts["images_with_sentences"] == 3  # two of study 1.2.1, one of 1.2.3; none of 1.2.2


def test_the_reports_of_a_table_join_the_images_of_a_folder_of_dicom_files_and_its_images_fhir_reports(
    tmp_path,
):
    from test_dicom import write_layout as write_dicom

    from beam_jobs import decode_images, label_reports

    table = tmp_path / "table" / "both.csv"
    table.parent.mkdir()
    rows = ["path,patient_id,study_id,report", "1.png,ID-1,1.2.1,No effusion.", "2.png,ID-2,1.2.3,Edema."]
    table.write_text("\n".join(rows))
    for name in ("1.png", "2.png"):
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(table.parent / name)
    inputs = {"fhir": str(write_layout(tmp_path)), "csv": str(table)}
    inputs["dicom"] = str(write_dicom(tmp_path, lambda *_: b"no image"))
    joined = {}
    for texts, images in (("csv", "dicom"), ("fhir", "csv")):
        reports = str(tmp_path / "out" / texts)
        label_reports.run(source=texts, input=inputs[texts], output=reports)
        output, side = str(tmp_path / "out" / f"{images} with {texts}"), {"image_size": 16}
        made = decode_images.run(source=images, input=inputs[images], output=output, reports=reports, **side)
        joined[texts] = made.counts["images_with_sentences"]
    assert joined == {"csv": 3, "fhir": 2}
