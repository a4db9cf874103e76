"""Peak memory of decode_images must not grow with the archive: 20,000 generated images against 2,000.

    python tests/benchmarks/decode_memory.py [--num_images 2000 20000] [--image_size 256] [--workdir DIR]

Noisy 64 px JPEG files and the table that names them are generated, and the job runs in a process of its own
on each number of images. Exit status 1 where the largest peak is more than 1.2 times the smallest. Two cores:
about two minutes and 1.5 GB of disk.
"""

import argparse
import csv
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import PIL.Image

ALLOWED_RATIO = 1.2


def generate(directory: pathlib.Path, num_images: int) -> pathlib.Path:
    """Writes the images and their table; four images a patient."""
    generator = np.random.default_rng(num_images)
    (directory / "images").mkdir(parents=True)
    table = directory / "table.csv"
    with table.open("w") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "patient_id", "study_id", "Edema"))
        for number in range(num_images):
            pixels = generator.integers(0, 256, (64, 52), np.uint8)
            PIL.Image.fromarray(pixels).save(directory / "images" / f"{number}.jpg")
            writer.writerow((f"images/{number}.jpg", f"p{number // 4}", f"s{number}", number % 2))
    return table


def run_job(table: pathlib.Path, output: pathlib.Path, image_size: int) -> tuple[float, float]:
    """Runs decode_images in its own process; returns its peak memory in MiB and its seconds."""
    command = [sys.executable, "-m", "beam_jobs.decode_images", "--source=csv", f"--input={table}"]
    started = time.monotonic()
    process = subprocess.Popen([*command, f"--output={output}", f"--image_size={image_size}"])
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"the job ended with status {status}")
    return usage.ru_maxrss / 1024, time.monotonic() - started


def main() -> None:
    """Measures and compares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num_images", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--workdir", default=None, help="where to write; removed at the end")
    arguments = parser.parse_args()
    peaks = []
    for num_images in arguments.num_images:
        with tempfile.TemporaryDirectory(dir=arguments.workdir) as workdir:
            table = generate(pathlib.Path(workdir) / "archive", num_images)
            peak, seconds = run_job(table, pathlib.Path(workdir) / "records", arguments.image_size)
        peaks.append(peak)
        print(f"{num_images} images: peak {peak:.0f} MiB, {seconds:.0f} s", flush=True)
    ratio = max(peaks) / min(peaks)
    print(f"largest over smallest peak: {ratio:.3f} (allowed: {ALLOWED_RATIO})")
    sys.exit(ratio > ALLOWED_RATIO)


if __name__ == "__main__":
    main()
