"""Open-i: reports from an archive or a folder, images from a folder or by a table."""

import io
import re
import tarfile

import pytest

from medclip_keras.knowledge.sections import Section
from medclip_keras.sources import openi
from medclip_keras.sources.rows import BadRowError, ReportRow


def report(findings="The heart is large.", impression="Big heart."):
    return f"""<?xml version="1.0" encoding="utf-8"?>
<eCitation><uId id="CXR7"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText>
<AbstractText Label="INDICATION"/>
<AbstractText Label="FINDINGS">{findings}</AbstractText>
<AbstractText Label="IMPRESSION">{impression}</AbstractText>
</Abstract></Article></MedlineCitation></eCitation>""".encode()


def write_archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_archive_and_folder_hold_the_same_reports(tmp_path):
    files = {
        "ecgen-radiology/7.xml": report(),
        "ecgen-radiology/12.xml": report(findings="", impression="Normal &amp; clear."),
        "ecgen-radiology/readme.txt": b"not a report",
        "ecgen-radiology/._7.xml": b"\0 of a Macintosh",
        "__MACOSX/ecgen-radiology/7.xml": b"\0",
    }
    archive = tmp_path / "NLMCXR_reports.tgz"
    write_archive(archive, files)
    folder = tmp_path / "unpacked"
    (folder / "ecgen-radiology").mkdir(parents=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    expected = {
        "CXR7": (
            Section("comparison", "None."),
            Section("findings", "The heart is large."),
            Section("impression", "Big heart."),
        ),
        "CXR12": (Section("comparison", "None."), Section("impression", "Normal & clear.")),
    }
    for path in (archive, folder, folder / "ecgen-radiology"):
        rows = list(openi.report_rows(str(path)))
        assert {row.report_id: openi.read_report(row) for row in rows} == expected
        assert [row.patient_id for row in rows] == [row.report_id for row in rows]  # no patients are named
    assert all(row.content is not None for row in openi.report_rows(str(archive)))
    assert all(row.content is None for row in openi.report_rows(str(folder)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (report()[:-40], r"not well-formed XML \(line \d+, column \d+\)"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"<eCitation/>", "no AbstractText"),
        (None, "cannot be read"),
    ],
)
def test_unreadable_reports_are_bad_rows_without_their_text(content, reason):
    row = ReportRow("CXR7", "CXR7", "CXR7", path="nowhere/7.xml", content=content)
    with pytest.raises(BadRowError, match=reason) as error:
        openi.read_report(row)
    assert "heart" not in str(error.value)
    assert "CXR7" not in str(error.value)


def test_report_without_text_is_empty_not_bad():
    content = b'<eCitation><AbstractText Label="FINDINGS"/></eCitation>'
    assert openi.read_report(ReportRow("CXR7", "CXR7", "CXR7", path="", content=content)) == ()


def test_wrong_paths_are_refused_at_the_first_row(tmp_path):
    with pytest.raises(ValueError, match=r"`input` must be NLMCXR_reports.tgz .* Received: '/nowhere'"):
        next(openi.report_rows("/nowhere"))
    with pytest.raises(ValueError, match="`input` must be an archive or folder with files such as ecgen"):
        next(openi.report_rows(str(tmp_path)))
    with pytest.raises(ValueError, match=r"`input` must be a folder with images such as .*unpack it\."):
        next(openi.image_rows(str(tmp_path)))
    archive = tmp_path / "reports.tgz"
    write_archive(archive, {f"ecgen-radiology/{k}.xml": report(findings=str(k) * 999) for k in range(50)})
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(ValueError, match="must be a complete tar archive"):
        list(openi.report_rows(str(archive)))


IMAGES = ("CXR1_1_IM-0001-3001.png", "CXR2_IM-0652-2001.png", "CXR10_IM-0002-1001-0002.png")
PROJECTIONS = """uid,filename,projection
2,2_IM-0652-2001.dcm.png,Lateral
1,1_IM-0001-3001.dcm.png,Frontal
10,10_IM-0002-1001-0002.dcm.png,Frontal
"""


def write_layout(folder, image_file):
    """What both downloads unpack to, the reports still packed, with Kaggle's table."""
    root = folder / "openi"
    (root / "NLMCXR_png").mkdir(parents=True)
    for seed, name in enumerate(IMAGES):
        (root / "NLMCXR_png" / name).write_bytes(image_file(seed))
    (root / "NLMCXR_png" / "README.png").write_bytes(b"no image of a report")
    write_archive(root / openi.ARCHIVE, {f"ecgen-radiology/{k}.xml": report() for k in (1, 2, 10)})
    (root / openi.TABLE).write_text(PROJECTIONS)
    return root


KAGGLE_REPORTS = """uid,MeSH,Problems,image,indication,comparison,findings,impression
10,Cardiomegaly/mild,Cardiomegaly,Xray Chest PA,XXXX pain,None.,The heart is large.,Big heart.
2,normal,normal,PA,,,,
1,normal,normal,PA,,,Clear lungs.,
"""


def write_kaggle_layout(folder, image_file):
    """Kaggle's copy: two tables and images under its names."""
    root = folder / "kaggle"
    (root / "images" / "images_normalized").mkdir(parents=True)
    for seed, name in enumerate(re.findall(r"[^,]+\.dcm\.png", PROJECTIONS)):
        (root / "images" / "images_normalized" / name).write_bytes(image_file(seed))
    (root / openi.TABLE).write_text(PROJECTIONS)
    (root / openi.REPORT_TABLE).write_text(KAGGLE_REPORTS)
    return root


TABLE = openi.TABLE
DAMAGED = {
    write_layout: [
        (TABLE, lambda t: t.replace("projection", "view"), "`projection` must be a column of"),
        (TABLE, lambda t: t.replace("Lateral", "Oblique"), "`projection` must be Frontal .*row 1 of"),
        (TABLE, lambda t: t.replace("10_IM-0002", "ten"), "`filename` must be a name such .*row 3 of"),
        (TABLE, lambda t: t + "2,CXR2_IM-0652-2001.png,Frontal", "`filename` .*row 4, which repeats row 1"),
    ],
    write_kaggle_layout: [
        (TABLE, lambda t: t.replace("filename", "file"), "`filename` must be a column of"),
        (TABLE, lambda t: t + t.split("\n")[2], "`filename` .*row 4, which repeats row 2"),
    ],
}


@pytest.fixture
def download(tmp_path, image_file):
    """The same without the table."""
    root = write_layout(tmp_path, image_file)
    (root / openi.TABLE).unlink()
    return root


def test_images_join_their_own_reports(download):
    rows = list(openi.image_rows(str(download)))
    assert [(row.image_id, row.study_id, row.patient_id) for row in rows] == [
        ("CXR10_IM-0002-1001-0002", "CXR10", "CXR10"),
        ("CXR1_IM-0001-3001", "CXR1", "CXR1"),
        ("CXR2_IM-0652-2001", "CXR2", "CXR2"),
    ]
    assert {row.view for row in rows} == {""}
    assert {row.study_id for row in rows} == {row.study_id for row in openi.report_rows(str(download))}
    assert list(openi.image_rows(str(download / "NLMCXR_png"))) == rows


def test_table_of_projections_gives_views_and_names_what_is_missing(download, decoded):
    (download / openi.TABLE).write_text(PROJECTIONS)
    (download / "NLMCXR_png" / IMAGES[0]).unlink()
    rows = list(openi.image_rows(str(download)))
    views = {"CXR2": "lateral", "CXR1": "frontal", "CXR10": "frontal"}
    assert [(row.study_id, row.view) for row in rows] == list(views.items())
    assert decoded(openi, download) == {
        "CXR2_IM-0652-2001": {},
        "CXR1_IM-0001-3001": "the file does not exist",
        "CXR10_IM-0002-1001-0002": {},  # labels come with the reports
    }


def test_kaggles_folder_gives_the_same_rows(download, tmp_path_factory):
    (download / openi.TABLE).write_text(PROJECTIONS)
    kaggle = tmp_path_factory.mktemp("kaggle")
    (kaggle / "images" / "images_normalized").mkdir(parents=True)
    (kaggle / openi.TABLE).write_text(PROJECTIONS)
    for name in re.findall(r"\S+\.dcm\.png", PROJECTIONS.replace(",", " ")):
        (kaggle / "images" / "images_normalized" / name).write_bytes(name.encode())
    ours, theirs = ([*openi.image_rows(str(root))] for root in (download, kaggle))
    assert [(row.image_id, row.view) for row in ours] == [(row.image_id, row.view) for row in theirs]
    assert openi.read_image(theirs[0]) == b"2_IM-0652-2001.dcm.png"


def test_real_reports_name_images_as_the_files_are_called(medclip_data):
    archive = str(medclip_data / "openi" / "NLMCXR_reports_dev.tgz")
    for row in list(openi.report_rows(archive))[::50]:
        for name in re.findall(r'<parentImage id="([^"]+)"', row.content.decode()):
            assert f"CXR{openi._IMAGE.fullmatch(f'{name}.png')['report']}" == row.study_id


def test_kaggles_table_of_reports_is_read_without_xml(tmp_path, image_file):
    root = write_kaggle_layout(tmp_path, image_file)
    rows = list(openi.report_rows(root))
    assert [(row.report_id, row.patient_id) for row in rows] == [(f"CXR{k}", f"CXR{k}") for k in (10, 2, 1)]
    assert {row.study_id for row in rows} == {row.study_id for row in openi.image_rows(root)}
    assert [openi.read_report(row) for row in rows] == [
        (
            Section("comparison", "None."),
            Section("indication", "XXXX pain"),
            Section("findings", "The heart is large."),
            Section("impression", "Big heart."),
        ),
        (),
        (Section("findings", "Clear lungs."),),
    ]
    (root / "ecgen-radiology").mkdir()
    (root / "ecgen-radiology" / "7.xml").write_bytes(report())
    assert [row.report_id for row in openi.report_rows(root)] == ["CXR7"]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda t: t.replace("uid,", "id,"), "`uid` must be a column of .*indiana_reports"),
        (
            lambda t: t.replace("impression", "Impression", 1),
            "`impression` must be a column .*names: Impression",
        ),
        (lambda t: t + "10,,,,,,Twice.,\n", "`uid` must be different .*'row 4, which repeats row 1'"),
        (
            lambda t: t.replace(",Clear lungs.,", ',"Clear lungs.,'),
            "`input` must be a table with closed quotation",
        ),
        (lambda t: t.partition("\n")[0] + "\n", "`input` must be an archive or folder with files such as"),
    ],
)
def test_a_damaged_table_of_reports_is_refused(tmp_path, image_file, damage, sentence):
    root = write_kaggle_layout(tmp_path, image_file)
    (root / openi.REPORT_TABLE).write_text(damage(KAGGLE_REPORTS))
    with pytest.raises(ValueError, match=sentence) as error:
        next(openi.report_rows(root))
    assert "lungs" not in str(error.value)
