"""The notebooks run from top to bottom on the run that the tests trained; they are stored without outputs."""

import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs_and_draws(path, fitted, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDCLIP_WORKDIR", str(fitted.workdir))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) >= 3


@pytest.mark.parametrize("name", ["03_zero_shot", "04_retrieval"])
def test_notebook_finds_the_demo_run_from_its_own_folder(name, fitted, monkeypatch, tmp_path):
    """As `make demo` and then `make notebook` leave it: the run is beside the folder of the notebooks."""
    monkeypatch.delenv("MEDCLIP_WORKDIR", raising=False)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "workdir").mkdir()
    (tmp_path / "workdir" / "phantom_tiny").symlink_to(fitted.workdir)
    path = next(path for path in NOTEBOOKS if path.stem == name)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = notebook.cells[:4]
    where = {"metadata": {"path": str(tmp_path / "notebooks")}}
    NotebookClient(notebook, timeout=300, resources=where).execute()
    assert not (tmp_path / "notebooks" / "workdir").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_stored_without_outputs(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_label_job_runs_inside_a_kernel(tmp_path):
    """Inside a kernel Beam imports pandas, which the notebooks' dependencies bring."""
    code = (
        "from beam_jobs import label_reports\n"
        "from medclip_keras.sources.phantom import write_phantom\n"
        "write_phantom('raw', seed=0, num_paired=3, num_image_only=0, num_text_only=3, image_size=32)\n"
        "label_reports.main(['--source=phantom', '--input=raw', '--output=records'])"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "records" / "manifest.json").exists()
