"""Provenance of an artifact: package versions, the commit of the code, fingerprints of values and code."""

import ast
import hashlib
import importlib
import importlib.metadata
import io
import json
import pathlib
import platform
import subprocess
import tokenize
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, cast

from etils import epath

_READ_BYTES = 1 << 22
PACKAGES = (
    "medclip_keras",
    "tensorflow",
    "keras",
    "keras-hub",
    "tensorflow-text",
    "tensorflow-datasets",
    "apache-beam",
    "spacy",
    "numpy",
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result, and the commit of the code."""
    found = {"python": platform.python_version()}
    found |= {name: importlib.metadata.version(name) for name in PACKAGES}
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {**found, "commit": commit}


def sha256_of(value: Any) -> str:
    """SHA-256 of a value of JSON types."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_sha256(path: epath.PathLike) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with epath.Path(path).open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def code_sha256(modules: Iterable[ModuleType]) -> str:
    """SHA-256 of the code of modules, and of all files of packages, their data files included.

    Of Python files comments, docstrings and blank lines do not count: a better explanation is the same code.
    """
    digest = hashlib.sha256()
    for module in modules:
        file = pathlib.Path(module.__file__ or "")
        for path in sorted(file.parent.rglob("*")) if file.name == "__init__.py" else [file]:
            if path.is_file() and path.suffix != ".pyc":
                content = path.read_bytes()
                digest.update(bare_code(content.decode()).encode() if path.suffix == ".py" else content)
    return digest.hexdigest()


def bare_code(source: str) -> str:
    """Python code without its comments, docstrings and blank lines; the same in every version of Python.

    >>> bare_code("def f(x):  # of what\\n\\n    'Explain.'\\n    return x\\n")
    'def f(x):\\n    return x'
    """
    lines = source.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line, column = token.start
            lines[line - 1] = lines[line - 1][:column]
    tree = ast.parse(source)
    kept: set[int] = set()  # lines within strings, whose blanks are part of the code
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr):
            kept |= {*range(node.lineno, node.end_lineno or node.lineno)}
    for docstring in _docstrings(tree):
        first, last = docstring.lineno, docstring.end_lineno or docstring.lineno
        before = lines[first - 1].encode()[: docstring.col_offset]
        after = lines[last - 1].encode()[docstring.end_col_offset :]
        lines[first - 1 : last] = [(before + after).decode(), *[""] * (last - first)]
        kept -= {*range(first, last)}
    found = (line if number in kept else line.rstrip() for number, line in enumerate(lines, 1))
    return "\n".join(line for number, line in enumerate(found, 1) if line or number in kept)


def _docstrings(tree: ast.Module) -> Iterator[ast.Expr]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            yield cast(ast.Expr, node.body[0])


def modules_behind(module: ModuleType, package: str) -> tuple[ModuleType, ...]:
    """A module, and the modules of a package that it imports, directly or through each other, by name."""
    found: dict[str, ModuleType] = {}
    waiting = [module]
    while waiting:
        one = waiting.pop()
        if one.__name__ not in found:
            found[one.__name__] = one
            waiting += map(importlib.import_module, _imported(one, package))
    return tuple(found[name] for name in sorted(found))


def _imported(module: ModuleType, package: str) -> Iterator[str]:
    """Names of a package's modules in the import statements of a module's file."""
    for node in ast.walk(ast.parse(pathlib.Path(module.__file__ or "").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == package:
            yield from (f"{package}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            yield node.module or ""
