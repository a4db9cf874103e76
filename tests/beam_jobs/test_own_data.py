"""The documented commands on the user's own table: labels, unused columns, bad rows, the salt of the keys."""

import errno
import hashlib
import json
import os

import numpy as np
import pytest

from beam_jobs import decode_images, label_reports
from beam_jobs.dataset.writing import start_workplace
from beam_jobs.decode_images import combine_labels, count_labels
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.knowledge.states import LabelState
from medclip_keras.locks import sole_writer

assert (LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN) == (1, 2, 3)  # as written below
CHEXPERT14 = load_table("chexpert14")
HEART, WATER, AIR, BREAK = "Cardiomegaly", "Edema", "Pneumothorax", "Fracture"
NORMAL, DEVICES = "No Finding", "Support Devices"


class Own:
    """A table of one's own in data/, and the documented commands, with their outputs in records/."""

    def __init__(self, archive, concepts, folder, capsys):
        self.paths = [archive.add_image(patient, 1) for patient in range(4)]
        self.table, self.records = folder / "data" / "studies.csv", folder / "records"
        self.table.parent.mkdir()
        self._concepts, self._capsys = concepts, capsys

    def write(self, *lines):
        self.table.write_text("\n".join(lines))

    def run(self, job, name, *options):
        argv = ["--source=csv", f"--input={self.table}", f"--output={self.records / name}", *options]
        argv += [f"--concepts={self._concepts}", *(["--image_size=16"] if job is decode_images else [])]
        status, captured = job.main(argv), self._capsys.readouterr()
        return status, captured.out + captured.err

    def counts(self, name):
        return json.loads((self.records / name / "manifest.json").read_text())["counts"]


@pytest.fixture
def own(archive, concepts, tmp_path, capsys):
    own = Own(archive, concepts, tmp_path, capsys)
    own.write(
        "path,patient_id,study_id,report,Edema,Cardiomegaly,PTX,cardiomegaly?,ward",
        f"{own.paths[0]},p0,s0,,1,,1,,north",
        f"{own.paths[1]},p1,s1,Mild cardiomegaly. No edema.,,0,,1,",
        f"{own.paths[2]},p2,s2,,,,0,,south",
        f"{own.paths[3]},p3,s3,No pneumothorax. No edema.,0,1,,,",
    )
    return own


def states_of(table, states):
    return np.array([states.get(name, 0) for name in table.names], np.int8)


@pytest.mark.parametrize(
    ("precedence", "labels", "said", "expected", "counts"),
    [
        ("table", {HEART: 2, WATER: 1}, {HEART: 1, AIR: 2}, {HEART: 2, WATER: 1, AIR: 2}, (2, 1, 1)),
        ("report", {HEART: 2, WATER: 1}, {HEART: 1, AIR: 2}, {HEART: 1, WATER: 1, AIR: 2}, (1, 2, 1)),
        ("table_alone", {HEART: 2, WATER: 1}, {HEART: 1, AIR: 2}, {HEART: 2, WATER: 1}, (2, 0, 2)),
        ("table_alone", {}, {HEART: 1, AIR: 2}, {HEART: 1, AIR: 2}, (0, 2, 0)),
        ("report", {HEART: 2}, {}, {HEART: 2}, (1, 0, 0)),
        ("table", {BREAK: 3}, {BREAK: 3}, {BREAK: 3}, (1, 0, 0)),
        # No Finding and a finding do not come together; a negative finding and a device contradict nothing.
        ("table", {NORMAL: 1}, {WATER: 3, AIR: 2, DEVICES: 1}, {NORMAL: 1, AIR: 2, DEVICES: 1}, (1, 2, 1)),
        ("report", {NORMAL: 1}, {WATER: 3, AIR: 2, DEVICES: 1}, {WATER: 3, AIR: 2, DEVICES: 1}, (0, 3, 1)),
        ("table", {WATER: 1}, {NORMAL: 1}, {WATER: 1}, (1, 0, 1)),
        ("report", {WATER: 1}, {NORMAL: 1}, {NORMAL: 1}, (0, 1, 1)),
        ("table", {DEVICES: 1, AIR: 2}, {NORMAL: 1}, {DEVICES: 1, AIR: 2, NORMAL: 1}, (2, 1, 0)),
        ("report", {NORMAL: 2, AIR: 2}, {WATER: 1}, {NORMAL: 2, AIR: 2, WATER: 1}, (2, 1, 0)),
        # Unlabelled is 4. The report labels every concept: what neither states is then not mentioned.
        ("table", {HEART: 2, WATER: 4, AIR: 4}, {WATER: 1}, {HEART: 2, WATER: 1}, (1, 1, 0)),
        ("report", {HEART: 2, WATER: 4, AIR: 4}, {WATER: 1}, {HEART: 2, WATER: 1}, (1, 1, 0)),
        ("table_alone", {HEART: 2, WATER: 4}, {WATER: 1}, {HEART: 2, WATER: 4}, (1, 0, 1)),
        ("table_alone", {HEART: 4, WATER: 4}, {WATER: 1}, {WATER: 1}, (0, 1, 0)),
        # Without a report its side is unlabelled: the table's silence stays.
        ("table", {HEART: 2, AIR: 4}, {HEART: 4, WATER: 4, AIR: 4}, {HEART: 2, AIR: 4}, (1, 0, 0)),
        ("report", {HEART: 2, AIR: 4}, {HEART: 4, WATER: 4, AIR: 4}, {HEART: 2, AIR: 4}, (1, 0, 0)),
        ("table", {NORMAL: 1, WATER: 4}, {WATER: 1}, {NORMAL: 1, WATER: 4}, (1, 0, 1)),
    ],
)
def test_table_and_report_are_combined_finding_by_finding(precedence, labels, said, expected, counts):
    labels, said = states_of(CHEXPERT14, labels), states_of(CHEXPERT14, said)
    states = combine_labels(labels, said, CHEXPERT14, precedence)
    np.testing.assert_array_equal(states, states_of(CHEXPERT14, expected))
    assert tuple(count_labels(labels, said, states).values()) == counts


@pytest.mark.parametrize(
    ("options", "states_1", "states_3", "counts"),
    [
        # Of Edema, Cardiomegaly, Pleural Effusion, Pneumothorax, Pneumonia.
        ([], [2, 2, 0, 0, 0], [2, 1, 0, 2, 0], (3, 2, 1)),
        (["--label_precedence=report"], [2, 1, 0, 0, 0], [2, 1, 0, 2, 0], (2, 3, 1)),
        (["--label_precedence=table_alone"], [0, 2, 4, 4, 4], [2, 1, 4, 4, 4], (3, 0, 3)),
    ],
)
def test_a_filled_cell_does_not_hide_the_report(own, records_of, options, states_1, states_3, counts):
    assert own.run(label_reports, "reports", "--keep_ids")[0] == 0
    reports = f"--reports={own.records / 'reports'}"
    status, said = own.run(decode_images, "images", "--keep_ids", reports, *options)
    assert status == 0
    records = {record["patient_id"].decode(): record for record in records_of(own.records / "images")}
    states = {patient: record["label_states"].tolist() for patient, record in records.items()}
    # Without a report, the three concepts that are no columns are unlabelled.
    assert states == {"p0": [1, 0, 4, 4, 4], "p1": states_1, "p2": [0, 0, 4, 4, 4], "p3": states_3}
    names = ("labels_of_table", "labels_of_report", "labels_overruled")
    assert tuple(own.counts("images")[name] for name in names) == counts
    assert "labels of table {}, labels of report {}, labels overruled {}".format(*counts) in said
    assert own.counts("images")["images_with_labels"] == 3


def test_an_unknown_precedence_gets_the_sentence(own):
    status, said = own.run(decode_images, "images", "--label_precedence=first")
    assert status == 1
    assert "`label_precedence` must be one of table, report, table_alone. Received: 'first'." in said


@pytest.mark.parametrize("job", [label_reports, decode_images])
def test_unused_columns_are_printed_with_their_near_names(own, job):
    status, said = own.run(job, "records")
    assert status == 0
    assert [line for line in said.splitlines() if line.startswith("Unused")] == [
        "Unused column 'PTX': 2 filled cells, no concept of few. Near names: Pneumothorax.",
        "Unused column 'ward': 2 filled cells, no concept of few.",
        "Unused column 'cardiomegaly?': 1 filled cells, no concept of few. Near names: Cardiomegaly.",
    ]


def test_a_bad_row_is_named_on_the_terminal_and_not_in_files(own, contents):
    own.paths[2].unlink()
    for fraction, status in ((0.01, 1), (0.5, 0)):
        found, said = own.run(decode_images, "images", f"--max_bad_fraction={fraction}")
        assert found == status
        assert f"Bad row: row 3, {own.paths[2]}: the file does not exist\n" in said
    files = contents(own.records)
    bad = json.loads(files["images/bad_records.jsonl"])
    assert (bad["row"], bad["reason"]) == (3, "the file does not exist")
    assert not [name for name, content in files.items() if own.paths[2].name.encode() in content]


def test_a_bad_report_is_named_by_its_row(own, monkeypatch):
    monkeypatch.setattr("beam_jobs.dataset.notices.MOST_BAD_ROWS", 1)
    own.write("patient_id,report", *[f"p{n},Clear {n}." for n in range(9)])
    source = label_reports.get_source("csv")
    read = source.read_report

    def fail(row):
        if row.number in (4, 7):
            raise UnicodeDecodeError("utf-8", b"Jane Doe", 0, 1, "Jane Doe")
        return read(row)

    monkeypatch.setattr(source, "read_report", fail)
    status, said = own.run(label_reports, "reports", "--max_bad_fraction=0.5")
    assert status == 0
    assert f"Bad row: row 4, {own.table}: cannot be read (UnicodeDecodeError)\n" in said
    assert "Bad rows: the first 1 of 2\n" in said
    assert "Jane" not in said


def key_of(salt, kind, identifier):
    return hashlib.sha256(f"{salt}\0{kind}\0{identifier}".encode()).hexdigest()[:16]


def test_keys_of_own_data_have_a_random_salt_beside_the_records(own, records_of, contents):
    status, said = own.run(label_reports, "reports")
    file = own.records / "key_salt.txt"
    salt = file.read_text().strip()
    assert status == 0
    assert f"label_reports: made a random salt for the keys: {file}." in said
    assert salt not in said
    assert len(salt) == 64
    assert os.stat(file).st_mode & 0o777 == 0o600
    status, said = own.run(decode_images, "images", f"--reports={own.records / 'reports'}")
    assert (status, "random salt" in said) == (0, False)
    assert "nothing to do" in own.run(decode_images, "images", f"--reports={own.records / 'reports'}")[1]
    patients = {key_of(salt, "patient", f"p{n}") for n in range(4)}
    assert {record["patient_id"].decode() for record in records_of(own.records / "images")} == patients
    assert own.counts("images")["images_with_sentences"] == 2
    assert "nothing to do" in own.run(label_reports, "reports")[1]
    os.utime(own.paths[2], ns=(1, 1))  # a file that the table names is part of the input
    assert "nothing to do" not in own.run(decode_images, "images", f"--reports={own.records / 'reports'}")[1]
    assert file.read_text().strip() == salt
    inside = [contents(own.records / name) for name in ("images", "reports")]
    assert not [name for files in inside for name, content in files.items() if salt.encode() in content]


def test_a_job_with_its_output_elsewhere_takes_the_salt_of_its_reports(own):
    own.run(label_reports, "reports")
    status, _ = own.run(decode_images, "other/images", f"--reports={own.records / 'reports'}")
    assert status == 0
    assert not (own.records / "other" / "key_salt.txt").exists()


@pytest.mark.parametrize("options", [["--key_salt=mine"], ["--keep_ids"]])
def test_a_salt_of_ones_own_or_kept_identifiers_need_no_file(own, records_of, options):
    status, _ = own.run(label_reports, "reports", *options)
    assert status == 0
    patients = {record["patient_id"].decode() for record in records_of(own.records / "reports")}
    salted = {key_of("mine", "patient", name) for name in ("p1", "p3")}
    assert patients == (salted if "--key_salt=mine" in options else {"p1", "p3"})
    assert [path.name for path in own.records.iterdir()] == ["reports"]


def test_a_refused_job_makes_no_salt_and_an_empty_file_is_refused(own):
    own.write("path,patient_id,Edema", f"{own.paths[0]},p0,yes")
    assert own.run(decode_images, "images")[0] == 1
    assert not own.records.exists()
    own.records.mkdir()
    (own.records / "key_salt.txt").touch()
    status, said = own.run(decode_images, "images")
    assert status == 1
    assert "`key_salt.txt` must be a file with the salt of the keys." in said


def join(own, images, reports):
    """Label a table of reports, and join another one of images with it: status and output."""
    own.write(*reports)
    assert own.run(label_reports, "reports")[0] == 0
    own.write(*images)
    return own.run(decode_images, "images", f"--reports={own.records / 'reports'}")


@pytest.mark.parametrize(
    ("images", "reports"),
    [
        (["path,patient_id", "{0},p0", "{1},p1"], ["report,patient_id", "Edema.,q0", "No edema.,q1"]),
        (["path,patient_id", "{0},p0", "{1},p1"], ["report,patient_id", "Edema.,p0", "No edema.,p1"]),
        (["path,patient_id,study_id", "{0},p0,1"], ["report,patient_id,study_id", "Edema.,p1,1"]),
        (["path,patient_id,study_id", "{0},p0,s1"], ["report,patient_id", "Edema.,p0"]),
    ],
)
def test_tables_that_have_no_study_in_common_are_not_joined(own, images, reports):
    status, said = join(own, [line.format(*own.paths) for line in images], reports)
    assert status == 1
    assert "`reports` must be records with a report of at least one image, of the same patient" in said
    assert not (own.records / "images").exists()


def test_images_get_the_reports_of_their_own_patient_and_study(own, records_of):
    images = [f"{own.paths[0]},1,1", f"{own.paths[1]}, 2 ,1", f"{own.paths[2]},2.0,2", f"{own.paths[3]},3,2"]
    reports = ["Effusion 1 1.,1.0,1", "Effusion 2 1.,2,1.0 ", "Effusion 2 2.,2,2", "Effusion 1 2.,1,2"]
    status, _ = join(own, ["path,patient_id,study_id", *images], ["report,patient_id,study_id", *reports])
    assert status == 0
    texts = [[text.decode() for text in r["sentences"]["text"]] for r in records_of(own.records / "images")]
    expected = [[], ["Effusion 1 1."], ["Effusion 2 1."], ["Effusion 2 2."]]
    assert sorted(texts) == expected


def test_a_split_in_one_table_alone_stops_the_job_in_one_line(own):
    images = [f"{path},p{n},s{n},test" for n, path in enumerate(own.paths)]
    reports = [f"Edema {n}.,p{n},s{n}" for n in range(4)]
    head = "path,patient_id,study_id,split", "report,patient_id,study_id"
    status, said = join(own, [head[0], *images], [head[1], *reports])
    assert status == 1
    assert "`split` must be the same for all images and reports of a patient." in said
    assert " patients with images in test and reports in train" in said
    assert "Traceback" not in said
    assert not (own.records / "images").exists()


def test_a_full_disk_is_one_line_and_leaves_no_dataset(own, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "/patients/Jane Doe")

    monkeypatch.setattr("beam_jobs.dataset.writing.write_shard", fail)
    status, said = own.run(decode_images, "images")
    assert status == 1
    assert "Received: '[Errno 28] No space left on device'. Make room" in said
    assert "Traceback" not in said
    assert "Jane" not in said
    assert [path.name for path in own.records.iterdir()] == ["key_salt.txt"]


def test_a_second_job_on_an_output_is_refused_and_deletes_nothing(own):
    with sole_writer(own.records / "images"):
        running = start_workplace(own.records / "images")
        status, said = own.run(decode_images, "images")
        assert running.exists()
    assert status == 1
    assert "`output` must be one that no other process is writing. Received: " in said
    status, _ = own.run(decode_images, "images")  # it has ended, and what is left of it goes
    assert status == 0
    assert {path.name for path in own.records.iterdir()} == {"images", "key_salt.txt"}
