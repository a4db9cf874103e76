"""Whether a reader of MODELS_DIR ever sees half a version while `python -m medclip_keras.export` is killed.

    python tests/benchmarks/push_kills.py --workdir WORKDIR [--kills 20] [--seed 0]

Exports twice undisturbed, then KILLS times, each killed with SIGKILL at a random moment: half of them at any
moment, half in the fifth of the time around the push. A reader process polls MODELS_DIR and tokens_only/ all
the while, and compares every file of each numbered folder with its manifest. At last an export runs to its
end. Exit status 1 if the reader saw a folder that is not whole, or if anything of the killed is left.
"""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from shared import new_parser

from medclip_keras.serving.manifest import check_manifest

HELD_BACK = (".exporting-", ".removing-")


def read_until_told(models: pathlib.Path) -> None:
    """Check the numbered folders until the file `stop` appears; print counts and faults as JSON."""
    seen: dict[str, int] = {}
    faults, polls, parent = [], 0, os.getppid()
    while os.getppid() == parent and not (models / "stop").exists():
        polls += 1
        for place in (models, models / "tokens_only"):
            for name in os.listdir(place) if place.exists() else ():
                if name.isdigit():
                    seen[str(place / name)] = seen.get(str(place / name), 0) + 1
                    try:
                        check_manifest(place / name)
                    except (ValueError, OSError) as error:
                        faults.append(str(error))
        time.sleep(0.002)
    print(json.dumps({"polls": polls, "checks": sum(seen.values()), "folders": len(seen), "faults": faults}))


def export(workdir: str, models: pathlib.Path, kill_after: float | None) -> tuple[float, str]:
    """Seconds of an export, and how it ended: "done", or the stage in which it was killed."""
    command = [sys.executable, "-m", "medclip_keras.export", "--workdir", workdir, "--output", str(models)]
    before, started = set(os.listdir(models)), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        status = process.wait(kill_after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        staged = next(models.glob(".exporting-*/"), None)
        written = sorted(path.name for path in staged.iterdir()) if staged else []
        appeared = set(os.listdir(models)) - before - {staged.name if staged else ""}
        return time.monotonic() - started, f"killed, {written or 'nothing'} written, new: {sorted(appeared)}"
    if status:
        raise SystemExit(f"export ended with status {status}")
    return time.monotonic() - started, "done"


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--workdir")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--read", help="folder of the versions, for the reader process")
    options = parser.parse_args()
    if options.read:
        read_until_told(pathlib.Path(options.read))
        return 0
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        models = pathlib.Path(folder) / "models"
        models.mkdir()
        reader = subprocess.Popen(
            [sys.executable, __file__, "--read", str(models)], stdout=subprocess.PIPE, text=True
        )
        usual = max(export(options.workdir, models, None)[0] for _ in range(2))
        print(f"An undisturbed export takes {usual:.0f} s.", flush=True)
        for n in range(options.kills):
            moment = usual * (rng.uniform(0.02, 1) if n % 2 else rng.uniform(0.8, 1))
            seconds, ended = export(options.workdir, models, moment)
            print(f"{n + 1:>3}  after {seconds:5.1f} s: {ended}", flush=True)
        export(options.workdir, models, None)
        (models / "stop").write_text("")
        found = json.loads(reader.communicate()[0])
        numbers = {name for name in os.listdir(models) if name.isdigit()}
        twins = {name for name in os.listdir(models / "tokens_only") if name.isdigit()}
        left = [name for name in os.listdir(models) if name.startswith(HELD_BACK)]
    print(f"{found['polls']:,} polls, {found['checks']:,} checks of {found['folders']} folders", end="")
    print(
        f", not whole: {len(found['faults'])}, left behind: {left}, without twin: {sorted(numbers ^ twins)}"
    )
    print("\n".join(found["faults"][:5]))
    return int(bool(found["faults"] or left or numbers ^ twins))


if __name__ == "__main__":
    sys.exit(main())
