"""DICOM files and folders: what is read of a header, and what is passed over."""

import numpy as np
import pydicom
import pytest
from dicom_files import SECRETS, decode, make, to_bytes
from etils import epath

from medclip_keras.sources import dicom
from medclip_keras.sources.rows import BadRowError, ImageRow


def read(path):
    return dicom.read_image(ImageRow("i", "s", "p", str(path)))


def test_only_elements_of_the_picture_are_parsed():
    file_bytes = to_bytes(make())
    assert all(secret.encode() in file_bytes for secret in SECRETS.values())
    assert not {*SECRETS} & {*dicom._read_header(file_bytes, dicom._PICTURE).dir()}


def test_burned_in_annotation_is_refused_unless_allowed(tmp_path, monkeypatch):
    path = tmp_path / "1.dcm"
    path.write_bytes(to_bytes(make(BurnedInAnnotation="YES")))
    monkeypatch.delenv(dicom.ALLOW_ANNOTATION, raising=False)
    with pytest.raises(BadRowError, match="burned into the picture; --allow_annotation"):
        read(path)
    np.testing.assert_array_equal(decode(path.read_bytes(), allow_annotation=True), decode(make()))
    monkeypatch.setenv(dicom.ALLOW_ANNOTATION, "1")
    np.testing.assert_array_equal(read(path), decode(make()))
    assert decode(make(BurnedInAnnotation="NO")).any()


def test_other_image_files_pass_as_they_are(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"\xff\xd8 pixels")
    assert read(tmp_path / "1.jpg") == b"\xff\xd8 pixels"
    (tmp_path / "no_suffix").write_bytes(to_bytes(make()))
    np.testing.assert_array_equal(read(tmp_path / "no_suffix"), decode(make()))
    (tmp_path / "1.dcm").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(BadRowError, match="not a whole DICOM file"):
        read(tmp_path / "1.dcm")


def test_views_are_told_by_the_header(tmp_path):
    path = tmp_path / "1.dcm"
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "399067008", "SCT", "lateral"
    views = {"PA": "frontal", "AP": "frontal", "LL": "lateral", "RAO": ""}
    headers = [({"ViewPosition": position}, view) for position, view in views.items()]
    coded = {"ViewPosition": "", "ViewCodeSequence": [code]}
    for elements, view in (*headers, (coded, "lateral"), ({}, "")):
        path.write_bytes(to_bytes(make(**elements)))
        assert dicom.view_of_file(path) == view
    path.write_bytes(b"no DICOM")
    assert dicom.view_of_file(path) == ""


def test_the_real_pair_is_a_picture_and_its_negative(medclip_data):
    # Both files hold the same stored values; only the tag says which end is white.
    paths = sorted((medclip_data / "dicom").glob("*.dcm"))
    one, two = map(read, paths)
    assert one.shape == (1024, 1024)
    np.testing.assert_array_equal(one, 65535 - two)
    assert {dicom.view_of_file(path) for path in paths} == {"frontal"}


RADIOGRAPHS = {  # file: (SOPInstanceUID, also repeated ones; study, patient, elements)
    "EXPORT/PAT1/ST1/IM1": ("1.1", "1.2.1", "ID-1", {"Modality": "DX", "ViewPosition": "PA"}),
    "EXPORT/PAT1/ST1/IM2.dcm": ("1.2", "1.2.1", "ID-1 ", {"Modality": "CR", "ViewPosition": "LL"}),
    "EXPORT/PAT1/ST2/IM1": ("1.3", "1.2.2", "ID-1", {"Modality": "DX"}),
    "EXPORT/PAT2/ST3/00000001": ("1.1", "1.2.3", "ID-2", {}),
}
OTHERS = {"SR": "EXPORT/PAT1/ST1/SR1", "CT": "EXPORT/PAT2/ST3/CT1.dcm"}


def radiograph(seed, image="9.9", study="", patient="", **elements):
    pixels = np.random.default_rng(seed).integers(0, 4096, (20, 28)).astype(np.uint16)
    identifiers = {"SOPInstanceUID": image, "StudyInstanceUID": study, "PatientID": patient}
    comments = {"ImageComments": "Effusion on the left.", "PatientBirthDate": "19500101"}
    return to_bytes(make(pixels, **{**identifiers, **comments, **elements}))


def write_layout(folder, image_file):
    """An export of two patients: folders of any depth, a directory, a dose report, a slice and a viewer."""
    root = folder / "dicom"
    files = {name: radiograph(k, *ids, **more) for k, (name, (*ids, more)) in enumerate(RADIOGRAPHS.items())}
    files |= {OTHERS[kind]: radiograph(9, "2.1", "1.2.1", "ID-1", Modality=kind) for kind in OTHERS}
    files |= {"DICOMDIR": radiograph(9), "AUTORUN.INF": b"[autorun]", "viewer.jpg": image_file(1, "jpeg")}
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_a_folder_gives_its_radiographs_by_the_headers(tmp_path, image_file, decoded):
    root = write_layout(tmp_path, image_file)
    rows = {row.path.removeprefix(f"{root}/"): row for row in dicom.image_rows(root)}
    assert list(rows) == sorted(RADIOGRAPHS)
    for name, (_, study, patient, elements) in RADIOGRAPHS.items():
        row = rows[name]
        patient = patient.strip()
        assert (row.image_id, row.study_id, row.patient_id) == (name, f"{patient}/{study}", patient)
        assert row.view == dicom.view_of_position(elements.get("ViewPosition", ""))
    assert dicom.passed_over(root) == {
        "DICOMDIR": 1,
        "no DICOM file": 2,
        "modality SR": 1,
        "modality CT": 1,
    }
    assert decoded(dicom, root) == {name: {} for name in RADIOGRAPHS}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda b: b[:-300], "the pixels of the DICOM file cannot be decoded (ValueError)"),
        (lambda b: b[:400], "no pixels: the DICOM file is truncated or no image"),
        (
            lambda b: b"version https://git-lfs.github.com/spec/v1\n",
            "not a whole DICOM file (InvalidDicomError)",
        ),
        (lambda b: radiograph(0, "1.2", "1.2.1", ""), "the header names no patient or no study"),
        (lambda b: radiograph(0, "1.2", "", "ID-1"), "the header names no patient or no study"),
        (lambda b: radiograph(0, "1.2", "1.2.1", "ID-1", NumberOfFrames=2), "holds several frames"),
    ],
    ids=["cut in pixels", "cut in the header", "LFS pointer", "no patient", "no study", "frames"],
)
def test_a_damaged_file_of_a_folder_is_a_bad_row(damage, reason, tmp_path, image_file, decoded):
    root = write_layout(tmp_path, image_file)
    path = root / "EXPORT/PAT1/ST1/IM2.dcm"
    path.write_bytes(damage(path.read_bytes()))
    outcomes = decoded(dicom, root)
    assert len(outcomes) == 4
    (said,) = filter(None, outcomes.values())
    assert reason in said
    assert "ID-1" not in said


def test_hidden_files_are_passed_over_and_links_to_nowhere_are_bad_rows(tmp_path, image_file, decoded):
    root = write_layout(tmp_path, image_file)
    for name in ("EXPORT/PAT1/._IM2.dcm", ".Trashes/IM1.dcm", "__MACOSX/EXPORT/IM1"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"resource fork")
    for name in ("EXPORT/lost.dcm", "EXPORT/lost"):
        (root / name).symlink_to(tmp_path / "nowhere")
    found = dicom.passed_over(root)
    assert (found["hidden"], found["link to nowhere"]) == (3, 1)
    said = decoded(dicom, root)
    assert [name for name, reason in said.items() if reason] == ["EXPORT/lost.dcm"]
    assert said["EXPORT/lost.dcm"] == "the file does not exist"


def test_a_folder_on_a_bucket_reads_as_one_on_this_machine(tmp_path, image_file, request):
    root = write_layout(tmp_path, image_file)
    before = list(dicom.image_rows(root)), dicom.passed_over(root)
    request.getfixturevalue("like_a_bucket")
    assert (list(dicom.image_rows(root)), dicom.passed_over(root)) == before


def test_a_file_that_may_not_be_read_is_a_bad_row(tmp_path, image_file, monkeypatch):
    root, opened = write_layout(tmp_path, image_file), type(epath.Path("/")).open

    def refuse(path, *mode):
        if path.name == "IM1":
            raise PermissionError(path)
        return opened(path, *mode)

    monkeypatch.setattr(type(epath.Path("/")), "open", refuse)
    rows = {row.image_id: row.patient_id for row in dicom.image_rows(root)}
    assert {name for name, patient in rows.items() if not patient} == {n for n in rows if n.endswith("IM1")}
    assert len(rows) == len(RADIOGRAPHS)


@pytest.mark.parametrize("kind", [b"FD", b"ZZ"])
def test_a_damaged_identifier_is_a_bad_row_without_its_value(kind, tmp_path, image_file, decoded):
    root = write_layout(tmp_path, image_file)
    path = root / "EXPORT/PAT1/ST1/IM2.dcm"
    content, tag = path.read_bytes(), b"\x10\x00\x20\x00"  # PatientID
    assert content.count(tag + b"LO") == 1
    path.write_bytes(content.replace(tag + b"LO", tag + kind))
    said = decoded(dicom, root)
    assert [name for name, reason in said.items() if reason] == ["EXPORT/PAT1/ST1/IM2.dcm"]
    assert "ID-1" not in said["EXPORT/PAT1/ST1/IM2.dcm"]


def test_folders_without_a_radiograph_are_refused(tmp_path, image_file):
    with pytest.raises(ValueError, match="`input` must be a folder of DICOM files"):
        next(dicom.image_rows(tmp_path / "nowhere"))
    (tmp_path / "1.png").write_bytes(image_file(0))
    with pytest.raises(ValueError, match="`input` must be a folder with DICOM radiographs in it"):
        next(dicom.image_rows(tmp_path))


def test_records_of_a_folder_hold_no_identifier_and_no_text_of_a_header(tmp_path, image_file, capsys):
    from beam_jobs import decode_images

    root = write_layout(tmp_path / "in", image_file)
    options = {"source": "dicom", "input": str(root), "image_size": 16}
    decode_images.run(**options, output=str(tmp_path / "out" / "records"))
    written = b"".join(path.read_bytes() for path in (tmp_path / "out" / "records").iterdir())
    secrets = ["ID-1", "ID-2", "1.2.1", "1.2.3", "Effusion on", "19500101", *SECRETS.values()]
    assert not [secret for secret in secrets if secret.encode() in written]
    assert "Passed over: 2 files (no DICOM file)" in capsys.readouterr().out
    kept = decode_images.run(**options, output=str(tmp_path / "out" / "kept"), keep_ids=True)
    written = b"".join((tmp_path / "out" / "kept" / name).read_bytes() for name in kept.shard_names)
    assert b"ID-1" in written
    assert b"Effusion on" not in written


def test_identifiers_of_a_wrong_form_are_read_without_a_word(tmp_path, recwarn, caplog):
    content = radiograph(0, study="1.2.345", patient="ID-4711")
    (tmp_path / "1").write_bytes(content.replace(b"1.2.345", b"1.2.x45"))
    recwarn.clear()
    (row,) = dicom.image_rows(tmp_path)
    assert (row.study_id, row.patient_id) == ("ID-4711/1.2.x45", "ID-4711")
    assert not [warning for warning in recwarn if "x45" in str(warning.message)]
    assert "x45" not in caplog.text
