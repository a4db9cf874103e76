"""The public surface: these names and no others, and importing the package does no work."""

import subprocess
import sys

import medclip_keras

PUBLIC = [
    "LabelState", "Pipeline", "ReportLabeller", "RunConfig", "evaluate_workdir", "evaluation_images",
    "evaluation_sentences", "export_workdir", "get_run", "get_source", "highlight", "label_similarity",
    "load", "load_model", "load_table", "override", "semantic_matching", "split_sections", "train",
]  # fmt: skip


def test_the_public_names_are_these():
    assert medclip_keras.__all__ == PUBLIC


def test_every_public_name_is_there_under_its_own_name():
    for name in PUBLIC:
        assert getattr(medclip_keras, name).__name__ == name


def test_importing_the_package_imports_no_framework():
    frameworks = {"tensorflow", "keras", "spacy", "apache_beam"}
    code = f"import sys, medclip_keras; print(sorted({frameworks} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
