import io
import tarfile

import pytest

from medclip_keras.sources import openi
from medclip_keras.sources.rows import BadRowError, ReportRow, Section


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
    }
    archive = tmp_path / "NLMCXR_reports.tgz"
    write_archive(archive, files)
    folder = tmp_path / "unpacked"
    (folder / "ecgen-radiology").mkdir(parents=True)
    for name, content in files.items():
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
    ],
)
def test_unreadable_reports_are_bad_rows_without_their_text(content, reason):
    row = ReportRow("CXR7", "CXR7", "CXR7", path="7.xml", content=content)
    with pytest.raises(BadRowError, match=reason) as error:
        openi.read_report(row)
    assert "heart" not in str(error.value)
    assert "CXR7" not in str(error.value)


def test_missing_file_of_a_folder_is_a_bad_row(tmp_path):
    row = ReportRow("CXR7", "CXR7", "CXR7", path=str(tmp_path / "7.xml"))
    with pytest.raises(BadRowError, match="cannot be read"):
        openi.read_report(row)


def test_report_without_text_is_empty_not_bad():
    content = b'<eCitation><AbstractText Label="FINDINGS"/></eCitation>'
    assert openi.read_report(ReportRow("CXR7", "CXR7", "CXR7", path="", content=content)) == ()


def test_wrong_paths_are_refused_at_the_first_row(tmp_path):
    with pytest.raises(ValueError, match=r"`input` must be NLMCXR_reports.tgz .* Received: '/nowhere'"):
        next(openi.report_rows("/nowhere"))
    with pytest.raises(ValueError, match="with none of them"):
        next(openi.report_rows(str(tmp_path)))
    archive = tmp_path / "reports.tgz"
    write_archive(archive, {f"ecgen-radiology/{k}.xml": report(findings=str(k) * 999) for k in range(50)})
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(ValueError, match="must be a complete tar archive"):
        list(openi.report_rows(str(archive)))


def test_the_real_archive_reads(medclip_data):
    rows = list(openi.report_rows(str(medclip_data / "openi" / "NLMCXR_reports_dev.tgz")))
    assert len(rows) == 3184
    assert len({row.report_id for row in rows}) == len(rows)
    names = {section.name for row in rows for section in openi.read_report(row)}
    assert names == {"comparison", "indication", "findings", "impression"}
