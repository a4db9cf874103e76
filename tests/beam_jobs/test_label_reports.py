import functools
import hashlib
import json
import random

import apache_beam as beam
import numpy as np
import pytest
import tensorflow_datasets as tfds
from apache_beam.testing.test_pipeline import TestPipeline as MemoryPipeline
from apache_beam.testing.util import assert_that, equal_to

from beam_jobs import label_reports
from beam_jobs.dataset.job import describe_making
from beam_jobs.dataset.options import pipeline_options
from beam_jobs.dataset.sharding import MakeShards
from beam_jobs.label_reports import LabelOptions, LabelReport
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.knowledge.extractor import Extractor
from medclip_keras.knowledge.sections import Section
from medclip_keras.knowledge.states import LabelState
from medclip_keras.records.manifest import read_manifest
from medclip_keras.records.splits import split_of
from medclip_keras.sources.rows import BadRowError, ReportRow

KNOWLEDGE_BASE = "kb.jsonl"
TEXT = "Large left pleural effusion. No pneumothorax. The bones are there."


@pytest.fixture(scope="module")
def table(concepts):
    return load_table(concepts)


def key_of(kind, identifier):
    return hashlib.sha256(f"medclip_keras\0{kind}\0{identifier}".encode()).hexdigest()[:16]


def states_of(edema=0, cardiomegaly=0, effusion=0, pneumothorax=0, pneumonia=0):
    """A label vector, in the order of the few concepts."""
    return np.array([edema, cardiomegaly, effusion, pneumothorax, pneumonia], np.int8)


def read_row(row):
    if row.content == b"\xff":
        raise BadRowError("the report is not UTF-8")
    text = row.content.decode()
    return (Section("findings", text),) if text else ()


def collect(shard, outcomes):
    """What a shard holds, in types that compare."""
    made = []
    for outcome in outcomes:
        record = outcome.record
        if record is None:
            made.append((shard.split, outcome.tags))
            continue
        sentences = [(s["section"], s["text"], s["label_states"].tolist()) for s in record["sentences"]]
        keys = tuple(record[name] for name in ("record_key", "study_id", "patient_id", "split"))
        made.append((shard.split, outcome.tags, keys, record["label_states"].tolist(), sentences))
    return made


def test_label_report_is_exact_on_rows_in_memory(table, tmp_path):
    options = LabelOptions(source="small", input=str(tmp_path), output=str(tmp_path) + "-out")
    contents = {"full": TEXT.encode(), "empty": b"", "torn": b"\xff"}
    rows = [ReportRow(name, f"s {name}", "p", "", content, "valid") for name, content in contents.items()]
    with MemoryPipeline(options=pipeline_options(())) as pipeline:
        start = functools.partial(LabelReport, read_row, table, options.linking)
        made = pipeline | beam.Create(rows) | MakeShards(options, start, collect)
        effusion = states_of(effusion=LabelState.POSITIVE).tolist()
        pneumothorax = states_of(pneumothorax=LabelState.NEGATIVE).tolist()
        both = states_of(effusion=LabelState.POSITIVE, pneumothorax=LabelState.NEGATIVE).tolist()
        keys = (key_of("record", "full"), key_of("study", "s full"), key_of("patient", "p"), "valid")
        sentences = [
            ("findings", "Large left pleural effusion.", effusion),
            ("findings", "No pneumothorax.", pneumothorax),
            ("findings", "The bones are there.", states_of().tolist()),
        ]
        full, empty = ("valid", (), keys, both, sentences), ("valid", ("unusable_reports",))
        order = [full, empty] if keys[0] < key_of("record", "empty") else [empty, full]
        assert_that(made.shards, equal_to([order]), "shards")
        bad = [{"key": key_of("record", "torn"), "reason": "the report is not UTF-8"}]
        assert_that(made.bad, equal_to(bad), "bad")


def test_run_writes_records_of_all_usable_reports(archive, job, table, tmp_path, capsys, records_of):
    for patient in range(30):
        archive.add_report(patient, 1, TEXT if patient % 2 else "Mild cardiomegaly.")
    archive.add_report(30, 1, "")
    manifest = job()
    assert manifest == read_manifest(tmp_path / "records")
    assert manifest.counts == {"rows": 31, "records": 30, "bad_rows": 0, "unusable_reports": 1}
    records = {r["record_key"].decode(): r for r in records_of(tmp_path / "records")}
    assert len(records) == 30
    said = [states_of(cardiomegaly=LabelState.POSITIVE)]
    said += [states_of(effusion=LabelState.POSITIVE, pneumothorax=LabelState.NEGATIVE)]
    for patient in range(30):
        record = records[key_of("record", f"{patient}-1")]
        assert record["split"].decode() == split_of(str(patient))
        assert record["patient_id"].decode() == key_of("patient", str(patient))
        np.testing.assert_array_equal(record["label_states"], said[patient % 2])
        assert len(record["sentences"]["text"]) == (3 if patient % 2 else 1)
    train = manifest.splits["train"]
    own = [patient for patient in range(30) if split_of(str(patient)) == "train"]
    assert train["num_records"] == len(own)
    assert train["positives"][table.index("Pleural Effusion")] == sum(patient % 2 for patient in own)
    assert train["num_sentences"] == sum(3 if patient % 2 else 1 for patient in own)
    assert train["sentence_positives"][table.index("Cardiomegaly")] == sum(1 - p % 2 for p in own)
    printed = capsys.readouterr().out
    assert "30 records of 31 rows" in printed
    assert "unusable reports 1" in printed


def test_run_without_a_record_in_a_split_is_a_dataset(archive, job, tmp_path):
    archive.add_report(1, 1, TEXT)
    empty = {"num_records": 0, "shards": [], "positives": [0] * 5}
    empty |= {"num_sentences": 0, "sentence_positives": [0] * 5}
    assert job(split_fractions=(0.0, 0.0, 1.0)).splits["train"] == empty
    builder = tfds.builder_from_directory(tmp_path / "records")
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"test": 1}


def test_run_with_a_shard_of_unusable_reports_alone_is_a_dataset(archive, job, tmp_path):
    archive.add_report(1, 1, TEXT)
    archive.add_report(2, 1, "")
    manifest = job(split_fractions=(1.0, 0.0, 0.0), records_per_shard=1)
    assert sorted(shard["num_records"] for shard in manifest.splits["train"]["shards"]) == [0, 1]
    builder = tfds.builder_from_directory(tmp_path / "records")
    assert len(list(builder.as_dataset(split="train"))) == 1


def test_run_with_a_split_of_unusable_reports_alone_is_a_dataset(archive, job, tmp_path):
    patient = {split_of(str(patient)): patient for patient in range(99)}
    archive.add_report(patient["train"], 1, TEXT)
    archive.add_report(patient["test"], 1, "")
    assert job().splits["test"]["shards"] == []
    builder = tfds.builder_from_directory(tmp_path / "records")
    assert list(builder.info.splits) == ["train"]
    assert not list((tmp_path / "records").glob("*-test.*"))


def test_run_keeps_identifiers_only_when_asked(archive, job, contents, tmp_path, records_of):
    archive.add_report(1234567, 89, TEXT)
    job()
    assert not any(b"1234567" in content for content in contents(tmp_path / "records").values())
    job(keep_ids=True)
    (record,) = records_of(tmp_path / "records")
    assert record["patient_id"] == b"1234567"
    assert record["record_key"] == record["study_id"] == b"1234567-89"


def test_second_run_does_nothing_until_an_input_changes(archive, job, contents, tmp_path, capsys):
    path = archive.add_report(1, 1, TEXT)
    job()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir()}
    before = contents(tmp_path / "records")
    capsys.readouterr()
    job()
    assert "nothing to do" in capsys.readouterr().out
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir()}
    path.write_text(TEXT.replace("left", "wide"))  # the same size
    job()
    assert "nothing to do" not in capsys.readouterr().out
    assert contents(tmp_path / "records") != before


@pytest.mark.parametrize("name", ["concepts.jsonl", "features.json"])
def test_a_folder_without_one_of_its_files_is_made_again(name, archive, job, contents, tmp_path):
    archive.add_report(1, 1, TEXT)
    job()
    before = contents(tmp_path / "records")
    (tmp_path / "records" / name).unlink()
    job()
    assert contents(tmp_path / "records") == before


@pytest.mark.parametrize(
    "change",
    [
        {"concepts": "chexpert14"},
        {"keep_ids": True},
        {"split_salt": "2"},
        {"key_salt": "2"},
        {"mentions": "elsewhere"},
        {"records_per_shard": 7},
        {"link_threshold": 0.0},
        {"link_threshold": 0.9},
        {"umls": KNOWLEDGE_BASE},
    ],
)
def test_another_option_is_another_fingerprint(archive, job, tmp_path, change, monkeypatch):
    archive.add_report(1, 1, TEXT)
    monkeypatch.chdir(tmp_path)
    (tmp_path / KNOWLEDGE_BASE).write_text("")

    def fingerprint(**options):
        told = LabelOptions(source="small", input=str(archive.path), output="out", **options)
        return describe_making(label_reports.make_job(told))["fingerprint"]

    assert fingerprint() == fingerprint(max_bad_fraction=0.5, beam_options=("--direct_num_workers=2",))
    assert fingerprint(**change) != fingerprint()


def test_lost_shards_and_changed_mentions_are_written_again(archive, job, contents, tmp_path):
    archive.add_report(1, 1, TEXT)
    job(mentions=str(tmp_path / "mentions"))
    before = contents(tmp_path)
    (shard,), (mentions,) = tmp_path.glob("records/*.tfrecord-*"), tmp_path.glob("mentions/*")
    for damage in (shard.unlink, lambda: mentions.write_text("other")):
        damage()
        job(mentions=str(tmp_path / "mentions"))
        assert contents(tmp_path) == before


def test_run_leaves_files_of_others_alone(archive, job, tmp_path):
    archive.add_report(1, 1, TEXT)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="`output` must be a new folder, an empty one or an older output"):
        job()
    assert [path.name for path in (tmp_path / "records").iterdir()] == ["thesis.tex"]


def test_run_fails_above_the_allowed_share_of_bad_rows(archive, job, tmp_path):
    for patient in range(9):
        archive.add_report(patient, 1, TEXT)
    torn = archive.add_report(77, 1, "")
    torn.write_bytes(b"\xff\xfe Jane Doe")
    with pytest.raises(ValueError, match=r"Received: 0.01 and 1 bad of 10 rows") as failure:
        job()
    assert "Jane" not in str(failure.value)
    assert not (tmp_path / "records").exists()
    line = {"key": key_of("record", "77-1"), "reason": "cannot be read (UnicodeDecodeError)"}
    assert json.loads((tmp_path / "records.bad_records.jsonl").read_text()) == line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "records.bad_records.jsonl"]
    manifest = job(max_bad_fraction=0.1)
    assert manifest.counts["bad_rows"] == 1
    assert json.loads((tmp_path / "records" / "bad_records.jsonl").read_text()) == line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "records"]


def test_run_with_nothing_usable_gets_the_sentence(archive, job, tmp_path):
    archive.add_report(1, 1, "")
    sentence = r"`input` must be an archive with something to record.*unusable_reports"
    with pytest.raises(ValueError, match=sentence):
        job()
    assert not (tmp_path / "records").exists()


def test_run_on_an_empty_source_gets_the_sentence_before_any_work(archive, job, tmp_path):
    with pytest.raises(ValueError, match="`input` must be an archive with at least one of its reports"):
        job()
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_run_refuses_a_source_without_reports(source, job):
    del source.report_rows
    with pytest.raises(ValueError, match=r"`source` must be an archive with reports. Received: 'small'"):
        job()


def test_mentions_say_what_was_found_and_where(archive, job, table, contents, tmp_path):
    text = "Possible pneumonia. Prior effusion has resolved. There is edema. No edema on the left."
    archive.add_report(1, 1, text)
    archive.add_report(2, 1, "")
    job(mentions=str(tmp_path / "mentions"))
    files = contents(tmp_path / "mentions")
    assert all(name.endswith(".jsonl") for name in files)
    lines = [json.loads(line) for content in files.values() for line in content.splitlines()]
    by_report = {line["report_id"]: line for line in lines}
    assert len(lines) == len(by_report) == 2
    assert by_report["2-1"] == {"report_id": "2-1", "findings": {}, "mentions": []}
    line = by_report["1-1"]
    assert line["findings"] == {"Pneumonia": "uncertain", "Pleural Effusion": "negative", "Edema": "positive"}
    assert {m["assertion"] for m in line["mentions"] if m["name"] == "Edema"} == {"positive", "negative"}
    for mention in line["mentions"]:
        assert list(mention) == ["cui", "name", "section", "start", "end", "assertion"]
        assert mention["section"] == "findings"
        assert mention["cui"] == table.cuis[table.index(mention["name"])]
        covered = text[mention["start"] : mention["end"]].lower()
        assert covered in {"pneumonia", "effusion", "edema"}


def test_records_do_not_depend_on_the_order_of_the_reports(archive, source, job, contents, tmp_path):
    for patient in range(60):
        archive.add_report(
            patient, 1, f"Mild edmea, grade {patient}. No plueral efusion. Cardio megaly {patient}."
        )
    archive.add_report(99, 1, "")
    archive.add_report(98, 1, "").write_bytes(b"\xff")
    in_order = source.report_rows

    def run(name, order):
        source.report_rows = lambda path: order(list(in_order(path)))
        folder = tmp_path / name
        job(output=str(folder / "records"), mentions=str(folder / "mentions"), max_bad_fraction=0.1)
        return contents(folder)

    def shuffled(rows):
        return random.Random(0).sample(rows, len(rows))

    sorted_rows = run("sorted", list)
    assert sorted_rows == run("again", list)
    assert sorted_rows == run("reversed", lambda rows: rows[::-1])
    assert sorted_rows == run("shuffled", shuffled)
    mentions = b"".join(content for name, content in sorted_rows.items() if name.startswith("mentions"))
    assert mentions.count(b'"Pleural Effusion"') >= 60  # the misspelled ones


def test_misspelled_words_are_linked_unless_told_otherwise(archive, job, tmp_path, records_of):
    archive.add_report(1, 1, "Large plueral efusion.")
    job(split_fractions=(1.0, 0.0, 0.0))
    (record,) = records_of(tmp_path / "records")
    np.testing.assert_array_equal(record["label_states"], states_of(effusion=LabelState.POSITIVE))
    job(split_fractions=(1.0, 0.0, 0.0), link_threshold=0.0)
    (record,) = records_of(tmp_path / "records")
    np.testing.assert_array_equal(record["label_states"], states_of())


def test_a_knowledge_base_adds_aliases_and_its_change_is_noticed(
    archive, job, table, tmp_path, capsys, records_of
):
    archive.add_report(1, 1, "No water on the lung.")
    base = tmp_path / KNOWLEDGE_BASE
    cui = table.cuis[table.index("Pleural Effusion")]
    entity = {"concept_id": cui, "canonical_name": "Pleural effusion", "aliases": ["Water on the lung"]}
    options = {"split_fractions": (1.0, 0.0, 0.0), "umls": str(base)}
    base.write_text(json.dumps(entity))
    job(**options)
    (record,) = records_of(tmp_path / "records")
    np.testing.assert_array_equal(record["label_states"], states_of(effusion=LabelState.NEGATIVE))
    capsys.readouterr()
    job(**options)
    assert "nothing to do" in capsys.readouterr().out
    base.write_text(json.dumps(entity | {"aliases": []}))
    job(**options)
    assert "nothing to do" not in capsys.readouterr().out
    (record,) = records_of(tmp_path / "records")
    np.testing.assert_array_equal(record["label_states"], states_of())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"language": "fr"}, "`language` must be one of auto, de, en, es. Received: 'fr'"),
        ({"link_threshold": 1.5}, r"`link_threshold` must be in \[0, 1\]. Received: 1.5"),
        ({"link_threshold": 0.0, "umls": "kb.jsonl"}, "`umls` must be empty without linking"),
        ({"link_threshold": 0.0, "scispacy_model": "m"}, "`scispacy_model` must be empty without linking"),
        ({"scispacy_model": "en_core_sci_none"}, "`scispacy_model` must be an installed spaCy model"),
        ({"umls": "nowhere.jsonl"}, r"`umls` must be a \.jsonl file that exists"),
    ],
)
def test_invalid_linking_is_refused_before_any_work(archive, job, tmp_path, options, sentence):
    archive.add_report(1, 1, TEXT)
    with pytest.raises(ValueError, match=sentence):
        job(**options)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_report_that_breaks_the_labeller_is_a_bad_record_without_its_text(
    archive, job, monkeypatch, tmp_path, capfd
):
    archive.add_report(1, 1, TEXT)
    archive.add_report(2, 1, "Jane Doe has edema.")
    reading = Extractor._read_sentence

    def read_sentence(self, sentence, *more):
        if "Jane" in sentence:
            raise ValueError(sentence)
        return reading(self, sentence, *more)

    monkeypatch.setattr(Extractor, "_read_sentence", read_sentence)
    manifest = job(max_bad_fraction=0.5)
    assert manifest.counts["bad_rows"] == 1
    bad = json.loads((tmp_path / "records" / "bad_records.jsonl").read_text())
    assert bad == {"key": key_of("record", "2-1"), "reason": "cannot be read (ValueError)"}
    assert "Jane" not in "".join(capfd.readouterr())
