"""Kill one run at random moments, damage its checkpoints, and compare every variable with an unbroken run.

    python tests/benchmarks/resume.py --output resume.json [--kills 20]

The run is the default one, small, on 60 phantoms, with dropout, a plateau schedule and averaged weights. A
killed process is started again with the same command. Each damage is done to the newest checkpoint of a copy.
"""

import argparse
import dataclasses
import hashlib
import io
import json
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import keras
import tensorflow as tf
from etils import epath
from rich.console import Console

from beam_jobs import decode_images, label_reports
from medclip_keras.config import RunConfig, override, to_dict
from medclip_keras.provenance import versions
from medclip_keras.runs import get_run, phantom_tiny
from medclip_keras.sources.phantom import write_phantom
from medclip_keras.training.checkpoint_files import CheckpointFolder
from medclip_keras.training.run_log import read_lines
from medclip_keras.training.train import train

CHILD = "import sys; from medclip_keras.runs import get_run; from medclip_keras.training.train import train; "
CHILD += "train(get_run(sys.argv[1]), sys.argv[2])"
EVERY, STOP_AT = 10, 25  # steps between checkpoints; steps before the damage


def make_run(folder: pathlib.Path, steps: int) -> RunConfig:
    """Write phantoms and their records; return the run on them."""
    raw, images, reports = folder / "raw", folder / "images", folder / "reports"
    write_phantom(raw, seed=1, num_paired=60, num_image_only=0, num_text_only=0, image_size=36)
    options = {"source": "phantom", "input": str(raw)}
    label_reports.run(**options, output=str(reports))
    decode_images.run(**options, output=str(images), image_size=36, reports=str(reports))
    settings = [
        "data.stored_image_size=36", "model.image.image_size=32", "model.image.width=8", "data.phantom=null",
        "model.text.hidden_dim=16", "model.text.intermediate_dim=16", "model.text.num_heads=2",
        "model.text.vocabulary_size=300", "train.batch_size=6", f"train.steps={steps}", "train.ema=0.9",
        f"train.checkpoint_every={EVERY}", "train.validate_every=15", "train.log_every=5",
        "train.schedule=plateau", "train.plateau_patience=2",
    ]  # fmt: skip
    config = override(phantom_tiny(), settings)
    data = dataclasses.replace(config.data, images=(str(images),), texts=(str(reports),))
    return dataclasses.replace(config, data=data)


def digest(workdir: pathlib.Path) -> str:
    """SHA-256 over every variable and counter of the last and the best checkpoint."""
    found = hashlib.sha256()
    for which in ("last", "best"):
        saved = CheckpointFolder(epath.Path(workdir) / "checkpoints" / which).find()[0]
        reader = tf.train.load_checkpoint(saved.prefix)
        for name in sorted(reader.get_variable_to_shape_map()):
            if "OBJECT_GRAPH" not in name:
                found.update(name.encode() + reader.get_tensor(name).tobytes())
        found.update(json.dumps([saved.step, saved.manifest()["state"]]).encode())
    return found.hexdigest()


def points(workdir: pathlib.Path) -> list:
    """The log's points without times; a duplicate or a missing one makes a difference."""
    lines = read_lines(workdir / "training.jsonl")
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def kill_often(run: pathlib.Path, workdir: pathlib.Path, kills: int, rng: random.Random) -> list[dict]:
    """Kill the run at random moments, every fifth time while it starts; then let it end."""
    done: list[dict] = []
    steps = get_run(str(run)).train.steps
    while True:
        saved = newest_step(workdir)
        target = 0 if len(done) % 5 == 4 else saved + rng.randrange(max(1, steps // kills))
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(run), str(workdir)], stdout=subprocess.DEVNULL
        ) as process:
            while (
                len(done) < kills and process.poll() is None and (not target or logged_step(workdir) < target)
            ):
                time.sleep(rng.uniform(0, 0.02) if target else rng.uniform(1, 8))
                if not target:
                    break
            if len(done) < kills:
                time.sleep(rng.uniform(0, 0.5))
                process.send_signal(signal.SIGKILL)
            status = process.wait()
        if status == 0:
            return done
        done.append({"logged": logged_step(workdir), "saved": newest_step(workdir)})
        print(f"kill {len(done)}: {done[-1]}", flush=True)


def logged_step(workdir: pathlib.Path) -> int:
    return max((line["step"] for line in read_lines(workdir / "training.jsonl")), default=0)


def newest_step(workdir: pathlib.Path) -> int:
    found = CheckpointFolder(epath.Path(workdir) / "checkpoints" / "last").find()
    return found[0].step if found else 0


def flip(path: epath.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def cut(path: epath.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().length // 2])


def newest(workdir: pathlib.Path, which: str = "last") -> epath.Path:
    return CheckpointFolder(epath.Path(workdir) / "checkpoints" / which).find()[0].paths[0]


def data_file(folder: epath.Path) -> epath.Path:
    return next(folder.glob("*.data-*"))


def swap_for_another(workdir: pathlib.Path) -> None:
    """Put TensorFlow's files of the older checkpoint in place of the newer one's."""
    older = CheckpointFolder(epath.Path(workdir) / "checkpoints" / "last").find()[1].paths[0]
    shutil.copy(data_file(older), data_file(newest(workdir)))


def as_later(workdir: pathlib.Path) -> None:
    older = CheckpointFolder(epath.Path(workdir) / "checkpoints" / "last").find()[1].paths[0]
    shutil.rmtree(newest(workdir))
    shutil.copytree(older, older.parent / "step-24")


DAMAGES: dict[str, Callable[[pathlib.Path], object]] = {
    "bit flipped in the weights": lambda w: flip(data_file(newest(w))),
    "bit flipped in the index": lambda w: flip(newest(w) / "weights.index"),
    "bit flipped in the manifest": lambda w: flip(newest(w) / "manifest.json"),
    "weights cut": lambda w: cut(data_file(newest(w))),
    "index cut": lambda w: cut(newest(w) / "weights.index"),
    "manifest cut": lambda w: cut(newest(w) / "manifest.json"),
    "weights deleted": lambda w: data_file(newest(w)).unlink(),
    "index deleted": lambda w: (newest(w) / "weights.index").unlink(),
    "manifest deleted": lambda w: (newest(w) / "manifest.json").unlink(),
    "weights empty": lambda w: data_file(newest(w)).write_bytes(b""),
    "manifest empty": lambda w: (newest(w) / "manifest.json").write_bytes(b""),
    "manifest a list": lambda w: (newest(w) / "manifest.json").write_text("[1]"),
    "folder empty": lambda w: [p.unlink() for p in newest(w).iterdir()],
    "weights of an older checkpoint": swap_for_another,
    "an older checkpoint under a later name": as_later,
    "newest deleted": lambda w: newest(w).rmtree(),
    "a list of checkpoints of garbage": lambda w: (newest(w).parent / "checkpoint").write_bytes(b"\xff{"),
    "best: bit flipped": lambda w: flip(data_file(newest(w, "best"))),
    "log cut": lambda w: cut(epath.Path(w) / "training.jsonl"),
    "half a later checkpoint": lambda w: shutil.copytree(newest(w), newest(w).parent / ".step-30.writing"),
}


class StopAt(keras.callbacks.Callback):
    """Stop after `STOP_AT` steps, with a checkpoint."""

    def on_train_batch_end(self, batch, logs=None):
        """Count from 0."""
        self.model.stop_training = batch + 1 == STOP_AT


def damage_matrix(config: RunConfig, folder: pathlib.Path) -> dict[str, dict]:
    """Damage the newest checkpoint in each way and resume: is it said, and is the end the unbroken one's?"""
    whole, stopped = folder / "matrix", folder / "stopped"
    config = override(config, ["train.steps=40"])
    train(config, whole, Console(file=io.StringIO()))
    expected = digest(whole)
    train(config, stopped, Console(file=io.StringIO()), [StopAt()])
    found = {}
    for name, damage in DAMAGES.items():
        workdir = folder / re.sub(r"\W+", "-", name)
        shutil.copytree(stopped, workdir)
        damage(workdir)
        said = Console(file=io.StringIO(), width=300)
        train(config, workdir, said)
        words = ("damaged", "lost", "done again", "Both", "Continues after")
        lines = [line for line in said.file.getvalue().splitlines() if any(word in line for word in words)]
        equal = digest(workdir) == expected
        found[name] = {"equal": equal, "points_equal": points(workdir) == points(whole), "said": lines}
        print(
            f"{name}: equal {equal}, points {found[name]['points_equal']}\n  " + "\n  ".join(lines),
            flush=True,
        )
    return found


def main() -> None:
    """Print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        config, run = make_run(folder, options.steps), folder / "run.json"
        damages = damage_matrix(config, folder)
        run.write_text(json.dumps({"config": to_dict(config)}))
        train(get_run(str(run)), folder / "whole", Console(file=io.StringIO()))
        done = kill_often(run, folder / "killed", options.kills, random.Random(options.seed))
        figures = {
            "kills": len(done),
            "equal": digest(folder / "killed") == digest(folder / "whole"),
            "points_equal": points(folder / "killed") == points(folder / "whole"),
            "most_steps_lost": max((one["logged"] - one["saved"] for one in done), default=0),
            "killed": done,
            "damages": damages,
            "versions": versions(),
        }
    options.output.write_text(json.dumps(figures, indent=1) + "\n")
    survived = sum(one["equal"] for one in figures["damages"].values())
    print(
        f"{len(done)} kills: equal {figures['equal']}, "
        f"at most {figures['most_steps_lost']} logged steps lost; "
        f"{survived} of {len(DAMAGES)} damages survived"
    )


if __name__ == "__main__":
    main()
