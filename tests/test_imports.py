"""The arrows between the rooms, read from the code: who may import whom."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
OURS = ("medclip_keras", "beam_jobs")
FILES = sorted(p.relative_to(ROOT) for package in OURS for p in (ROOT / package).rglob("*.py"))

# Modules outside of the project that a room must not import, anywhere.
FORBIDDEN = {
    "medclip_keras/knowledge": ("tensorflow", "keras", "keras_hub", "apache_beam"),
    "medclip_keras/sources": ("tensorflow", "keras", "keras_hub", "apache_beam"),
    "medclip_keras/objectives": ("tensorflow", "apache_beam"),
    "medclip_keras/models": ("tensorflow", "apache_beam"),
    "medclip_keras": ("apache_beam",),
}
# Of the project's own rooms, all that a room may import (itself included always).
MAY_IMPORT = {
    "medclip_keras/objectives": (),
    "medclip_keras/models": ("medclip_keras.errors", "medclip_keras.config", "medclip_keras.objectives"),
    "medclip_keras/knowledge": ("medclip_keras.errors", "medclip_keras.command", "medclip_keras.pages"),
    "medclip_keras/sources": (
        "medclip_keras.errors",
        "medclip_keras.config",
        "medclip_keras.knowledge.label_names",
        "medclip_keras.knowledge.states",
        "medclip_keras.knowledge.sections",
    ),
    "medclip_keras/evaluation": (
        "medclip_keras.errors",
        "medclip_keras.config",
        "medclip_keras.knowledge",
        "medclip_keras.pages",
    ),
    "medclip_keras/preprocess": (
        "medclip_keras.errors",
        "medclip_keras.config",
    ),
}
USERS_OF_BEAM_JOBS = ("medclip_keras/pipeline.py", "medclip_keras/records/tfds_builders.py")


def imports_of(path: pathlib.Path) -> list[tuple[str, bool]]:
    """Full names that a file imports, each with whether it does so inside a function."""
    tree = ast.parse((ROOT / path).read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found += [(f"{node.module}.{alias.name}", id(node) in inside) for alias in node.names]
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_every_room_is_known():
    rooms = {str(p.parent) for p in FILES if len(p.parts) > 2}
    tops = {str(pathlib.Path(*p.parts[:2])) for p in FILES if len(p.parts) > 2}
    assert tops == {
        f"medclip_keras/{r}"
        for r in (
            "evaluation", "knowledge", "models", "objectives", "preprocess",
            "records", "serving", "sources", "training",
        )
    } | {"beam_jobs/dataset", "beam_jobs/validation"}, rooms  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_forbidden_arrow(path):
    for name, inside_function in imports_of(path):
        for room, modules in FORBIDDEN.items():
            if path.is_relative_to(room):
                assert not any(within(name, module) for module in modules), f"{path} imports {name}"
        for room, allowed in MAY_IMPORT.items():
            if path.is_relative_to(room) and within(name, "medclip_keras"):
                own = room.replace("/", ".")
                assert any(within(name, module) for module in (own, *allowed)), f"{path} imports {name}"
        if path.is_relative_to("medclip_keras") and within(name, "beam_jobs"):
            assert str(path) in USERS_OF_BEAM_JOBS, f"{path} imports {name}"
            assert inside_function, f"{path} imports {name} outside of a function"
        assert not within(name, "medclip_keras.fit"), f"{path} imports {name}: nothing imports fit"


def test_no_room_for_odds_and_ends():
    assert not [p for p in FILES if p.stem in ("utils", "helpers", "common", "misc")]


def test_the_arrows_can_be_violated(tmp_path, monkeypatch):
    bad = tmp_path / "medclip_keras" / "knowledge"
    bad.mkdir(parents=True)
    (bad / "x.py").write_text("def f():\n    import tensorflow as tf\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    with pytest.raises(AssertionError, match="imports tensorflow"):
        test_no_forbidden_arrow(pathlib.Path("medclip_keras/knowledge/x.py"))
