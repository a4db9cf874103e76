"""Communication between the replicas of a strategy; no operation on one device.

With `train.strategy=multi_worker` each machine starts the same command with a TF_CONFIG of its own:

    {"cluster": {"worker": ["host0:12345", "host1:12345"]}, "task": {"type": "worker", "index": 0}}

Worker 0, the chief, writes the workdir, validates the records and evaluates. The others need the same
records, and the workdir to resume from; they write nothing.
"""

import contextlib
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator

import tensorflow as tf
from etils import epath

from medclip_keras.config import TrainConfig
from medclip_keras.errors import WorkerLostError, require

_OF_CONNECTIONS = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


def make_strategy(config: TrainConfig) -> tf.distribute.Strategy:
    """Make the strategy that `train.strategy` names; "auto" is mirrored for two or more GPUs.

    Without a GPU, "mirrored" uses the logical CPU devices. "multi_worker" must be made before TensorFlow
    computes anything, and is made once in a process.

    Raises:
        ValueError: "mirrored" with fewer than two devices; "multi_worker" without TF_CONFIG of several
            workers; a batch size that the replicas cannot share.
    """
    if config.strategy == "multi_worker":
        strategy = _join_workers()
    else:
        gpus = tf.config.list_logical_devices("GPU")
        if config.strategy == "one_device" or (config.strategy == "auto" and len(gpus) < 2):
            return tf.distribute.get_strategy()
        devices = [d.name for d in gpus or tf.config.list_logical_devices("CPU")]
        require(len(devices) > 1, "train.strategy", "one_device or auto with fewer than two devices", devices)
        strategy = tf.distribute.MirroredStrategy(devices)
    number = strategy.num_replicas_in_sync
    shares = f"a multiple of the {number} replicas"
    require(config.batch_size % number == 0, "train.batch_size", shares, config.batch_size)
    return strategy


@functools.cache
def _join_workers() -> tf.distribute.Strategy:
    found = os.environ.get("TF_CONFIG", "")
    workers = json.loads(found or "{}").get("cluster", {}).get("worker", [])
    example = (
        '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, "task": {"type": "worker", "index": 0}}'
    )
    advice = f"Set it in every process, such as {example}."
    require(len(workers) > 1, "TF_CONFIG", "the addresses of two or more workers", found, advice)
    return tf.distribute.MultiWorkerMirroredStrategy()


def is_follower(config: TrainConfig) -> bool:
    """Whether this process is a worker that is not the chief."""
    if config.strategy != "multi_worker":
        return False
    return bool(json.loads(os.environ.get("TF_CONFIG") or "{}").get("task", {}).get("index", 0))


@contextlib.contextmanager
def own_workdir(config: TrainConfig, workdir: epath.Path) -> Iterator[epath.Path]:
    """Yield the folder that this process writes: the chief's workdir, or a follower's temporary copy.

    The chief writes only after every follower has made its copy.
    """
    with contextlib.ExitStack() as stack:
        if is_follower(config):
            copy = epath.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for name in ("run.json", "vocabulary", "architecture", "checkpoints"):
                _copy(workdir / name, copy / name)
            workdir = copy
        if config.strategy == "multi_worker":
            _wait_for_workers()
        yield workdir


def _copy(source: epath.Path, target: epath.Path) -> None:
    if source.is_dir():
        target.mkdir()
        for child in source.iterdir():
            _copy(child, target / child.name)
    elif source.exists():
        with source.open("rb") as read, target.open("wb") as write:
            shutil.copyfileobj(read, write)


def _wait_for_workers() -> None:
    def everyone() -> tf.Tensor:
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.ones(()))

    strategy = _join_workers()
    strategy.run(tf.function(everyone))


def has_several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether the replicas are in several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def any_worker(flag: bool, strategy: tf.distribute.Strategy) -> bool:
    """Whether the flag is set in any worker; every worker must ask at the same point."""
    return _num_flags(strategy)(tf.constant(float(flag))) > 0 if has_several_workers(strategy) else flag


@functools.cache
def _num_flags(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], float]:
    def all_reduce(flag: tf.Tensor) -> tf.Tensor:
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(flag))

    @tf.function
    def everywhere(flag: tf.Tensor) -> tf.Tensor:
        return strategy.run(all_reduce, args=(flag,))

    return lambda flag: float(strategy.experimental_local_results(everywhere(flag))[0])


def step_of_workers(
    train_step: Callable[[dict], dict], strategy: tf.distribute.Strategy
) -> Callable[[Iterator[dict]], dict]:
    """Return a train function with the logs of this worker's first replica; all replicas have equal logs.

    Departs: Keras's takes the mean over an axis of each log, which a scalar does not have.
    """

    @tf.function(autograph=False)
    def on_replicas(batch: dict) -> dict:
        return strategy.run(train_step, args=(batch,))

    def step(iterator: Iterator[dict]) -> dict:
        logs = on_replicas(next(iterator))
        return {name: strategy.experimental_local_results(value)[0] for name, value in logs.items()}

    return step


@contextlib.contextmanager
def lost_workers_named(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turn TensorFlow's connection errors inside the block into `WorkerLostError`.

    Raises:
        WorkerLostError: the communication with another worker failed.
    """
    try:
        yield
    except _OF_CONNECTIONS as error:
        if not has_several_workers(strategy):
            raise
        raise WorkerLostError from error


def shared_by_workers(batches: tf.data.Dataset, strategy: tf.distribute.Strategy) -> tf.data.Dataset:
    """Give each worker its replicas' shares of every batch; every worker makes the whole batch."""
    if not has_several_workers(strategy):
        return batches
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.with_options(options)


def num_replicas() -> int:
    """Number of replicas that share this step; 1 outside of a step (validation, export)."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def gather(x: tf.Tensor) -> tf.Tensor:
    """Concatenate every replica's `x` along the batch, (B, …) to (B * num_replicas, …); differentiable."""
    if num_replicas() == 1:
        return x
    # Collectives of workers read a tensor's device, which an argument of a graph lacks.
    return tf.distribute.get_replica_context().all_gather(tf.identity(x), axis=0)


def sum_over_replicas(gradient: tf.Tensor | tf.IndexedSlices) -> tf.Tensor:
    """Sum the gradients of all replicas; sparse ones become dense."""
    gradient = tf.convert_to_tensor(gradient)
    if num_replicas() == 1:
        return gradient
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(gradient))
