import dataclasses
import html
import json
import re

import numpy as np
import pytest
from rich.console import Console

from medclip_keras.evaluation import report
from medclip_keras.evaluation.classification import estimate_scores
from medclip_keras.evaluation.evaluator import evaluate
from medclip_keras.evaluation.fine_tuned import FineTuned
from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.report import figures_of, write
from medclip_keras.evaluation.results import ClassificationResult, DatasetResult
from medclip_keras.evaluation.table import rows, terminal_table
from medclip_keras.evaluation.tasks import Task

# Figures of zero-shot classification of single findings and of retrieval, with an untrained model.
DRAWN = (
    "roc", "precision_recall", "confusion", "similarity", "similarity_untrained", "embedding",
    "embedding_untrained", "retrieval", "retrieval_similarity",
)  # fmt: skip


def test_report_embeds_every_plot(measured, tmp_path):
    write({"phantom": measured}, tmp_path, {"run": "test run", "seed": 3})
    names = {path.stem for path in (tmp_path / "figures" / "phantom").glob("*.png")}
    assert names == {"overview", *DRAWN}
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg role=") == len(names)
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert not re.search(r"url\((?!#)|@import", page)
    assert "Evaluation of test run" in page
    assert "1.000 [1.000, 1.000]" in page


def test_outputs_contain_no_report_text(measured, world, tmp_path):
    write({"phantom": measured}, tmp_path, {"run": "test run"})
    texts = [text.decode() for batch in world.sentence_batches() for text in batch["text"]]
    written = (tmp_path / "report.html").read_text() + (tmp_path / "metrics.json").read_text()
    assert not [text for text in texts if text in written]


def test_metrics_file_equals_the_result(measured, tmp_path):
    returned = write({"phantom": measured}, tmp_path, {"run": "test run", "seed": 3})
    assert json.loads((tmp_path / "metrics.json").read_text()) == returned
    assert returned["data"]["phantom"] == measured.metrics
    assert returned["seed"] == 3


def test_the_metrics_file_of_one_image_is_json(world, config, tmp_path):
    one = [{name: values[:1] for name, values in world.image_batches()[0].items()}]
    one[0]["label_states"] = np.array([[2, 2, 1, 2, 2, 2]], np.int8)
    result = world.evaluate(dataclasses.replace(config, tasks=("zero_shot",)), one)
    write({"one": result}, tmp_path, {"run": "r"})
    refuse = {"parse_constant": lambda name: pytest.fail(f"{name} is no JSON")}
    found = json.loads((tmp_path / "metrics.json").read_text(), **refuse)
    assert found["data"]["one"]["zero_shot"]["baseline"]["auprc"] is None


def test_a_full_disk_leaves_the_earlier_page_and_figures(tmp_path, monkeypatch):
    write({}, tmp_path, {"run": "earlier"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {"metrics.json", "report.html", "scores.csv"} <= before.keys()

    def fill(beside, *_):
        beside.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(beside))

    monkeypatch.setattr("medclip_keras.files.sync", fill)
    with pytest.raises(OSError, match="No space left"):
        write({}, tmp_path, {"run": "later"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    write({}, tmp_path, {"run": "later"})
    assert json.loads((tmp_path / "metrics.json").read_text())["run"] == "later"
    assert {path.name for path in tmp_path.iterdir()} == before.keys()


def test_names_of_runs_data_sets_and_classes_are_escaped(world, config, tmp_path):
    names = [f"<{name}>" for name in world.names]
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({name: [name] for name in names}))
    config = dataclasses.replace(config, prompts=str(prompts), findings=tuple(names[1:4]))
    images = {"<world>": world.image_batches()}
    write(evaluate(world.oracle, images, [], config, names), tmp_path, {"run": "<run>"})
    page = (tmp_path / "report.html").read_text()
    for name in ("<run>", "<world>", "<Edema>"):
        assert name not in page
        assert html.escape(name) in page


def test_rows_show_trained_untrained_and_baseline(measured):
    found = {row.name: row for row in rows(measured)}
    row = found["zero-shot accuracy, ensemble"]
    assert row.trained.value == 1.0
    positive = measured.metrics["zero_shot"]["num_positive"]
    assert row.baseline == max(positive.values()) / sum(positive.values())
    assert found["zero-shot balanced accuracy, ensemble"].baseline == pytest.approx(1 / 3)
    assert row.untrained.value == measured.metrics["zero_shot"]["untrained"]["ensemble"]["accuracy"]["value"]
    assert len([name for name in found if name.startswith("image → text precision@")]) == 4


@pytest.mark.parametrize("width", [100, 80, 60])
def test_terminal_table_loses_no_figure_and_no_name_on_narrow_terminals(measured, width):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table("phantom", measured))
    text = console.export_text()
    figures = [cell for row in rows(measured) for cell in row.cells()[1:]]
    assert "1.000 [1.000, 1.000]" in figures
    assert [cell for cell in figures if text.count(cell) < figures.count(cell)] == []
    assert {word for row in rows(measured) for word in row.name.split()} <= set(text.split())
    assert "…" not in text


def test_page_names_the_longer_tasks_until_they_were_measured(measured, monkeypatch):
    monkeypatch.setattr(report, "PARTS", report.PARTS[:1])  # the note is of zero-shot classification

    def says(**parts):
        (section,) = report.sections_of(dataclasses.replace(measured, **parts))
        return any("--tasks probe" in note for note in section.notes)

    tuned = FineTuned({"starts": {}})
    assert all([says(), says(fine_tune=tuned), says(probe=measured.zero_shot)])
    assert not says(probe=measured.zero_shot, fine_tune=tuned)
    assert report.sections_of(DatasetResult(fine_tune=tuned)) == []


def test_plots_are_drawn_without_an_untrained_model(world, config):
    result = world.evaluate(config)
    assert set(figures_of(result)) == {name for name in DRAWN if "untrained" not in name}
    assert all(row.untrained is None for row in rows(result))


ODD = ["$x_1$ [/bold]", "_hidden", "[red]Oedème [links]", "Enlarged Cardiomediastinum " * 3, "心影增大"]


def odd_result(names, num_images=60):
    """A classification of odd class names, of patients of two images, whose scores know the truth."""
    rng = np.random.default_rng(0)
    labels = (rng.random((num_images, len(names))) < 0.4).astype(float)
    patients = np.repeat(np.arange(num_images // 2), 2).astype(str)
    task = Task("multi_label", tuple(names), np.arange(num_images), labels, patients, patients)
    scores = labels + rng.normal(size=labels.shape)
    estimates = {"1": {"trained": estimate_scores(task, scores, Bootstrap(20, seed=0))}}
    counts = task.counts() | {"num_training_images": {"1": 9}}
    by_variant = {"1": {"trained": scores}}
    return DatasetResult(supervised=ClassificationResult(task, counts, task.baseline, estimates, by_variant))


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("width", [80, 60])
def test_odd_names_are_shown_as_they_are(tmp_path, width):
    """Neither markup of the terminal, nor formulas of plots, nor paths, nor HTML."""
    result = odd_result(ODD)
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(terminal_table("[b]../x[/b]", result))
    text = console.export_text()
    assert "[b]../x[/b]" in text
    lines = "".join(text.split())
    assert not [name for name in ODD if "".join(name.split()) not in lines]
    figures = [cell for row in rows(result) for cell in row.cells()[1:]]
    assert not [cell for cell in figures if cell not in text]
    write({"../x": result}, tmp_path / "out", {"run": "<x>"})
    assert [path.name for path in (tmp_path / "out" / "figures").iterdir()] == ["_x"]
    (legend,) = figures_of(result)["roc"].legends
    assert len(legend.get_texts()) == len(ODD) + 1


@pytest.mark.parametrize("name", ["roc", "precision_recall"])
def test_with_fifteen_classes_the_legend_covers_no_curve(name):
    figure = figures_of(odd_result([f"finding number {n}" for n in range(15)]))[name]
    (ax,), (drawn,) = figure.axes, figure.legends
    figure.draw_without_rendering()
    legend = drawn.get_window_extent()
    assert not legend.overlaps(ax.get_tightbbox())
    assert figure.bbox.contains(legend.x0, legend.y0)
    assert figure.bbox.contains(legend.x1, legend.y1)
    styles = {(line.get_color(), line.get_linestyle()) for line in ax.get_lines()}
    assert len(styles) == 16


def test_the_page_says_what_its_figures_are_of(measured, tmp_path):
    made_from = {
        "run": "r",
        "step": 7,
        "logit_scale": 11.610163688659668,
        "data_sets": {"world": {"images": "records/w", "fingerprint": "abc", "split": "test"}},
    }
    write({"world": measured}, tmp_path, made_from)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "step 7" in page
    assert "<td>logit scale</td><td>11.61</td>" in page
    assert "11.610" not in page
    assert "images records/w, fingerprint abc, split test" in page


def test_data_sets_whose_names_differ_little_keep_their_own_plots_and_links(measured, tmp_path):
    write(dict.fromkeys(["a/b", "a_b", "A_B"], measured), tmp_path, {"run": "r"})
    folders = {path.name for path in (tmp_path / "figures").iterdir()}
    assert folders == {"a_b", "a_b 2", "A_B 3"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    links = set(re.findall(r'<a href="#([^"]+)"', page))
    anchors = re.findall(r'<h[23] id="([^"]+)"', page)
    assert len(set(anchors)) == len(anchors)
    assert links == set(anchors)
    assert {"a_b", "a_b-2", "A_B-3", "made-from"} <= links
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    assert {name for name in re.findall(r'(?:href="#|url\(#)([^")]+)', page)} <= set(ids)


def test_numbers_of_a_matrix_of_fifteen_classes_do_not_touch():
    names = [f"finding number {n}" for n in range(15)]
    result = odd_result(names, num_images=60).supervised
    labels = np.eye(15)[np.arange(60) % 15]
    task = dataclasses.replace(result.task, name="single_finding", labels=labels)
    estimates = {"1": {"trained": estimate_scores(task, labels, Bootstrap(0, seed=0))}}
    counts = task.counts() | {"num_training_images": {"1": 9}}
    single = ClassificationResult(task, counts, task.baseline, estimates, {"1": {"trained": labels}})
    (ax,) = figures_of(DatasetResult(supervised=single))["confusion"].axes
    figure = ax.get_figure()
    figure.draw_without_rendering()
    cell = ax.get_window_extent().width / 15 * 72 / figure.dpi  # points; a number has letters of 6.5 points
    assert cell > 14
