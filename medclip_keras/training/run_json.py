"""run.json: configuration, record fingerprints, input hashes and versions of a run; written once."""

import json

from etils import epath

from medclip_keras.config import RunConfig, field_values, from_dict, to_dict
from medclip_keras.errors import refusal, require
from medclip_keras.provenance import sha256_of, versions
from medclip_keras.records.manifest import file_sha256, read_manifest

RUN_FILE = "run.json"
# Fields that a resumed run may change: the devices, and the paths of records with equal fingerprints.
_FREE_FIELDS = ("train.strategy", "data.images", "data.texts")
_SHOWN = 4  # differences in one message


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


def write_run_json(config: RunConfig, workdir: epath.PathLike) -> None:
    """Write run.json; keep an existing one of the same run.

    Raises:
        ValueError: the workdir holds another run; the message names each difference and both values.
    """
    found = differences(config, workdir)
    if found:
        more = [f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        raise refusal(
            "workdir",
            f"empty or hold this very run; it differs in {', '.join(found[:_SHOWN] + more)}",
            str(workdir),
            "Name another --workdir, or delete it.",
        )
    path = epath.Path(workdir) / RUN_FILE
    if not path.exists():
        epath.Path(workdir).mkdir(parents=True, exist_ok=True)
        written = {
            "config": to_dict(config),
            "records": _record_fingerprints(config),
            "inputs": input_hashes(config),
            "versions": versions(),
        }
        path.write_text(json.dumps(written, indent=2) + "\n")


def differences(config: RunConfig, workdir: epath.PathLike) -> list[str]:
    """List what differs between a configuration and the run in `workdir`; empty if there is no run.

    An input without a hash, in a run.json of an earlier version, equals any file.

    Returns:
        Such as ["train.steps (7 there, 8 here)", "the content of model.text.vocabulary"].
    """
    path = epath.Path(workdir) / RUN_FILE
    if not path.exists():
        return []
    there, here = field_values(read_run_json(workdir)), field_values(config)
    absent = "nothing"
    found = [
        f"{name} ({there.get(name, absent)} there, {here.get(name, absent)} here)"
        for name in sorted({*there, *here})
        if name not in _FREE_FIELDS and there.get(name, absent) != here.get(name, absent)
    ]
    run = json.loads(path.read_text())
    if list(run["records"].values()) != list(_record_fingerprints(config).values()):
        found.append("the content of the records")
    hashes = input_hashes(config)
    return found + [
        f"the content of {name}"
        for name, sha256 in run.get("inputs", {}).items()
        if hashes.get(name, sha256) != sha256
    ]


def input_hashes(config: RunConfig) -> dict[str, str]:
    """SHA-256 of every local file or folder beside the records that decides a run's weights, by field."""
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
    """SHA-256 of a file; of a folder's names and the contents below them."""
    if not path.is_dir():
        return file_sha256(path)
    return sha256_of({child.name: _path_sha256(child) for child in path.iterdir()})


def _record_fingerprints(config: RunConfig) -> dict[str, str]:
    return {d: read_manifest(d).fingerprint for d in (*config.data.images, *config.data.texts)}
