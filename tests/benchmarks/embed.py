"""Speed, peak memory and exact resumption of `python -m beam_jobs.embed_images`.

    python tests/benchmarks/embed.py --model WORKDIR [--size 100000] [--side 256] [--workers 1]

Writes copies of 200 generated gray PNG images, embeds a twentieth of them and then all, each in a process of
its own, and prints images a second and the peak of resident memory. The whole job is started again elsewhere,
killed (SIGKILL) at a random shard three times, and finished. Exit status 1 if a byte of the resumed
embeddings differs, or if the peak at all images is more than 1.2 times that at a twentieth.
"""

import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from predict import write_images
from shared import new_parser

ALLOWED_GROWTH = 1.2
KILLS = 3


def embed(
    model: str, folder: pathlib.Path, output: pathlib.Path, workers: int, kill_at: int = 0
) -> tuple[float, float]:
    """Seconds and peak MiB of the job; it is killed once `kill_at` shards are finished."""
    command = [sys.executable, "-m", "beam_jobs.embed_images", "--model", model, "--input", str(folder)]
    started = time.monotonic()
    process = subprocess.Popen(
        [*command, "--output", str(output), f"--workers={workers}"],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while kill_at and len(list(output.parent.glob(f"{output.name}.incomplete-*/summary-*"))) < kill_at:
        time.sleep(0.05)
    if kill_at:
        os.killpg(process.pid, signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    if status and not kill_at:
        raise SystemExit(f"embed_images ended with status {status}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        place, peaks = pathlib.Path(name), []
        for size in (options.size // 20, options.size):
            folder = place / f"images_{size}"
            write_images(folder, size, options.side)
            whole = place / f"embeddings_{size}"
            seconds, peak = embed(options.model, folder, whole, options.workers)
            peaks.append(peak)
            rate = f"{size / seconds:5.0f} images/s, peak {peak:.0f} MiB"
            print(f"{size:7} images: {seconds:6.1f} s, {rate}, load {os.getloadavg()[0]:.1f}", flush=True)
        resumed, num_shards = place / "resumed", len(list(whole.glob("*.parquet")))
        kills = sorted(random.Random(0).sample(range(1, num_shards), min(KILLS, num_shards - 1)))
        for kill_at in kills:
            embed(options.model, folder, resumed, options.workers, kill_at)
        seconds, _ = embed(options.model, folder, resumed, options.workers)
        contents = [{path.name: path.read_bytes() for path in one.iterdir()} for one in (whole, resumed)]
        equal = contents[0] == contents[1]
    growth = peaks[-1] / peaks[0]
    said = f"killed at {', '.join(map(str, kills))} of {num_shards} shards and resumed"
    print(f"{said}: {seconds:.1f} s for the rest, bytes {'equal' if equal else 'DIFFER'}")
    print(f"peak at {options.size} images: {growth:.2f} times that at {options.size // 20}")
    return int(not equal or growth > ALLOWED_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
