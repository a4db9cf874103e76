import csv
import json
import types

import keras
import pytest
from etils import epath
from PIL import Image
from sklearn.metrics import roc_auc_score

from beam_jobs import decode_images, label_reports
from medclip_keras import measure, release
from medclip_keras.config import (
    DataConfig,
    EvaluationConfig,
    ExportConfig,
    ImageEncoderConfig,
    ModelConfig,
    RunConfig,
    TextEncoderConfig,
    Threshold,
    override,
)
from medclip_keras.evaluate import main
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.measure import evaluate_workdir, find_records
from medclip_keras.preprocess.text import Tokenizer
from medclip_keras.records.batches import evaluation_images
from medclip_keras.records.manifest import load_concepts
from medclip_keras.release import export_workdir
from medclip_keras.sources.phantom import write_phantom
from medclip_keras.subject import subject_of_workdir
from medclip_keras.training.checkpoints import Checkpoints
from medclip_keras.training.model import MedCLIP
from medclip_keras.training.restore import load_model
from medclip_keras.training.run_json import write_run_json

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{c}" for c in LETTERS)]


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Phantom records, a workdir whose model has random weights, its evaluation, and its SavedModel."""
    root = tmp_path_factory.mktemp("evaluate")
    write_phantom(root / "raw", seed=0, num_paired=180, num_image_only=90, num_text_only=60, image_size=48)
    options = {"source": "phantom", "input": str(root / "raw")}
    label_reports.run(output=str(root / "records" / "reports"), **options)
    decode_images.run(output=str(root / "records" / "images"), image_size=40, **options)
    config = RunConfig(
        "tiny",
        data=DataConfig(
            images=(str(root / "records" / "images"),),
            texts=(str(root / "records" / "reports"),),
            stored_image_size=40,
            max_tokens=48,
        ),
        model=ModelConfig(
            image=ImageEncoderConfig(backbone="small_resnet", image_size=32, width=8),
            text=TextEncoderConfig(num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32),
            projection_dim=16,
        ),
        evaluation=EvaluationConfig(bootstrap=50, tasks=("zero_shot", "retrieval", "probe")),
    )
    workdir = root / "workdir"
    write_run_json(config, workdir)
    Tokenizer(VOCABULARY, lower_case=True, max_tokens=48).save(workdir / "vocabulary")
    table = load_concepts(config.data.images[0])
    (workdir / "vocabulary" / "concepts.jsonl").write_text(table.to_jsonl())
    keras.utils.set_random_seed(config.seed + 1)  # other weights than the untrained model's
    model = MedCLIP(config, len(VOCABULARY)).build_towers()
    Checkpoints(workdir / "checkpoints", model, resumable=False).save(7)
    metrics = evaluate_workdir(workdir)
    exported = export_workdir(workdir, root / "models")
    parts = {"root": root, "workdir": workdir, "saved_model": exported}
    return types.SimpleNamespace(**parts, config=config, metrics=metrics)


def values(node, path=()):
    """Every number of nested metrics, by its path."""
    if isinstance(node, dict):
        return {k: v for name, child in node.items() for k, v in values(child, (*path, name)).items()}
    return {path: node} if isinstance(node, int | float) else {}


def test_workdir_has_metrics_of_all_tasks_beside_a_baseline_and_the_untrained_model(run):
    found = run.metrics["data"]["phantom"]
    zero_shot, retrieval, probe = (found[task] for task in ("zero_shot", "retrieval", "probe"))
    assert found["cross_retrieval"]["pair_image_to_text"]["num_queries"] > 10
    assert found["cross_retrieval"]["pair_image_to_text"]["num_candidates"] > 10
    assert zero_shot["num_images"] >= 10
    positive = zero_shot["num_positive"].values()
    assert zero_shot["baseline"]["accuracy"] == pytest.approx(max(positive) / sum(positive))
    assert zero_shot["baseline"]["balanced_accuracy"] == pytest.approx(0.2)
    assert retrieval["num_queries"] == zero_shot["num_images"]
    for who in ("trained", "untrained"):
        assert 0 <= zero_shot[who]["single"]["accuracy"]["value"] <= 1
        assert 0 <= retrieval[who]["precision_at_10"]["value"] <= 1
        assert 0 <= probe[who]["1"]["accuracy"]["value"] <= 1
    assert zero_shot["trained"] != zero_shot["untrained"]
    assert probe["trained"] != probe["untrained"]
    assert probe["num_images"] == zero_shot["num_images"]
    assert probe["num_training_images"]["1"] > probe["num_validation_images"] > 0
    assert json.loads((run.workdir / "evaluation" / "metrics.json").read_text()) == run.metrics
    assert (run.workdir / "evaluation" / "report.html").stat().st_size > 10_000


def test_saved_model_and_workdir_have_equal_metrics(run, tmp_path, capsys):
    records = [str(run.root / "records")]
    main(["--saved_model", str(run.saved_model), "--records", *records, "--output", str(tmp_path)])
    found = json.loads((tmp_path / "metrics.json").read_text())
    of_workdir = {k: v for k, v in values(run.metrics["data"]).items() if "untrained" not in k}
    of_saved_model = values(found["data"])
    assert of_saved_model == pytest.approx(of_workdir, abs=1e-5)
    assert ("phantom", "probe", "trained", "1", "accuracy", "value") in of_saved_model
    assert len(of_workdir) > 60
    assert found["records"] == run.metrics["records"]
    assert "report.html" in capsys.readouterr().out


def test_data_sets_are_measured_separately_into_the_folder_of_the_first_records(run):
    records = [run.config.data.images[0], run.config.data.images[0]]
    main(["--saved_model", str(run.saved_model), "--records", *records, "--tasks", "zero_shot"])
    metrics = json.loads((run.root / "records" / "images" / "evaluation" / "metrics.json").read_text())
    assert list(metrics["data"]) == ["phantom", "phantom 2"]
    assert list(metrics["data"]["phantom"]) == ["zero_shot"]
    assert metrics["data"]["phantom"] == metrics["data"]["phantom 2"]
    num_images = run.metrics["data"]["phantom"]["zero_shot"]["num_images"]
    assert metrics["data"]["phantom"]["zero_shot"]["num_images"] == num_images


def test_other_findings_and_all_splits_are_evaluated_after_training(run, tmp_path):
    """Each finding of all records, as an external test set needs them, and the scores of images."""
    findings = ["Cardiomegaly", "No such", "Hernia"]
    arguments = ["--workdir", str(run.workdir), "--split", "all", "--output", str(tmp_path)]
    arguments += ["--tasks", "zero_shot", "--findings"]
    assert main([*arguments, ",".join(findings)]) == 1
    findings.remove("No such")
    assert main([*arguments, ", ".join(findings)]) == 0
    states = [
        state
        for split in ("train", "valid", "test")
        for batch in evaluation_images(run.config, split).as_numpy_iterator()
        for state in zip(batch["record_key"], batch["label_states"], strict=True)
    ]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    found = metrics["data"]["phantom"]["zero_shot"]
    column = load_concepts(run.config.data.images[0]).names.index("Cardiomegaly")
    truth = {key.decode(): {0: "0", 1: "1", 2: "0", 3: ""}[int(row[column])] for key, row in states}
    assert metrics["split"] == "all"
    assert found["num_images"] == len(states)
    assert found["num_positive"] == {"Cardiomegaly": list(truth.values()).count("1"), "Hernia": 0}
    assert found["undefined"] == ["Hernia"]  # no phantom has it
    by_class = found["trained"]["ensemble"]["by_class"]
    assert by_class["Hernia"]["auroc"]["value"] is None
    assert found["trained"]["ensemble"]["auroc"]["value"] == by_class["Cardiomegaly"]["auroc"]["value"]
    assert (
        "not in the macro AUROC, for no image has them or every image has: Hernia"
        in (tmp_path / "report.html").read_text()
    )
    with (tmp_path / "scores.csv").open(newline="") as file:
        scores = [row for row in csv.DictReader(file) if row["class"] == "Cardiomegaly"]
    assert {row["image"]: row["truth"] for row in scores} == truth
    known = [row for row in scores if row["truth"]]
    area = roc_auc_score([int(row["truth"]) for row in known], [float(row["score"]) for row in known])
    assert area == pytest.approx(by_class["Cardiomegaly"]["auroc"]["value"], abs=1e-3)


def test_a_column_of_no_finding_changes_no_other_class(run, own_images, tmp_path):
    """Scores of the classes and macro AUROC are equal with and without it."""
    header, *rows = [line.split(",") for line in own_images.table.read_text().splitlines()]
    rows.append([rows[0][0], "0", "0"])  # without one finding each: several questions
    found = {}
    for name, column in {"without": None, "with": "No Finding"}.items():
        table = own_images.folder / f"{name}.csv"
        written = [[*row, str(int("1" not in row[1:]))] if column else row for row in rows]
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([[*header, column] if column else header, *written])
        output = tmp_path / name
        assert (
            main(["--saved_model", str(run.saved_model), "--manifest", str(table), "--output", str(output)])
            == 0
        )
        (data,) = json.loads((output / "metrics.json").read_text())["data"].values()
        found[name] = data["zero_shot"]["trained"]["ensemble"]
    assert found["with"]["auroc"]["value"] == found["without"]["auroc"]["value"]
    assert set(found["with"]["by_class"]) - set(found["without"]["by_class"]) == {"No Finding"}
    for name, values in found["without"]["by_class"].items():
        assert found["with"]["by_class"][name]["auroc"]["value"] == values["auroc"]["value"]


@pytest.fixture
def own_images(run, tmp_path):
    """The phantom test images with exactly one of two findings as PNG files, a table and prompts."""
    names = load_concepts(run.config.data.images[0]).names
    columns = {name: names.index(name) for name in ("Cardiomegaly", "Pleural Effusion")}
    rows = []
    for batch in evaluation_images(run.config, "test").as_numpy_iterator():
        for image, states in zip(batch["images"], batch["label_states"], strict=True):
            labels = [int(states[column] == 1) for column in columns.values()]
            if sum(labels) == 1:
                Image.fromarray(image[..., 0]).save(tmp_path / f"{len(rows)}.png")
                rows.append([f"{len(rows)}.png", *labels])
    table = tmp_path / "mine.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["path", *columns], *rows])
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({name: [f"There is {name}.", f"{name} again"] for name in columns}))
    return types.SimpleNamespace(table=table, prompts=prompts, rows=rows, folder=tmp_path)


def test_a_manifest_named_like_the_records_overwrites_no_result_and_each_says_what_it_is_of(
    run, own_images, tmp_path
):
    table = own_images.table.rename(own_images.folder / "phantom.csv")
    arguments = [
        "--workdir",
        str(run.workdir),
        "--manifest",
        str(table),
        "--prompts",
        str(own_images.prompts),
    ]
    assert main([*arguments, "--tasks", "zero_shot", "--output", str(tmp_path / "out")]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["data"]["phantom"]["zero_shot"] == run.metrics["data"]["phantom"]["zero_shot"]
    assert metrics["data"]["phantom (manifest)"]["zero_shot"]["num_images"] == len(own_images.rows)
    assert (metrics["workdir"], metrics["step"], metrics["checkpoint"]) == (str(run.workdir), 7, "last")
    records, manifest = metrics["data_sets"].values()
    assert (records["images"], records["split"]) == (run.config.data.images[0], "test")
    assert records["prompts"] == "shipped" != manifest["prompts"] == str(own_images.prompts)
    assert records["prompts_sha256"] != manifest["prompts_sha256"]
    assert (manifest["manifest"], manifest["rows"]) == (str(table), len(own_images.rows))
    assert "split" not in manifest
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"manifest {table}" in page
    assert "step 7" in page


def test_settings_of_the_evaluation_are_changed_after_training(run, tmp_path, capsys):
    """The probe on 10 % and on all labels of a run that asked for all; no other setting is changed."""
    arguments = ["--workdir", str(run.workdir), "--output", str(tmp_path), "--tasks", "probe", "--set"]
    assert main([*arguments, "evaluation.probe_fractions=[0.1,1]", "evaluation.bootstrap=20"]) == 0
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["evaluation"]["probe_fractions"] == [0.1, 1.0]
    probe = found["data"]["phantom"]["probe"]
    assert set(probe["trained"]) == {"0.1", "1"}
    before = run.metrics["data"]["phantom"]["probe"]["trained"]["1"]["accuracy"]["value"]
    assert probe["trained"]["1"]["accuracy"]["value"] == before
    for wrong, sentence in {
        "train.steps=3": "`--set` must be of the form evaluation.NAME=VALUE. Received: 'train.steps=3'.",
        "evaluation.boot=3": "`evaluation.boot` must be a field of the run.",
        "evaluation.probe_fractions=[2]": "`evaluation.probe_fractions.0` must be",
    }.items():
        assert main([*arguments, wrong]) == 1
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("way", ["workdir", "saved_model"])
def test_own_images_are_evaluated(run, own_images, way, tmp_path):
    model = str(run.workdir if way == "workdir" else run.saved_model)
    arguments = ["--manifest", str(own_images.table), "--prompts", str(own_images.prompts)]
    main([f"--{way}", model, *arguments, "--output", str(tmp_path / "out")])
    data = json.loads((tmp_path / "out" / "metrics.json").read_text())["data"]
    assert set(data) == ({"phantom", "mine"} if way == "workdir" else {"mine"})
    found = data["mine"]["zero_shot"]
    assert found["num_images"] == len(own_images.rows)
    cardiomegaly, effusion = (sum(row[k] for row in own_images.rows) for k in (1, 2))
    assert found["num_positive"] == {"Cardiomegaly": cardiomegaly, "Pleural Effusion": effusion}
    assert found["baseline"]["accuracy"] == max(cardiomegaly, effusion) / len(own_images.rows)
    if way == "workdir":
        assert data["phantom"] == run.metrics["data"]["phantom"]


def test_own_images_are_evaluated_where_the_records_have_none_of_the_findings(
    run, own_images, tmp_path, capsys
):
    arguments = [
        "--workdir",
        str(run.workdir),
        "--manifest",
        str(own_images.table),
        "--findings",
        "Hernia,Mass",
    ]
    arguments += ["--task", "single_finding", "--tasks", "zero_shot", "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "The records are not evaluated: `images` must be a data set with" in capsys.readouterr().out
    assert list(json.loads((tmp_path / "out" / "metrics.json").read_text())["data"]) == ["mine"]


def test_a_single_image_is_scored(run, own_images, tmp_path):
    """No metric is defined, and every figure is drawn but the map, which takes five images."""
    table = own_images.folder / "one.csv"
    table.write_text("path,Edema,Cardiomegaly\n0.png,1,0\n")
    arguments = ["--manifest", str(table), "--output", str(tmp_path / "out")]
    assert main(["--saved_model", str(run.saved_model), *arguments]) == 0
    scores = (tmp_path / "out" / "scores.csv").read_text().splitlines()
    assert [row.split(",")[1:3] for row in scores[1:]] == [["0.png", "Edema"], ["0.png", "Cardiomegaly"]]
    drawn = {path.stem for path in (tmp_path / "out" / "figures" / "one").iterdir()}
    assert {"roc", "precision_recall", "confusion", "similarity"} <= drawn
    assert "embedding" not in drawn


def test_a_broken_image_file_is_refused_by_its_line(run, own_images, capsys):
    (own_images.folder / own_images.rows[1][0]).write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    arguments = ["--manifest", str(own_images.table), "--prompts", str(own_images.prompts)]
    assert main(["--saved_model", str(run.saved_model), *arguments]) == 1
    assert "cannot be read in row 2 (it is not a whole JPEG, PNG or DICOM file)" in capsys.readouterr().err


def test_leaks_that_cannot_be_looked_for_are_named(run, tmp_path, capsys):
    arguments = ["--workdir", str(run.workdir), "--tasks", "zero_shot,leaks", "--output", str(tmp_path)]
    arguments += ["--task", "multi_label"]  # the run asks for a single finding
    for split, is_searched in (("test", True), ("all", False)):
        assert main([*arguments, "--split", split]) == 0
        metrics = json.loads((tmp_path / "metrics.json").read_text())
        assert metrics["evaluation"]["task"] == "multi_label"
        found = metrics["data"]["phantom"]
        said = "phantom: no search for leaks: it needs the images of the training" in capsys.readouterr().out
        assert (said, "leaks" in found) == (not is_searched, is_searched)


def test_other_prompts_are_evaluated_after_training(run, tmp_path, capsys):
    """Equal prompts for both findings leave nothing to tell them apart; no probe, and the reason."""
    same = tmp_path / "prompts.json"
    findings = ("Cardiomegaly", "Pleural Effusion")
    same.write_text(json.dumps({name: ["A finding."] for name in findings}))
    arguments = ["--workdir", str(run.workdir), "--findings", ",".join(findings), "--task", "single_finding"]
    arguments += ["--split", "valid", "--prompts", str(same), "--output", str(tmp_path)]
    assert main(arguments) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    data = metrics["data"]["phantom"]
    assert metrics["evaluation"]["prompts"] == str(same)
    assert data["zero_shot"]["trained"]["ensemble"]["auroc"]["value"] == 0.5
    assert "probe" not in data
    assert "phantom: no linear probe: it needs --split test." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--workdir", "{workdir}", "--tasks", "zero_shot,linear_probe"],
            "`--tasks` must be a list of zero_shot, retrieval, probe, trust, subgroups, shortcuts, leaks,"
            " fine_tune. Received: 'linear_probe'.",
        ),
        (
            ["--workdir", "{workdir}", "--split", "all", "--tasks", "zero_shot,probe"],
            "`--tasks` must be without probe for --split all. Received: 'zero_shot,probe'.",
        ),
        (
            ["--workdir", "{workdir}", "--tasks", "trust"],
            "`--tasks` must be with zero_shot, of whose scores are trust. Received: ('trust',).",
        ),
        (["--workdir", "{workdir}", "--records", "/nowhere"], "`directory` must be a folder of records"),
        (["--workdir", "{workdir}", "--manifest", "/nowhere.csv"], "`manifest` must be a CSV file"),
        (["--saved_model", "{saved_model}"], "`--records` must be given with --saved_model"),
        (["--workdir", "{root}"], "`workdir` must be a folder in which a run was trained"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(run, arguments, sentence, capsys):
    assert main([argument.format(**vars(run)) for argument in arguments]) == 1
    assert sentence.format(**vars(run)) in capsys.readouterr().err


def test_records_of_other_concepts_than_the_models_are_refused(monkeypatch):
    config = RunConfig("r", data=DataConfig(images=("elsewhere",)))
    monkeypatch.setattr(measure, "load_concepts", lambda _: load_table("chexpert14"))
    subject = types.SimpleNamespace(config=config, concepts=load_table("chest21"))
    sentence = r"of the model's concept table, 'chest21'.*Received: .elsewhere, of the table 'chexpert14'"
    with pytest.raises(ValueError, match=sentence):
        measure.measure_records(subject, "test")


def test_a_workdir_without_records_says_which_option_is_missing(tmp_path, capsys):
    write_run_json(RunConfig("converted"), tmp_path)  # as medclip_keras.convert leaves it
    assert main(["--workdir", str(tmp_path)]) == 1
    sentence = (
        "`--records` must be given with --saved_model or a workdir of converted weights, unless --manifest"
    )
    assert sentence in capsys.readouterr().err


def test_records_are_found_by_kind_in_a_folder_of_them(run):
    images, texts = find_records([str(run.root / "records")])
    assert (images, texts) == (list(run.config.data.images), list(run.config.data.texts))
    assert find_records(texts + images) == (images, texts)


def test_the_served_version_is_measured_on_the_same_records_before_a_push(run, tmp_path, monkeypatch):
    """The version with the workdir's own weights differs by nothing; a better one lets this model drop."""
    monkeypatch.setattr(release, "_write", lambda *_: pytest.fail("written"))
    drop = Threshold("zero_shot.ensemble.auroc", max_drop=0.0)
    loaded = load_model(run.workdir)
    metrics = json.loads((run.workdir / "evaluation" / "metrics.json").read_text())
    assert (metrics["step"], metrics["data"]) == (7, run.metrics["data"])

    def bless(version, found=metrics):
        settings = ExportConfig(thresholds=(drop,))
        return release._bless(run.workdir, loaded, found, settings, epath.Path(version))

    (verdict,) = bless(run.saved_model).verdicts
    found = verdict.estimate
    assert verdict.is_kept
    assert verdict.metric == "phantom.zero_shot.ensemble.auroc (difference)"
    assert [found.value, found.low, found.high] == pytest.approx([0, 0, 0], abs=1e-6)
    untrained = subject_of_workdir(run.workdir, loaded).embedders["untrained"]
    monkeypatch.setattr(release, "saved_model_embedder", lambda _: (untrained, run.config, loaded.table))
    (verdict,) = bless("2").verdicts
    by_model = metrics["data"]["phantom"]["zero_shot"]
    ours, theirs = (by_model[who]["ensemble"]["auroc"]["value"] for who in ("trained", "untrained"))
    assert verdict.estimate.value == pytest.approx(ours - theirs, abs=1e-6)
    assert verdict.estimate.low < verdict.estimate.value < verdict.estimate.high
    records = dict.fromkeys(metrics["records"], "of other content")
    with pytest.raises(ValueError, match=r"compared on the records of metrics\.json"):
        bless("2", metrics | {"records": records})
    other = override(run.config, ["data.stored_image_size=64"])
    monkeypatch.setattr(release, "saved_model_embedder", lambda _: (untrained, other, loaded.table))
    with pytest.raises(ValueError, match="a version for stored images of 40 pixels"):
        bless("2")
