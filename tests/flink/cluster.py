"""A Flink cluster on this machine: a job manager, two task managers of a slot, Beam's job server, workers.

It needs `java` (11 or 17) and, once, `mvn`, which fetches 150 MB of jars into `.flink/`. Everything listens
on the loopback address alone, but for the job server, which has no option for that.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_HERE = pathlib.Path(__file__).parent
_JARS = _HERE.parents[1] / ".flink"
TASK_MANAGERS = ("task_manager_1", "task_manager_2")
_SECONDS_TO_START = 300
_SECONDS_TO_STOP = 10
# Flink's own defaults for Java 17: what its serializers look into.
_OPEN_PACKAGES = (
    "java.lang", "java.lang.reflect", "java.net", "java.io", "java.nio", "sun.nio.ch", "java.text",
    "java.time", "java.util", "java.util.concurrent", "java.util.concurrent.atomic",
    "java.util.concurrent.locks",
)  # fmt: skip
_CONFIGURATION = """
jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: {rpc_port}
jobmanager.bind-host: 127.0.0.1
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: {rest_port}
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.numberOfTaskSlots: 1
taskmanager.cpu.cores: 1
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 64m
taskmanager.memory.task.heap.size: 256m
taskmanager.memory.task.off-heap.size: 64m
taskmanager.memory.network.min: 64m
taskmanager.memory.network.max: 64m
taskmanager.memory.managed.size: 128m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 64m
taskmanager.memory.jvm-overhead.max: 64m
io.tmp.dirs: {directory}
# Beam is part of the cluster here. Out of a job's own classes, it would start new Python workers every stage.
classloader.resolve-order: parent-first
"""


def fetch() -> pathlib.Path:
    """The folder with the jars that pom.xml names; Maven fetches them where they are not there."""
    pom = _HERE / "pom.xml"
    wanted = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    folder, unfinished = _JARS / wanted, _JARS / f"{wanted}.incomplete"
    if folder.exists():
        return folder
    shutil.rmtree(unfinished, ignore_errors=True)
    command = ["mvn", "--batch-mode", "--quiet", f"--file={pom}", "dependency:copy-dependencies"]
    subprocess.run([*command, "-DincludeScope=runtime", f"-DoutputDirectory={unfinished}"], check=True)
    unfinished.rename(folder)
    return folder


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        rest: address of the job manager's REST interface.
        job_endpoint: of Beam's job server.
        worker_pool: address of the pool.
    """

    rest: str
    job_endpoint: str
    worker_pool: str

    @property
    def beam_options(self) -> tuple[str, ...]:
        """What a job is told to run here."""
        return (
            "--runner=FlinkRunner",
            f"--job_endpoint={self.job_endpoint}",
            "--environment_type=EXTERNAL",
            f"--environment_config={self.worker_pool}",
            f"--parallelism={len(TASK_MANAGERS)}",
            "--environment_cache_millis=60000",
        )

    def get(self, path: str) -> Any:
        """What Flink's REST interface says."""
        with urllib.request.urlopen(f"{self.rest}/{path}", timeout=10) as answer:
            return json.load(answer)

    def records_read(self, job_id: str, step: str) -> Mapping[str, int]:
        """Records that each task manager read in the subtasks of a step."""
        read = dict.fromkeys(TASK_MANAGERS, 0)
        vertices = [v for v in self.get(f"jobs/{job_id}")["vertices"] if step in v["name"]]
        for vertex in vertices:
            for subtask in self.get(f"jobs/{job_id}/vertices/{vertex['id']}")["subtasks"]:
                read[subtask["taskmanager-id"]] += subtask["metrics"]["read-records"]
        return read


@contextlib.contextmanager
def running_cluster(directory: pathlib.Path) -> Iterator[Cluster]:
    """Starts everything, and stops it in any case.

    Args:
        directory: an empty folder for logs and everything temporary.
    """
    jars = fetch()
    rpc_port, rest_port, pool_port = free_ports(3)
    settings = _CONFIGURATION.format(rpc_port=rpc_port, rest_port=rest_port, directory=directory)
    (directory / "flink-conf.yaml").write_text(settings)
    rest, worker_pool = f"http://127.0.0.1:{rest_port}", f"127.0.0.1:{pool_port}"
    run = functools.partial(java, jars, directory)
    with Processes(directory) as processes:
        configured, runtime = f"--configDir={directory}", "org.apache.flink.runtime"
        manager = run(f"{runtime}.entrypoint.StandaloneSessionClusterEntrypoint", "256m")
        processes.start("job_manager", [*manager, configured])
        worker = run(f"{runtime}.taskexecutor.TaskManagerRunner", "384m")
        for name in TASK_MANAGERS:
            processes.start(name, [*worker, configured, f"-Dtaskmanager.resource-id={name}"])
        processes.start("worker_pool", [sys.executable, str(_HERE / "worker_pool.py"), str(pool_port)])
        server = run("org.apache.beam.runners.flink.FlinkJobServerDriver", "512m")
        server += [f"--flink-master={rest}", f"--artifacts-dir={directory / 'artifacts'}"]
        processes.start("job_server", [*server, "--job-port=0", "--artifact-port=0", "--expansion-port=0"])
        endpoint = processes.wait_for(lambda: _endpoint(processes.log("job_server")), "job server's port")
        cluster = Cluster(rest, endpoint, worker_pool)
        processes.wait_for(lambda: _registered(cluster) == set(TASK_MANAGERS), "two task managers")
        processes.wait_for(lambda: _listens(pool_port), "worker pool")
        yield cluster


class Processes:
    """Processes that end with the `with` block, however that ends, and with them all that they started."""

    def __init__(self, directory: pathlib.Path):
        self._directory, self._running = directory, {}

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_) -> None:
        for process in self._running.values():
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + _SECONDS_TO_STOP
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0, deadline - time.monotonic()))
        for process in self._running.values():
            _signal_group(process, signal.SIGKILL)
            process.wait()

    def start(self, name: str, command: Sequence[str]) -> None:
        """Starts a process at the head of a group of its own; what it prints goes to `NAME.log`."""
        path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
        with open(self._directory / f"{name}.log", "wb") as log:
            self._running[name] = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, "PATH": path}
            )

    def log(self, name: str) -> str:
        """What a process printed."""
        return (self._directory / f"{name}.log").read_text(errors="replace")

    def wait_for(self, ready: Callable[[], Any], what: str) -> Any:
        """Waits until `ready` returns something true, and returns it.

        Raises:
            RuntimeError: a process has ended, or nothing came in time.
        """
        deadline = time.monotonic() + _SECONDS_TO_START
        while time.monotonic() < deadline:
            ended = [name for name, process in self._running.items() if process.poll() is not None]
            if ended:
                raise RuntimeError(f"{ended[0]} has ended: {self.log(ended[0])[-2000:]}")
            if value := ready():
                return value
            time.sleep(0.2)
        raise RuntimeError(f"No {what} after {_SECONDS_TO_START} s. Logs: {self._directory}")


def java(jars: pathlib.Path, directory: pathlib.Path, main_class: str, heap: str) -> list[str]:
    """The command that runs a class of a folder of jars."""
    opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPEN_PACKAGES]
    return ["java", f"-Xmx{heap}", f"-Djava.io.tmpdir={directory}", *opened, "-cp", f"{jars}/*", main_class]


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _signal_group(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _endpoint(log: str) -> str | None:
    found = re.search(r"JobService started on \S+?:(\d+)", log)
    return f"127.0.0.1:{found[1]}" if found else None


def _registered(cluster: Cluster) -> set[str]:
    try:
        return {one["id"] for one in cluster.get("taskmanagers")["taskmanagers"]}
    except OSError:  # it is not up yet
        return set()


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
