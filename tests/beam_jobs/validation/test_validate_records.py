"""validate_records: clean data passes, planted faults are caught by their names, nothing private leaves."""

import hashlib
import json
import pathlib
from collections import Counter
from unittest import mock

import numpy as np
import pytest

from beam_jobs import validate_records
from beam_jobs.validation import statistics
from beam_jobs.validation.page import summarise
from beam_jobs.validation.statistics import read_statistics
from medclip_keras import fit
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.knowledge.states import LabelState
from medclip_keras.training import train as training

from . import validation_data as data

of = data.of


@pytest.fixture(scope="module")
def table(concepts):
    return load_table(concepts)


@pytest.fixture(scope="module")
def clean(table, tmp_path_factory):
    """Clean image and report records, each with their validation."""
    folder = tmp_path_factory.mktemp("clean")
    made = {}
    for kind in ("images", "reports"):
        rows = data.clean_rows(kind, len(table))
        directory = data.write_records(folder / kind, kind, rows, table)
        made[kind] = validate_records.run(input=str(directory))
    return made


@pytest.mark.parametrize("kind", ["images", "reports"])
def test_clean_records_pass(clean, kind):
    assert clean[kind].anomalies == []
    assert clean[kind].num_records == {"train": 180, "valid": 80, "test": 120}


def found_in(validation, table) -> set[tuple[str, str]]:
    """Names and features of the anomalies; concepts as their positions."""
    found = set()
    for name, sentence in validation.anomalies:
        feature = sentence.split("`")[1]
        parent, _, concept = feature.rpartition("/")
        shown = f"{parent}/{table.index(concept)}" if concept in table.names else feature
        found.add((name, shown))
    written = json.loads((pathlib.Path(validation.output) / "validation.json").read_text())
    assert written["anomalies"] == validation.anomalies
    return found


def given_of(clean, kind: str, given: str) -> dict[str, str]:
    output = clean[kind].output
    return {"": {}, "schema": {"schema": f"{output}/schema.json"}, "baseline": {"baseline": output}}[given]


@pytest.mark.parametrize("fault", data.FAULTS)
def test_planted_fault_gives_its_anomaly(clean, table, tmp_path, fault):
    spoil, kind, given, expected = data.FAULTS[fault]
    rows = data.clean_rows(kind, len(table))
    spoil(rows)
    directory = data.write_records(tmp_path / "records", kind, rows, table)
    validation = validate_records.run(input=str(directory), **given_of(clean, kind, given))
    assert found_in(validation, table) == expected
    for _, sentence in validation.anomalies:
        assert " must be " in sentence
        assert " Received: " in sentence
    require_nothing_private(validation, rows)


def test_unlabelled_records_are_counted_apart(table, tmp_path):
    rows = data.clean_rows("images", len(table))
    rows = [dict(row, label_states=row["label_states"].copy()) for row in rows]
    data.set_states(of(rows, "valid"), 0, LabelState.UNLABELLED)  # valid is of an archive without concept 0
    data.set_states(of(rows, "test")[:30], 0, LabelState.UNLABELLED)
    data.set_states(rows, 1, LabelState.UNLABELLED)  # nobody labels concept 1
    directory = data.write_records(tmp_path / "records", "images", rows, table)
    validation = validate_records.run(input=str(directory))
    assert found_in(validation, table) == set()
    counted = read_statistics(pathlib.Path(validation.output) / "statistics.json")
    first, second = (f"label_states/{table.names[k]}" for k in (0, 1))
    assert counted["valid"].categories[first] == {"unlabelled": 80}
    assert counted["test"].categories[first]["unlabelled"] == 30
    assert counted["test"].categories[first].total() == 120
    assert all(split.categories[second].keys() == {"unlabelled"} for split in counted.values())
    page = (pathlib.Path(validation.output) / "report.html").read_text()
    positives = counted["test"].categories[first]["positive"]
    assert f"{100 * positives / 90:.1f}" in page


@pytest.mark.parametrize("fault", data.EDITS)
def test_malformed_record_gives_its_anomaly(table, tmp_path, fault):
    change, expected = data.EDITS[fault]
    rows = data.clean_rows("images", len(table))
    key = of(rows, "test")[3]["record_key"]

    def edit(row, feature):
        if row["record_key"] == key:
            change(feature)

    directory = data.write_records(tmp_path / "records", "images", rows, table, edit)
    assert found_in(validate_records.run(input=str(directory)), table) == expected


def test_another_image_size_is_caught_by_the_schema(clean, table, tmp_path):
    rows = data.clean_rows("images", len(table), size=24)
    directory = data.write_records(tmp_path / "records", "images", rows, table)
    assert validate_records.run(input=str(directory)).anomalies == []
    validation = validate_records.run(input=str(directory), **given_of(clean, "images", "schema"))
    assert found_in(validation, table) == {("wrong_size", "image")}
    assert "16 x 16 x 1, 256 values. Received: 576 values in train." in validation.anomalies[1][1]


def test_manifest_with_another_record_count_is_an_anomaly(table, tmp_path):
    rows = data.clean_rows("reports", len(table))
    directory = data.write_records(tmp_path / "records", "reports", rows, table)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["splits"]["valid"]["num_records"] += 1
    (directory / "manifest.json").write_text(json.dumps(manifest))
    validation = validate_records.run(input=str(directory))
    assert found_in(validation, table) == {("records_miscounted", "record_key")}


def test_another_draw_of_the_same_distribution_does_not_drift(clean, table, tmp_path):
    rows = data.clean_rows("images", len(table), seed=1)
    directory = data.write_records(tmp_path / "records", "images", rows, table)
    for baseline in (clean["images"].directory, clean["images"].output):
        validation = validate_records.run(input=str(directory), baseline=baseline)
        assert validation.anomalies == []


def require_nothing_private(validation, rows):
    private = {data.SECRET, *(row["patient_id"] for row in rows), *(row["study_id"] for row in rows)}
    for path in pathlib.Path(validation.output).iterdir():
        content = path.read_bytes()
        assert not [text for text in private if text.encode() in content], path.name


def test_statistics_are_those_of_the_rows(clean, table):
    statistics = read_statistics(f"{clean['images'].output}/statistics.json")
    rows = data.clean_rows("images", len(table))
    assert list(statistics) == ["train", "valid", "test"]
    for name, split in statistics.items():
        own = of(rows, name)
        stated = {"label_states": [row["label_states"] for row in own]}
        stated["sentences/label_states"] = [s["label_states"] for row in own for s in row["sentences"]]
        for field, vectors in stated.items():
            for concept, states in zip(table.names, np.transpose(vectors), strict=True):
                expected = {state.name.lower(): int((states == state).sum()) for state in LabelState}
                assert split.categories[f"{field}/{concept}"] == Counter(expected)
        means = [row["image"].mean() for row in own]
        words = [len(s["text"].split()) for row in own for s in row["sentences"]]
        number = [len(row["sentences"]) for row in own]
        for feature, values, resolution in (
            ("image/brightness", means, 1 / 16),
            ("sentences/words", words, 0),
            ("sentences/number", number, 0),
        ):
            median = np.sort(values)[(len(values) - 1) // 2]
            expected = len(values), np.mean(values), np.std(values), min(values), median, max(values)
            assert summarise(split.numbers[feature]) == pytest.approx(expected, abs=resolution)
        labelled = sum(row["label_states"].any() for row in own)
        patients = data.NUM_PATIENTS[name]
        totals = {"records": len(own), "labelled": labelled, "record_key": len(own), "image": len(own)}
        assert split.totals == totals | {"patient_id": patients}
        assert sum(n * count for n, count in split.lengths["sentences/text"].items()) == len(words)
        assert split.categories["view"]["frontal"] == sum(row["view"] == "frontal" for row in own)


def test_repeated_image_in_one_split_is_counted_and_allowed(table, tmp_path):
    rows = data.clean_rows("images", len(table))
    of(rows, "train")[9]["image"] = of(rows, "train")[2]["image"]
    directory = data.write_records(tmp_path / "records", "images", rows, table)
    validation = validate_records.run(input=str(directory))
    assert validation.anomalies == []
    assert read_statistics(f"{validation.output}/statistics.json")["train"].faults == {
        "image": {"repeated": 1}
    }


def test_second_run_reads_the_first_result(clean, monkeypatch):
    directory, output = clean["images"].directory, clean["images"].output
    monkeypatch.setattr(validate_records, "gather_statistics", None)
    assert validate_records.run(input=directory) == clean["images"]
    with pytest.raises(TypeError):  # another schema is another question
        validate_records.run(input=directory, schema=f"{output}/schema.json")


def test_the_output_is_the_same_byte_for_byte_in_another_order(clean, table, tmp_path):
    rows = data.clean_rows("images", len(table))
    directory = data.write_records(tmp_path / "records", "images", rows[::-1], table)
    validation = validate_records.run(input=str(directory))
    for name in ("statistics.json", "schema.json"):
        again = (pathlib.Path(validation.output) / name).read_bytes()
        assert again == (pathlib.Path(clean["images"].output) / name).read_bytes(), name


def test_an_edited_schema_is_used_and_not_written_over(table, tmp_path):
    rows = data.clean_rows("images", len(table))
    data.set_view(rows, "oblique")
    directory = str(data.write_records(tmp_path / "records", "images", rows, table))
    path = pathlib.Path(f"{directory}.validation") / "schema.json"
    with pytest.raises(validate_records.AnomalousRecordsError, match="unknown_value: `view` must be one of"):
        validate_records.run(input=directory).require_valid()
    schema = json.loads(path.read_text())
    schema["view"]["values"].append("oblique")
    path.write_text(json.dumps(schema))
    edited = path.read_bytes()
    for again in ({}, {"schema": str(path)}, {}):
        assert validate_records.run(input=directory, **again).anomalies == []
        assert path.read_bytes() == edited
    path.unlink()  # and it is inferred again
    assert [name for name, _ in validate_records.run(input=directory).anomalies] == ["unknown_value"]


def test_the_schema_of_a_validation_that_was_killed_is_not_the_owners(table, tmp_path, monkeypatch):
    directory = str(
        data.write_records(tmp_path / "records", "reports", data.clean_rows("reports", len(table)), table)
    )
    output = f"{directory}.validation"
    for name in ("_find_and_show", "write_whole"):  # before the result, and before the schema
        with monkeypatch.context() as patched:
            patched.setattr(validate_records, name, mock.Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                validate_records.run(input=directory)
        assert validate_records.kept_schema(output) == ""
    assert validate_records.run(input=directory).anomalies == []
    assert validate_records.kept_schema(output) == ""


@pytest.mark.parametrize("edited", [False, True])
def test_an_output_of_the_last_version_is_replaced_unless_its_schema_was_edited(table, tmp_path, edited):
    rows = data.clean_rows("reports", len(table))
    directory = str(data.write_records(tmp_path / "records", "reports", rows, table))
    output = pathlib.Path(f"{directory}.validation")
    output.mkdir()
    for name in ("statistics.pb", "anomalies.pbtxt", "schema.pbtxt"):
        (output / name).write_text("inferred")
    result = {"inferred_sha256": hashlib.sha256(b"inferred").hexdigest(), "anomalies": [], "num_records": {}}
    result |= {"directory": directory, "output": str(output), "fingerprint": "of the last version"}
    (output / "validation.json").write_text(json.dumps(result))
    if edited:
        (output / "schema.pbtxt").write_text("inferred, and edited")
        with pytest.raises(
            ValueError, match="Move it away, validate once without --schema, and repeat your edits"
        ):
            validate_records.run(input=directory)
        assert (output / "schema.pbtxt").read_text() == "inferred, and edited"
        (output / "schema.pbtxt").unlink()
    assert validate_records.run(input=directory).anomalies == []
    names = {"statistics.json", "schema.json", "validation.json", "report.html", "marks.npz"}
    assert {path.name for path in output.iterdir()} == names


def test_the_command_exits_with_the_sentences_of_anomalies(clean, table, tmp_path, capsys):
    assert validate_records.main(["--input", clean["images"].directory]) == 0
    assert "no anomaly" in capsys.readouterr().out
    rows = data.clean_rows("images", len(table))
    data.copy_field(rows, "patient_id", ("train", 0), ("test", 0))
    directory = data.write_records(tmp_path / "records", "images", rows, table)
    assert validate_records.main(["--input", str(directory)]) == 1
    sentence = "patient_in_two_splits: `patient_id` must be in one split only. Received: 1 patient in "
    assert sentence in capsys.readouterr().err


def test_an_interrupted_validation_ends_with_one_line_and_no_result(clean, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(statistics, "describe_record", stop)
    output = tmp_path / "validation"
    assert validate_records.main(["--input", clean["images"].directory, "--output", str(output)]) == 130
    assert capsys.readouterr().err.count("\n") == 1
    assert list(output.iterdir()) == []


def test_page_shows_the_counts(clean, table):
    page = (pathlib.Path(clean["images"].output) / "report.html").read_text()
    for said in (
        "No anomaly",
        *table.names,
        "prefers-color-scheme: dark",
        "<td>train</td><td>180</td><td>90</td>",
    ):
        assert said in page, said
    assert "http" not in page
    assert "{{" not in page


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"input": "nowhere"}, "`directory` must be a folder of records"),
        ({"schema": "nowhere.json"}, "`--schema` must be a schema.json of validate_records"),
        ({"schema": __file__}, "`--schema` must be rules by feature, as JSON"),
        ({"schema": "typo.json"}, "typo.json: view.max_skwe: Unexpected keyword argument"),
        (
            {"schema": "last.pbtxt"},
            "validate once without --schema, and repeat your edits in the schema.json",
        ),
        ({"baseline": "nowhere"}, "`--baseline` must be records, or a folder with the statistics.json"),
        ({"baseline": "reports"}, "`--baseline` must be of images, as the input is"),
        ({"output": "within"}, "`output` must be a folder outside of the records"),
        ({"beam_options": ("--bassline=x",)}, "Near names: --baseline"),
    ],
)
def test_wrong_arguments_get_a_sentence(clean, arguments, sentence, tmp_path, monkeypatch):
    directory = clean["images"].directory
    monkeypatch.chdir(tmp_path)
    (tmp_path / "typo.json").write_text('{"view": {"max_skwe": 0.2}}')
    (tmp_path / "last.pbtxt").write_text('feature { name: "view" }')
    replaced = {"reports": clean["reports"].output, "within": f"{directory}/x"}
    arguments = {k: replaced.get(v, v) if isinstance(v, str) else v for k, v in arguments.items()}
    with pytest.raises(ValueError, match="must be") as raised:
        validate_records.run(**{"input": directory, **arguments})
    assert sentence in str(raised.value)


def test_fit_refuses_anomalous_records_unless_they_are_allowed(clean, table, tmp_path, capsys, monkeypatch):
    rows = data.clean_rows("images", len(table))
    data.copy_field(rows, "patient_id", ("train", 0), ("test", 0))
    bad = str(data.write_records(tmp_path / "records", "images", rows, table))
    workdir = tmp_path / "run"
    command = [
        "--workdir", str(workdir), "--images", bad, "--texts", clean["reports"].directory,
        "--set", "data.stored_image_size=16", "model.image.image_size=16",
    ]  # fmt: skip
    trained = []
    monkeypatch.setattr(training, "train", lambda *arguments: trained.append(1) or training.Outcome(0, 1))
    assert fit.main(command) == 1
    refused = capsys.readouterr().err
    assert "1 anomaly:\n  patient_in_two_splits: `patient_id` must be in one split only." in refused
    assert "--set data.allow_anomalies=true" in refused
    assert not trained
    assert fit.main([*command, "data.allow_anomalies=true"]) == 130  # as the stand-in for training says
    assert trained
    assert "anomalies, allowed: 1" in capsys.readouterr().out.replace("\n", "")
    monkeypatch.setattr(validate_records, "gather_statistics", None)  # nothing is read a second time
    assert fit.main([*command, "data.allow_anomalies=true"]) == 130
    (report,) = workdir.glob("validation/records-*/report.html")
    assert "patient_in_two_splits" in report.read_text()
