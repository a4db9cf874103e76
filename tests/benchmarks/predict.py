"""Speed, peak memory and exact resumption of `python -m medclip_keras.predict`.

    python tests/benchmarks/predict.py --model WORKDIR [--sizes 2000 20000] [--side 512]

Writes generated gray PNG images, scores each size in a process of its own, and prints images a second and
the peak of resident memory. The largest size is run again, killed in the middle and resumed. Exit status 1 if
the peak at the largest size is more than 1.2 times that at the smallest, or a byte of the resumed scores
differs.
"""

import io
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import PIL.Image
from shared import new_parser

ALLOWED_GROWTH = 1.2
DISTINCT = 200  # pictures; the files are copies


def write_images(folder: pathlib.Path, size: int, side: int) -> None:
    folder.mkdir()
    contents = []
    for seed in range(DISTINCT):
        small = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8), np.uint8)
        file = io.BytesIO()
        PIL.Image.fromarray(small).resize((side, side), PIL.Image.BICUBIC).save(file, "PNG")
        contents.append(file.getvalue())
    for n in range(size):
        (folder / f"{n:06d}.png").write_bytes(contents[n % DISTINCT])


def predict(model: str, folder: pathlib.Path, output: pathlib.Path, kill_at: int = 0) -> tuple[float, float]:
    """Seconds and peak MiB of a command; it is killed once `kill_at` chunks are done."""
    command = [sys.executable, "-m", "medclip_keras.predict", "--model", model, "--images", str(folder)]
    command += ["--findings", "Edema,Pleural Effusion", "--output", str(output)]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    chunks = output.with_name(output.name + ".chunks")
    while kill_at and len(list(chunks.glob("*.npz"))) < kill_at:
        time.sleep(0.05)
    if kill_at:
        process.send_signal(signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    if status and not kill_at:
        raise SystemExit(f"predict ended with status {status}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--side", type=int, default=512)
    options = parser.parse_args()
    sizes, peaks = sorted(options.sizes), []
    with tempfile.TemporaryDirectory() as place:
        for size in sizes:
            folder = pathlib.Path(place, f"images_{size}")
            write_images(folder, size, options.side)
            whole = pathlib.Path(place, f"{size}.csv")
            seconds, peak = predict(options.model, folder, whole)
            peaks.append(peak)
            print(
                f"{size:7} images: {seconds:6.1f} s, {size / seconds:5.0f} images/s, peak {peak:.0f} MiB",
                flush=True,
            )
        resumed = pathlib.Path(place, "resumed.csv")
        predict(options.model, folder, resumed, kill_at=sizes[-1] // 512)
        seconds, _ = predict(options.model, folder, resumed)
        equal = resumed.read_bytes() == whole.read_bytes()
    growth = peaks[-1] / peaks[0]
    print(f"killed and resumed: {seconds:.1f} s for the rest, bytes {'equal' if equal else 'DIFFER'}")
    print(f"peak at {sizes[-1]} images: {growth:.2f} times that at {sizes[0]}")
    return int(not equal or growth > ALLOWED_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
