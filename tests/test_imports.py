"""Laws on the arrows between the rooms, read from the code: who may import whom."""

import ast
import functools
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted(
    p.relative_to(ROOT) for top in ("medclip_keras", "beam_jobs") for p in (ROOT / top).rglob("*.py")
)
MODULES = {str(p.with_suffix("")).replace("/", ".").removesuffix(".__init__"): p for p in FILES}

# Packages that a room must not import, not even inside a function.
FORBIDDEN = {
    "medclip_keras/knowledge": ("tensorflow", "keras", "keras_hub", "apache_beam"),
    "medclip_keras/sources": ("tensorflow", "keras", "keras_hub", "apache_beam"),
    "medclip_keras/objectives": ("tensorflow", "apache_beam"),
    "medclip_keras/models": ("tensorflow", "apache_beam"),
    "medclip_keras": ("apache_beam", "medclip_keras.fit"),
}
# The only project modules that a room may import, beside itself.
MAY_IMPORT = {
    "objectives": (),
    "config": ("errors", "objectives"),
    "runs": ("errors", "config", "command"),
    "knowledge": ("errors", "command", "pages"),
    "sources": ("errors", "knowledge.label_names", "knowledge.states", "knowledge.sections"),
    "preprocess": ("errors", "config", "sources.rows"),
    "models": ("errors", "config", "objectives"),
    "evaluation": ("errors", "config", "files", "knowledge", "pages", "sources.tables"),
}
# Commands of a room that read records, inside functions: their rooms stay free of TensorFlow.
COMMANDS_ON_RECORDS = ("medclip_keras/knowledge/audit/__main__.py",)
USERS_OF_BEAM_JOBS = ("medclip_keras/pipeline.py", "medclip_keras/records/tfds_builders.py")


@functools.cache
def imports_of(path: pathlib.Path) -> list[tuple[str, bool]]:
    """Full names that a file imports, each with whether a function imports it."""
    found = []

    def visit(node, in_function):
        if isinstance(node, ast.Import):
            found.extend((alias.name, in_function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.extend((f"{node.module}.{alias.name}", in_function) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child, in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    visit(ast.parse((ROOT / path).read_text()), False)
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def broken_laws(path: pathlib.Path) -> list[str]:
    """The forbidden imports of one file."""
    broken = []
    for name, in_function in imports_of(path):
        forbidden = [m for room, modules in FORBIDDEN.items() if path.is_relative_to(room) for m in modules]
        room = path.parts[1]
        if any(within(name, module) for module in forbidden):
            broken.append(name)
        if path.parts[0] == "medclip_keras" and room in MAY_IMPORT and within(name, "medclip_keras"):
            more = ("records",) if in_function and str(path) in COMMANDS_ON_RECORDS else ()
            allowed = [f"medclip_keras.{module}" for module in (room, *MAY_IMPORT[room], *more)]
            broken += [name] if not any(within(name, module) for module in allowed) else []
        if path.parts[0] == "medclip_keras" and within(name, "beam_jobs"):
            broken += [name] if not in_function or str(path) not in USERS_OF_BEAM_JOBS else []
    return broken


def module_of(name: str) -> str | None:
    """The project's module that an imported name stands in."""
    return next((m for m in (name, name.rpartition(".")[0]) if m in MODULES), None)


def circle_in(files: dict[str, pathlib.Path]) -> list[str]:
    """A circle of modules that import each other, inside functions too; empty without one."""
    arrows = {
        module: {m for name, _ in imports_of(path) if (m := module_of(name)) and m != module}
        for module, path in files.items()
    }
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_rooms_are_known():
    rooms = {p.parts[1] for p in FILES if p.parts[0] == "medclip_keras" and len(p.parts) > 2}
    assert rooms == {*MAY_IMPORT, "records", "demo", "search", "serving", "training"}
    assert not [p for p in FILES if p.stem in ("utils", "helpers", "common", "misc")]


def test_no_file_breaks_a_law():
    assert {str(path): broken for path in FILES if (broken := broken_laws(path))} == {}


def test_imports_have_no_circle():
    assert circle_in(MODULES) == []


@pytest.mark.parametrize(
    ("file", "code", "name"),
    [
        ("medclip_keras/knowledge/x.py", "def f():\n    import tensorflow as tf\n", "tensorflow"),
        (
            "medclip_keras/objectives/x.py",
            "from medclip_keras.errors import require",
            "medclip_keras.errors.require",
        ),
        (
            "medclip_keras/knowledge/x.py",
            "def f():\n    from medclip_keras import records",
            "medclip_keras.records",
        ),
        (
            "medclip_keras/knowledge/audit/__main__.py",
            "from medclip_keras import records",
            "medclip_keras.records",
        ),
        ("medclip_keras/training/x.py", "from beam_jobs import job", "beam_jobs.job"),
        ("medclip_keras/pipeline.py", "import beam_jobs.job", "beam_jobs.job"),
        ("medclip_keras/pipeline.py", "from medclip_keras import fit", "medclip_keras.fit"),
    ],
)
def test_planted_arrow_is_found(tmp_path, monkeypatch, file, code, name):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(code)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    imports_of.cache_clear()
    assert broken_laws(pathlib.Path(file)) == [name]
    imports_of.cache_clear()


def test_planted_circle_is_found(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("import b")
    (tmp_path / "b.py").write_text("def f():\n    from a import g")
    files = {"a": pathlib.Path("a.py"), "b": pathlib.Path("b.py")}
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    monkeypatch.setitem(globals(), "MODULES", files)
    imports_of.cache_clear()
    assert set(circle_in(files)) == {"a", "b"}
    imports_of.cache_clear()
