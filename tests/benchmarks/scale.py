"""Both jobs on a generated MIMIC-CXR tree: reports and images a second, and the memory of every process.

    python tests/benchmarks/scale.py [--sizes 20000 200000] [--workers 1 2] [--image_size 64] [--workdir DIR]

For each size a tree of so many report files and as many small images is written (`mimic_tree`); label_reports
and then decode_images with `--reports` read it, on each number of workers; the records must be the same. Each
job is a process of its own. A line says of it, and then of its worker processes, the peak of resident memory,
as the kernel keeps it, and the processor seconds: while the first one spends its own, workers mostly wait.

Exit status 1 where a process of any job took more than 2 GiB, where a peak at the largest size is more than
1.2 times that at the smallest, or where the most workers were less than 1.5 times as fast as one at the
largest size. Two idle cores: half an hour and 3 GB of disk; with 256 pixels an image 13 GB more.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from mimic_tree import write_tree
from shared import new_parser

from medclip_keras.records.manifest import read_manifest

JOBS = ("label_reports", "decode_images")
ALLOWED_GIB = 2
ALLOWED_GROWTH = 1.2
LEAST_SPEED_UP = 1.5
_SECONDS_BETWEEN_LOOKS = 0.1


@dataclass(frozen=True)
class Run:
    """A finished job; of each process the peak memory in MiB and the processor seconds."""

    num_rows: int
    seconds: float
    parent: tuple[float, float]
    workers: tuple[tuple[float, float], ...]

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.num_rows / self.seconds

    @property
    def peak(self) -> float:
        """Of the largest process, MiB."""
        return max(mib for mib, _ in (self.parent, *self.workers))

    @property
    def shown(self) -> str:
        """The figures in words."""
        processes = [f"{mib:.0f} MiB {cpu:.0f} CPU s" for mib, cpu in (self.parent, *self.workers)]
        return f"{self.seconds:7.1f} s {self.rate:7.0f} rows/s   {' | '.join(processes)}"


def run_job(
    job: str, tree: pathlib.Path, output: pathlib.Path, num_workers: int, arguments: list[str]
) -> Run:
    """Runs a job to its end and watches the memory of its processes."""
    command = [sys.executable, "-m", f"beam_jobs.{job}", "--source=mimic_cxr", f"--input={tree}"]
    command += [f"--output={output}", f"--workers={num_workers}", *arguments]
    started, seen = time.monotonic(), {}
    with (output.parent / f"{output.name}.log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            for pid in _family(process.pid):
                mib, cpu = seen.get(pid, (0, 0))
                seen[pid] = _peak_mib(pid) or mib, _cpu_seconds(pid) or cpu
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if process.returncode != 0:
            log.seek(0)
            raise SystemExit(f"{job} ended with status {process.returncode}: {log.read()[-2000:]}")
    seconds, parent = time.monotonic() - started, seen.pop(process.pid)
    workers = tuple(sorted((mib, cpu) for mib, cpu in seen.values() if cpu > 1))  # the others are shells
    return Run(read_manifest(output).counts["rows"], seconds, parent, workers)


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:  # grows as it goes
        for task in pathlib.Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:  # it has ended
                continue
    return found


def _peak_mib(pid: int) -> float:
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0)


def _cpu_seconds(pid: int) -> float:
    try:
        user, system = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return 0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def measure(
    size: int, workers: list[int], image_size: int, workdir: pathlib.Path
) -> dict[tuple[str, int], Run]:
    """Runs both jobs on a tree of this size with each number of workers."""
    started = time.monotonic()
    write_tree(workdir / "tree", size)
    print(f"{size} reports and images written in {time.monotonic() - started:.0f} s", flush=True)
    runs, fingerprints = {}, {}
    reports = workdir / "label_reports-0"
    told = {"label_reports": [], "decode_images": [f"--reports={reports}", f"--image_size={image_size}"]}
    for job in JOBS:
        for position, num_workers in enumerate(workers):
            output = workdir / f"{job}-{position}"
            run = runs[job, num_workers] = run_job(job, workdir / "tree", output, num_workers, told[job])
            print(f"{job:13} {size:7} rows, {num_workers} worker(s): {run.shown}", flush=True)
            fingerprint = read_manifest(output).fingerprint
            if fingerprints.setdefault(job, fingerprint) != fingerprint:
                raise SystemExit(f"{job}: other records with {num_workers} workers than with {workers[0]}")
            if output != reports:
                shutil.rmtree(output)
    return runs


def main() -> None:
    """Measures and compares."""
    parser = new_parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--workdir", default=None, help="where to write; removed at the end")
    arguments = parser.parse_args()
    sizes, workers, failed = sorted(arguments.sizes), arguments.workers, False
    runs = {}
    if arguments.workdir:
        pathlib.Path(arguments.workdir).mkdir(parents=True, exist_ok=True)
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=arguments.workdir) as workdir:
            runs[size] = measure(size, workers, arguments.image_size, pathlib.Path(workdir))
    largest = runs[sizes[-1]]
    for job in JOBS:
        for num_workers in workers:
            growth = largest[job, num_workers].peak / runs[sizes[0]][job, num_workers].peak
            print(f"{job}, {num_workers} worker(s): peak {growth:.2f} times that of {sizes[0]} rows")
            failed |= growth > ALLOWED_GROWTH or largest[job, num_workers].peak > 1024 * ALLOWED_GIB
        fewest, most = min(workers), max(workers)
        speed_up = largest[job, most].rate / largest[job, fewest].rate
        print(f"{job}: {most} workers {speed_up:.2f} times as fast as {fewest}")
        failed |= len(workers) > 1 and speed_up < LEAST_SPEED_UP
    sys.exit(failed)


if __name__ == "__main__":
    main()
