"""run.json: configuration, record fingerprints, input hashes and versions of a run."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from etils import epath

from medclip_keras.config import RunConfig, field_values, from_dict, to_dict
from medclip_keras.errors import require
from medclip_keras.files import write_whole
from medclip_keras.provenance import file_sha256, sha256_of, versions
from medclip_keras.records.manifest import read_manifest

RUN_FILE = "run.json"
# Fields that leave the weights as they are, beside `evaluation.*` and `export.*`. The content of the records
# decides, not their paths nor those of what they were made from.
_FREE_FIELDS = (
    "train.strategy", "train.jit_compile", "objective.tile_size", "train.log_every", "train.checkpoint_every",
    "train.keep_checkpoints", "train.patience", "data.allow_anomalies", "data.images",
    "data.texts", "data.raw", "data.concepts", "train.feature_cache",
)  # fmt: skip
_SHOWN = 4  # differences in one message

Json = dict[str, Any]
Changes = dict[str, tuple[Any, Any]]  # field → its old and its new value


def read_run_json(workdir: epath.PathLike) -> RunConfig:
    """Read the configuration of the run in `workdir`.

    Raises:
        ValueError: no run.json, or one with a value that this version refuses.
    """
    path = epath.Path(workdir) / RUN_FILE
    require(path.exists(), "workdir", "a folder in which a run was trained (with run.json)", str(workdir))
    try:
        return from_dict(json.loads(path.read_text())["config"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def write_run_json(config: RunConfig, workdir: epath.PathLike, step: int = 0) -> Changes:
    """Write run.json, or update the fields of the same run that may change.

    Returns the fields that change the steps after `step`, each with its old and its new value; run.json keeps
    them under "continued".

    Raises:
        ValueError: the workdir holds another run.
    """
    require_same_run(config, workdir)
    path = epath.Path(workdir) / RUN_FILE
    earlier = json.loads(path.read_text()) if path.exists() else {}
    changed = _continued(config, read_run_json(workdir), earlier) if earlier else {}
    kept = earlier or {"inputs": input_hashes(config), "versions": versions()}
    run = kept | {"config": to_dict(config), "records": _record_fingerprints(config)}
    if changed:
        run["continued"] = [*earlier.get("continued", []), {"after_step": step, **changed}]
    if run != earlier:
        epath.Path(workdir).mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(run, indent=2) + "\n")
    return changed


def require_same_run(config: RunConfig, workdir: epath.PathLike) -> None:
    """Refuse a workdir of another run.

    Raises:
        ValueError: the message names each difference and both values.
    """
    found = differences(config, workdir)
    more = [f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    needed = f"empty or hold this very run; it differs in {', '.join(found[:_SHOWN] + more)}"
    require(not found, "workdir", needed, str(workdir), "Name another --workdir, or delete it.")


def differences(config: RunConfig, workdir: epath.PathLike) -> list[str]:
    """List the differences between a configuration and the run in `workdir`; empty without a run.

    Fields that leave the weights as they are, and another path of the same content, are no difference; nor
    are the fields with which a run continues. An input without a hash, in a run.json of an earlier version,
    equals any file.

    Returns:
        Such as ["train.batch_size (7 there, 8 here)", "the content of model.text.vocabulary"].
    """
    path = epath.Path(workdir) / RUN_FILE
    if not path.exists():
        return []
    run, earlier = json.loads(path.read_text()), read_run_json(workdir)
    hashes, kept = input_hashes(config), run.get("inputs", {})
    same = {name for name, sha256 in kept.items() if hashes.get(name) == sha256}
    allowed = same | _continued(config, earlier, run).keys()
    found = [
        f"{name} ({there} there, {here} here)"
        for name, (there, here) in _changes(config, earlier).items()
        if name not in allowed
    ]
    if list(run["records"].values()) != list(_record_fingerprints(config).values()):
        found.append("the content of the records")
    return found + [f"the content of {n}" for n, sha256 in kept.items() if hashes.get(n, sha256) != sha256]


def _changes(config: RunConfig, earlier: RunConfig) -> Changes:
    """Changed fields that affect the weights; zero-shot evaluations only if they choose the best weights."""
    free = (*_FREE_FIELDS, "train.evaluate_every") if config.train.best_by == "kl" else _FREE_FIELDS
    there, here = field_values(earlier), field_values(config)
    return {
        name: (there.get(name, "nothing"), here.get(name, "nothing"))
        for name in sorted({*there, *here})
        if there.get(name, "nothing") != here.get(name, "nothing")
        and name not in free
        and not name.startswith(("evaluation.", "export."))
    }


def _continued(config: RunConfig, earlier: RunConfig, run: Json) -> Changes:
    """Changed fields with which a run continues: more steps, or a lower rate after a diverged loss."""
    return {
        name: (there, here)
        for name, (there, here) in _changes(config, earlier).items()
        if (name in ("train.steps", "train.epochs") and 0 < there < here)
        or (name == "train.learning_rate" and here < there and run.get("diverged"))
    }


@contextlib.contextmanager
def mark_diverged(workdir: epath.PathLike) -> Iterator[None]:
    """Record in run.json a loss that is not finite; such a run may continue at a lower rate."""
    path, diverged = epath.Path(workdir) / RUN_FILE, False
    try:
        yield
    except FloatingPointError:
        diverged = True
        raise
    finally:
        run = json.loads(path.read_text())
        if run.get("diverged", False) != diverged:
            write_whole(path, json.dumps(run | {"diverged": diverged}, indent=2) + "\n")


def input_hashes(config: RunConfig) -> dict[str, str]:
    """SHA-256, by field, of every local input other than records that decides the weights."""
    text, image = config.model.text, config.model.image
    paths = {
        "model.text.vocabulary": text.vocabulary,
        "model.text.preset": text.preset,
        "model.image.preset": image.preset,
    }
    hashes = {name: _path_sha256(epath.Path(path)) for name, path in paths.items() if path and _exists(path)}
    if config.data.images:
        hashes["concepts"] = read_manifest(config.data.images[0]).concepts_sha256
    return hashes


def _exists(path: str) -> bool:
    return "://" not in path and epath.Path(path).exists()


def _path_sha256(path: epath.Path) -> str:
    """SHA-256 of a file, or of a folder's names and contents."""
    if not path.is_dir():
        return file_sha256(path)
    return sha256_of({child.name: _path_sha256(child) for child in path.iterdir()})


def _record_fingerprints(config: RunConfig) -> dict[str, str]:
    return {d: read_manifest(d).fingerprint for d in (*config.data.images, *config.data.texts)}
