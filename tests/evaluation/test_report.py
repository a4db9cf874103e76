import dataclasses
import html
import json
import re

import pytest
from rich.console import Console

from medclip_keras.evaluation.evaluator import evaluate
from medclip_keras.evaluation.plots import draw
from medclip_keras.evaluation.report import write
from medclip_keras.evaluation.table import rows, terminal_table


def test_report_embeds_every_plot(measured, tmp_path):
    write({"phantom": measured}, tmp_path, {"run": "test run", "seed": 3})
    names = {path.stem for path in (tmp_path / "figures" / "phantom").glob("*.png")}
    assert names == {"similarity", "confusion", "roc", "embedding", "retrieval", "retrieval_similarity"}
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(names)
    assert not re.search(r"(src|href)=\"(?!data:)", page)
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


def test_rows_show_trained_untrained_and_chance(measured):
    found = {row.name: row for row in rows(measured)}
    row = found["zero-shot accuracy, ensemble"]
    assert row.trained.value == 1.0
    assert row.chance == pytest.approx(1 / 3)
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


def test_plots_are_drawn_without_an_untrained_model(world, config):
    result = world.evaluate(config)
    assert len(draw(result)) == 6
    assert all(row.untrained is None for row in rows(result))
