"""Reports of a hospital's FHIR server: `DiagnosticReport` resources, a line each, as bulk export writes them.

Layout on disk: a file `*.ndjson` (or `*.ndjson.gz`), or a folder with such files in it
    DiagnosticReport.ndjson    {"resourceType": "DiagnosticReport", "id": …, "status": …, "subject": …, …}
    ImagingStudy.ndjson        where reports name studies by reference: their StudyInstanceUID
    Patient.ndjson             where reports name patients by reference: their hospital's number
Resources of other types are passed over. FHIR R4 and R5, https://hl7.org/fhir/R4/diagnosticreport.html, as
https://hl7.org/fhir/uv/bulkdata/export.html#bulk-data-output-file-request exports them.

Which reports: those in radiology by `category` (RAD or RX of table 0074, LP29684-5 of LOINC, "imaging"), or
without a category. Those with the status final, amended, corrected or appended; registered, partial and
preliminary ones are not yet, and cancelled, entered-in-error and unknown ones not to be read. Of several
versions of a report (the same `identifier`, or the same `id` if it has none; an accession number, of type
ACSN, is of the examination) the last one by `meta.lastUpdated`, `issued` and line counts: a report that was
withdrawn last is gone.

Text: the attachments in `presentedForm` of type text/plain, else of text/html without its tags, in the
charset that the type names (UTF-8 if none); else `conclusion`, as the impression. PDF files, attachments that
are a `url`, and the generated `text` are not read: a report with nothing else is a bad row.

Study: the StudyInstanceUID (identifier of the system urn:dicom:uid) of `imagingStudy` (R4) or `study` (R5),
given there, in a contained resource or in ImagingStudy.ndjson: so it joins with the source `dicom`. A report
of several studies is a row for each; one without a study joins no image. Patient: `subject.identifier`, else
the identifier of type MR (or the only one) in Patient.ndjson or in a contained resource, else the id of a
reference to the server; with `dicom` it must be the PatientID. Names, dates of birth and performers are not
read. Identifiers are hashed like those of any private archive.

Refused before any work: no such file or folder; a line that is no JSON object; one Patient id with two
numbers, as exports of two servers have; no report to be read. A report without a subject is a bad row.
"""

import base64
import binascii
import datetime
import gzip
import html.parser
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from medclip_keras.errors import refusal, require
from medclip_keras.knowledge.sections import Section, split_sections
from medclip_keras.sources.rows import BadRowError, ReportRow, own_study
from medclip_keras.sources.tables import identifier

CITATION = "The user's own data."
LICENCE = "The user's own."
PRIVATE = True  # keys need a salt of the owner's

SUFFIXES = (".ndjson", ".ndjson.gz")
READ = ("final", "amended", "corrected", "appended")
_RADIOLOGY = ("RAD", "RX", "LP29684-5", "imaging")
_STUDY_SYSTEM = "urn:dicom:uid"
_CHARSET = re.compile(r"charset=\"?([\w.:-]+)")
_BREAKS = (
    "br", "p", "div", "section", "pre", "hr", "ul", "ol", "li", "dt", "dd", "table", "tr", "td", "th",
    "h1", "h2", "h3", "h4", "h5", "h6",
)  # fmt: skip

_KINDS = ("text/plain", "text/html")  # the first one that a report has is read

Resource = Mapping[str, Any]
_Order = tuple[str, str, str, int]  # of versions: lastUpdated, issued, file and line


def report_rows(path: epath.PathLike) -> Iterator[ReportRow]:
    """The reports of a file, or of the files in a folder, in the order of their lines."""
    latest: dict[str, tuple[_Order, bool]] = {}  # of each report: its last version, and whether it is read
    study_of: dict[str, str] = {}
    patient_of: dict[str, str] = {}
    for file, number, resource in _resources(path):
        kind, name = resource.get("resourceType"), str(resource.get("id", ""))
        if kind == "ImagingStudy":
            study_of[name] = _study_uid(resource)
        elif kind == "Patient":
            own = _hospital_number(resource)
            known = patient_of[name] = patient_of.get(name) or own
            advice, place = "Keep the exports of two servers in two folders.", f"line {number} of {file}"
            form = "resources with one patient for each Patient.id"
            require(not own or own == known, "input", form, place, advice)
        elif kind == "DiagnosticReport" and _is_radiology(resource):
            key, version = (
                _key(resource) or f"{file} {number}",
                (_order(resource, file, number), _is_read(resource)),
            )
            latest[key] = max(latest.get(key, version), version)
    places = {order[2:] for order, is_read in latest.values() if is_read}
    require(bool(places), "input", "a DiagnosticReport in radiology that is final", str(path))
    for file, number, resource in _resources(path):  # again: texts need much memory
        if (file, number) in places:
            yield from _rows(resource, file, number, study_of, patient_of)


def read_report(row: ReportRow) -> tuple[Section, ...]:
    """The report's sections; BadRowError for one without a text or a subject."""
    if not row.patient_id:
        raise BadRowError("the report names no subject")
    content = json.loads(row.content or b"{}")
    forms = content.get("presentedForm", ())
    for kind in _KINDS:
        texts = [_text(form) for form in forms if _kind(form) == kind and form.get("data")]
        if any(text.strip() for text in texts):
            return split_sections("\n\n".join(texts))
    conclusion = str(content.get("conclusion") or "").strip()
    if not conclusion:
        raise BadRowError("the report has no attachment of text and no conclusion")
    return (Section("impression", conclusion),)


def _resources(path: epath.PathLike) -> Iterator[tuple[str, int, Resource]]:
    """The resources of the files with their line numbers."""
    root = epath.Path(path)
    files = sorted(root.iterdir()) if root.is_dir() else [root]
    files = [file for file in files if file.name.endswith(SUFFIXES) and file.is_file()]
    require(bool(files), "input", f"a file {' or '.join(SUFFIXES)}, or a folder of them", str(path))
    for file in files:
        with file.open("rb") as raw, gzip.open(raw) if file.name.endswith(".gz") else raw as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield str(file), number, _parse(line, f"line {number} of {file}")


def _parse(line: bytes, place: str) -> Resource:
    try:
        resource = json.loads(line.decode("utf-8-sig"))
    except ValueError:
        resource = None
    if not isinstance(resource, dict):
        raise refusal("input", "lines of JSON objects in UTF-8", place, "Export the resources again.")
    return resource


def _order(report: Resource, file: str, number: int) -> _Order:
    """Sort key of the versions of a report: its times, then its position."""
    updated = (report.get("meta") or {}).get("lastUpdated")
    return _instant(str(updated or "")), _instant(str(report.get("issued") or "")), file, number


def _instant(time: str) -> str:
    """A time in UTC to the microsecond, which sorts as text; what is no time stays as it is.

    >>> _instant("2024-05-01T10:00:00+02:00")
    '2024-05-01T08:00:00.000000+00:00'
    """
    try:
        found = datetime.datetime.fromisoformat(time)
        zoned = found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
        return zoned.astimezone(datetime.UTC).isoformat(timespec="microseconds")
    except (ValueError, OverflowError):  # the latter of the year 1
        return time


def _is_read(report: Resource) -> bool:
    return report.get("status") in READ


def _rows(
    report: Resource, file: str, number: int, study_of: Mapping[str, str], patient_of: Mapping[str, str]
) -> Iterator[ReportRow]:
    """A row for each study of a report."""
    report_id = str(report.get("id") or f"line {number}")
    studies = list(dict.fromkeys(_studies(report, study_of))) or [f"DiagnosticReport/{report_id}"]
    forms = [form for form in _listed(report, "presentedForm") if _kind(form) in _KINDS]
    content = json.dumps({"presentedForm": forms, "conclusion": report.get("conclusion")}).encode()
    patient = identifier(_patient(report, patient_of))
    for position, study in enumerate(studies):
        name = report_id + (f" {position}" if position else "")
        yield ReportRow(name, own_study(patient, identifier(study)), patient, file, content, number=number)


def _patient(report: Resource, patient_of: Mapping[str, str]) -> str:
    subject = report.get("subject") or {}
    reference = str(subject.get("reference", ""))
    if own := _value_in(subject.get("identifier")):
        return own
    if reference.startswith("#"):  # to a resource inside of the report, known by its number alone
        contained = {str(one.get("id")): one for one in _listed(report, "contained")}
        return _hospital_number(contained.get(_id_in(reference), {}))
    return patient_of.get(_id_in(reference)) or _id_in(reference)


def _studies(report: Resource, study_of: Mapping[str, str]) -> Iterator[str]:
    contained = {str(one.get("id")): _study_uid(one) for one in _listed(report, "contained")}
    for study in (*_listed(report, "imagingStudy"), *_listed(report, "study")):
        name = _id_in(str(study.get("reference", "")))
        uid = _uid_in(_listed(study, "identifier")) or contained.get(name) or study_of.get(name)
        yield uid or f"ImagingStudy/{name}"


def _key(report: Resource) -> str:
    """Key that all versions of a report share."""
    for one in _listed(report, "identifier"):
        if _value_in(one) and not _is_typed(one, "ACSN"):
            return f"{one.get('system', '')} {_value_in(one)}"
    return str(report.get("id", ""))


def _is_radiology(report: Resource) -> bool:
    codings = [coding for category in _listed(report, "category") for coding in _listed(category, "coding")]
    return not codings or any(coding.get("code") in _RADIOLOGY for coding in codings)


def _study_uid(study: Resource) -> str:
    return _uid_in(_listed(study, "identifier")) or str(study.get("uid", "")).removeprefix("urn:oid:")


def _uid_in(identifiers: Iterable[Resource]) -> str:
    """The StudyInstanceUID among some identifiers, or ""."""
    uids = (
        _value_in(one).removeprefix("urn:oid:") for one in identifiers if one.get("system") == _STUDY_SYSTEM
    )
    return next(filter(None, uids), "")


def _hospital_number(patient: Resource) -> str:
    """The identifier of type MR, or the only one, or ""."""
    identifiers = _listed(patient, "identifier")
    typed = [one for one in identifiers if _is_typed(one, "MR")]
    return _value_in((typed or identifiers)[0]) if typed or len(identifiers) == 1 else ""


def _is_typed(identifier: Resource, code: str) -> bool:
    return any(coding.get("code") == code for coding in _listed(identifier.get("type") or {}, "coding"))


def _value_in(identifier: Resource | None) -> str:
    return str((identifier or {}).get("value") or "").strip()


def _id_in(reference: str) -> str:
    """The id of a reference, which may be a URL and may name a version.

    >>> _id_in("https://example.org/fhir/Patient/p1/_history/2")
    'p1'
    """
    return reference.partition("/_history/")[0].rpartition("/")[2].lstrip("#")


def _listed(resource: Resource, name: str) -> list[Resource]:
    value = resource.get(name) or []
    several = value if isinstance(value, list) else [value]
    return [one for one in several if isinstance(one, dict)]


def _kind(form: Resource) -> str:
    return str(form.get("contentType", "")).partition(";")[0].strip().lower()


def _text(form: Resource) -> str:
    charset = _CHARSET.search(str(form["contentType"]).lower())
    try:
        text = base64.b64decode(form["data"], validate=True).decode(charset[1] if charset else "utf-8-sig")
    except (binascii.Error, LookupError, TypeError, ValueError):
        raise BadRowError("an attachment of the report is no text in base64 of its charset") from None
    return _without_tags(text) if _kind(form) == "text/html" else text


class _Words(html.parser.HTMLParser):
    """Gathers the text of a page, a line for each block; scripts and styles are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Begin a line at a block."""
        self._hidden += tag in ("script", "style", "title")
        self.parts += ["\n"] if tag in _BREAKS else []

    def handle_endtag(self, tag: str) -> None:
        """End a line after a block."""
        self._hidden -= tag in ("script", "style", "title")
        self.parts += ["\n"] if tag in _BREAKS else []

    def handle_data(self, data: str) -> None:
        """Keep the words."""
        if self._hidden <= 0:
            self.parts.append(data)


def _without_tags(page: str) -> str:
    words = _Words()
    words.feed(page)
    words.close()
    lines = (" ".join(line.split()) for line in "".join(words.parts).splitlines())
    return "\n".join(filter(None, lines))
