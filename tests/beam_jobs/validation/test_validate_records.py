"""validate_records: clean data passes, planted faults are caught by their names, nothing private leaves."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from beam_jobs import validate_records
from beam_jobs.validation.statistics_proto import common_stats, custom, features_by_name, value_counts
from medclip_keras import fit
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.knowledge.states import LabelState
from medclip_keras.training import train as training

_spec = importlib.util.spec_from_file_location(
    "validation_data", pathlib.Path(__file__).parent / "validation_data.py"
)
data = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(data)
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


def two_splits(rows):
    of(rows, "test")[0]["patient_id"] = of(rows, "train")[0]["patient_id"]


def copied_picture(rows):
    of(rows, "valid")[3]["image"] = of(rows, "train")[5]["image"]


def listed_twice(rows):
    of(rows, "train")[1]["record_key"] = of(rows, "train")[0]["record_key"]


def key_in_two_splits(rows):
    of(rows, "test")[1]["record_key"] = of(rows, "train")[0]["record_key"]


def label_column_empty_in_test(rows):
    data.set_states(of(rows, "test"), 0, LabelState.NOT_MENTIONED)


def label_column_empty(rows):
    data.set_states(rows, 0, LabelState.NOT_MENTIONED)


def no_labels(rows):
    for concept in range(5):
        data.set_states(rows, concept, LabelState.NOT_MENTIONED)


def label_share_shifted(rows):
    data.set_states(of(rows, "test")[:100], 1, LabelState.POSITIVE)


def uncertain_explosion(rows):
    data.set_states([row for k, row in enumerate(rows) if k % 5], 2, LabelState.UNCERTAIN)


def black_pictures(rows):
    for row in of(rows, "train")[:4]:
        row["image"] = np.zeros_like(row["image"])


def darkened_test(rows):
    for row in of(rows, "test"):
        row["image"] = row["image"] // 4


def empty_sentence(rows):
    of(rows, "train")[7]["sentences"][0]["text"] = "  "


def truncated_sentences(rows):
    for row in of(rows, "test"):
        for one in row["sentences"]:
            one["text"] = " ".join(one["text"].split()[:2])


def unknown_view(rows):
    of(rows, "valid")[0]["view"] = "oblique"


def other_shard(rows):
    of(rows, "test")[0]["in_shard_of"] = "train"


def identifier_as_view(rows):
    of(rows, "valid")[0]["view"] = of(rows, "valid")[0]["patient_id"]


# (what is done to the rows, the kind of the records, what is given, the anomalies: name and feature)
FAULTS = {
    "a patient in two splits": (two_splits, "images", "", {("patient_in_two_splits", "patient_id")}),
    "one picture in two splits": (copied_picture, "images", "", {("image_in_two_splits", "image")}),
    "a record key twice": (listed_twice, "reports", "", {("record_twice", "record_key")}),
    "a record key in two splits": (key_in_two_splits, "images", "", {("record_in_two_splits", "record_key")}),
    "a label column empty in test": (
        label_column_empty_in_test, "images", "",
        {("skew", "label_states/0"), ("skew", "sentences/label_states/0")},
    ),
    "a label column empty, by the schema": (
        label_column_empty, "images", "schema", {("label_never_said", "label_states/0")},
    ),
    "no label at all": (no_labels, "images", "", {("label_never_said", "label_states")}),
    "label shares shifted from train to test": (
        label_share_shifted, "images", "",
        {("skew", "label_states/1"), ("skew", "sentences/label_states/1")},
    ),
    "uncertain labels explode since the last run": (
        uncertain_explosion, "reports", "baseline",
        {("drift", "label_states/2"), ("drift", "sentences/label_states/2")},
    ),
    "black pictures": (black_pictures, "images", "", {("blank_image", "image")}),
    "the test pictures are darkened": (darkened_test, "images", "", {("skew", "image/brightness")}),
    "an empty sentence": (empty_sentence, "reports", "", {("empty_sentence", "sentences/text")}),
    "truncated sentences": (truncated_sentences, "reports", "", {("skew", "sentences/words")}),
    "an unknown view": (unknown_view, "images", "", {("unknown_value", "view")}),
    "an identifier as view": (identifier_as_view, "images", "", {("unknown_value", "view")}),
    "a record in another split's shard": (
        other_shard, "images", "", {("unlike_shard", "split"), ("patient_in_two_splits", "patient_id")},
    ),
}  # fmt: skip


def found_in(validation, table) -> set[tuple[str, str]]:
    """Names and features of the anomalies file; concepts as their positions."""
    path = pathlib.Path(validation.output) / "anomalies.pbtxt"
    proto = text_format.Parse(path.read_text(), anomalies_pb2.Anomalies())
    found = set()
    for feature, info in proto.anomaly_info.items():
        parent, _, name = feature.rpartition("/")
        shown = f"{parent}/{table.index(name)}" if name in table.names else feature
        found |= {(reason.short_description, shown) for reason in info.reason}
        assert info.severity == anomalies_pb2.AnomalyInfo.ERROR
    assert {name for name, _ in validation.anomalies} == {name for name, _ in found}
    return found


def given_of(clean, kind: str, given: str) -> dict[str, str]:
    output = clean[kind].output
    return {"": {}, "schema": {"schema": f"{output}/schema.pbtxt"}, "baseline": {"baseline": output}}[given]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_by_its_name(clean, table, tmp_path, fault):
    spoil, kind, given, expected = FAULTS[fault]
    rows = data.clean_rows(kind, len(table))
    spoil(rows)
    directory = data.write_records(tmp_path / "records", kind, rows, table)
    validation = validate_records.run(input=str(directory), **given_of(clean, kind, given))
    assert found_in(validation, table) == expected
    for _, sentence in validation.anomalies:
        assert " must be " in sentence
        assert " Received: " in sentence
    require_nothing_private(validation, rows)


def cut_pixels(row, feature):
    if row["record_key"] == data.salted_hash("", "record", "train3"):
        feature["image"].bytes_list.value[0] = feature["image"].bytes_list.value[0][:-7]


def state_seven(row, feature):
    if row["record_key"] == data.salted_hash("", "record", "test3"):
        feature["label_states"].int64_list.value[0] = 7


def no_patient(row, feature):
    if row["record_key"] == data.salted_hash("", "record", "test3"):
        del feature["patient_id"]


def labels_as_text(row, feature):
    if row["record_key"] == data.salted_hash("", "record", "test3"):
        feature["label_states"].bytes_list.value[:] = [b"1"] * 5


def another_field(row, feature):
    feature["age"].int64_list.value.append(50)


EDITS = {
    "a picture cut short": (cut_pixels, {("wrong_shape", "image"), ("wrong_size", "image")}),
    "a label state that is none": (state_seven, {("out_of_range", "label_states")}),
    "a missing field": (no_patient, {("missing_feature", "patient_id")}),
    "a field of another type": (labels_as_text, {("wrong_type", "label_states")}),
    "a field that nobody knows": (another_field, {("new_feature", "age")}),
}


@pytest.mark.parametrize("fault", EDITS)
def test_a_record_of_another_shape_is_caught_by_its_name(table, tmp_path, fault):
    edit, expected = EDITS[fault]
    rows = data.clean_rows("images", len(table))
    directory = data.write_records(tmp_path / "records", "images", rows, table, edit)
    assert found_in(validate_records.run(input=str(directory)), table) == expected


def test_another_image_size_is_caught_by_the_schema(clean, table, tmp_path):
    rows = data.clean_rows("images", len(table), size=24)
    directory = data.write_records(tmp_path / "records", "images", rows, table)
    assert validate_records.run(input=str(directory)).anomalies == []
    validation = validate_records.run(input=str(directory), **given_of(clean, "images", "schema"))
    assert found_in(validation, table) == {("wrong_size", "image")}
    assert "16 x 16 x 1, 256 values. Received: 576 values in train." in validation.anomalies[1][1]


def test_a_manifest_that_counts_otherwise_is_caught(table, tmp_path):
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
    statistics = validate_records.read_statistics(f"{clean['images'].output}/statistics.pb")
    rows = data.clean_rows("images", len(table))
    for split in statistics.datasets:
        own, features = of(rows, split.name), features_by_name(split)
        for concept, name in enumerate(table.names):
            states = [row["label_states"][concept] for row in own]
            expected = {state.name.lower(): states.count(state) for state in LabelState}
            assert value_counts(features[f"label_states/{name}"]) == expected
            said = [s["label_states"][concept] for row in own for s in row["sentences"]]
            expected = {state.name.lower(): said.count(state) for state in LabelState}
            assert value_counts(features[f"sentences/label_states/{name}"]) == expected
        means = [row["image"].mean() for row in own]
        brightness = features["image/brightness"].num_stats
        assert brightness.mean == pytest.approx(np.mean(means), abs=1 / 16)
        counts, _ = np.histogram(means, range(0, 257, 16))
        assert [b.sample_count for b in brightness.histograms[0].buckets] == counts.tolist()
        words = [len(s["text"].split()) for row in own for s in row["sentences"]]
        assert features["sentences/words"].num_stats.mean == pytest.approx(np.mean(words))
        assert features["sentences/words"].num_stats.median == np.sort(words)[(len(words) - 1) // 2]
        assert features["sentences/number"].num_stats.std_dev == pytest.approx(
            np.std([len(row["sentences"]) for row in own])
        )
        assert features["patient_id"].string_stats.unique == data.NUM_PATIENTS[split.name]
        assert features["image"].bytes_stats.unique == len(own)
        assert common_stats(features["sentences/text"]).tot_num_values == len(words)
        assert value_counts(features["view"])["frontal"] == sum(row["view"] == "frontal" for row in own)
        labelled = sum(row["label_states"].any() for row in own)
        assert custom(features["label_states"]) == {"labelled_records": labelled}


def test_a_picture_twice_in_one_split_is_counted_and_allowed(table, tmp_path):
    rows = data.clean_rows("images", len(table))
    of(rows, "train")[9]["image"] = of(rows, "train")[2]["image"]
    validation = validate_records.run(
        input=str(data.write_records(tmp_path / "records", "images", rows, table))
    )
    assert validation.anomalies == []
    train = validate_records.read_statistics(f"{validation.output}/statistics.pb").datasets[0]
    assert custom(features_by_name(train)["image"])["repeated"] == 1


def test_a_second_run_reads_the_first_ones_result(clean, monkeypatch):
    directory, output = clean["images"].directory, clean["images"].output
    monkeypatch.setattr(validate_records, "gather_statistics", None)
    assert validate_records.run(input=directory) == clean["images"]
    with pytest.raises(TypeError):  # another schema is another question
        validate_records.run(input=directory, schema=f"{output}/schema.pbtxt")


def test_the_output_is_the_same_byte_for_byte_in_another_order(clean, table, tmp_path):
    rows = data.clean_rows("images", len(table))
    directory = data.write_records(tmp_path / "records", "images", rows[::-1], table)
    validation = validate_records.run(input=str(directory))
    for name in ("statistics.pb", "schema.pbtxt", "anomalies.pbtxt"):
        again = (pathlib.Path(validation.output) / name).read_bytes()
        assert again == (pathlib.Path(clean["images"].output) / name).read_bytes(), name


def test_an_edited_schema_is_used_and_not_written_over(table, tmp_path):
    rows = data.clean_rows("images", len(table))
    unknown_view(rows)
    directory = str(data.write_records(tmp_path / "records", "images", rows, table))
    path = pathlib.Path(f"{directory}.validation") / "schema.pbtxt"
    with pytest.raises(validate_records.AnomalousRecordsError, match="unknown_value: `view` must be one of"):
        validate_records.run(input=directory).require_valid()
    schema = text_format.Parse(path.read_text(), schema_pb2.Schema())
    next(domain for domain in schema.string_domain if domain.name == "view").value.append("oblique")
    path.write_text(text_format.MessageToString(schema))
    edited = path.read_bytes()
    for again in ({}, {"schema": str(path)}, {}):
        assert validate_records.run(input=directory, **again).anomalies == []
        assert path.read_bytes() == edited
    path.unlink()  # and it is inferred again
    assert [name for name, _ in validate_records.run(input=directory).anomalies] == ["unknown_value"]


def test_the_command_exits_with_the_sentences_of_anomalies(clean, table, tmp_path, capsys):
    validate_records.main(["--input", clean["images"].directory])
    assert "no anomaly" in capsys.readouterr().out
    rows = data.clean_rows("images", len(table))
    two_splits(rows)
    directory = data.write_records(tmp_path / "records", "images", rows, table)
    with pytest.raises(SystemExit) as stopped:
        validate_records.main(["--input", str(directory)])
    assert "patient_in_two_splits: `patient_id` must be in one split only. Received: 1 patient in " in str(
        stopped.value
    )


def test_the_page_shows_what_was_counted(clean, table):
    page = (pathlib.Path(clean["images"].output) / "report.html").read_text()
    for said in (
        "No anomaly",
        *table.names,
        "prefers-color-scheme: dark",
        "<td>train</td><td>180</td><td>90</td>",
    ):
        assert said in page, said
    assert "http" not in page
    assert "$" not in page


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"input": "nowhere"}, "`directory` must be a folder of records"),
        ({"schema": "nowhere.pbtxt"}, "`--schema` must be a schema.pbtxt that validate_records wrote"),
        ({"schema": __file__}, "`--schema` must be a tensorflow-metadata Schema as text"),
        ({"baseline": "nowhere"}, "`--baseline` must be records, or a folder with the statistics.pb"),
        ({"baseline": "reports"}, "`--baseline` must be of images, as the input is"),
        ({"output": "within"}, "`output` must be a folder outside of the records"),
        ({"beam_options": ("--bassline=x",)}, "Near names: --baseline"),
    ],
)
def test_wrong_arguments_get_a_sentence(clean, arguments, sentence):
    directory = clean["images"].directory
    replaced = {"reports": clean["reports"].output, "within": f"{directory}/x"}
    arguments = {k: replaced.get(v, v) if isinstance(v, str) else v for k, v in arguments.items()}
    with pytest.raises(ValueError, match="must be") as raised:
        validate_records.run(**{"input": directory, **arguments})
    assert sentence in str(raised.value)


def test_fit_refuses_anomalous_records_unless_it_is_told_otherwise(
    clean, table, tmp_path, capsys, monkeypatch
):
    rows = data.clean_rows("images", len(table))
    two_splits(rows)
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
