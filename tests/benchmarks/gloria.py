"""GLoRIA's local loss beside a plain loop over captions: seconds, peak memory, and what bounds both.

    python tests/benchmarks/gloria.py [--batch 48] [--words 97] [--regions 361] [--dim 768] [--rounds 3]

The loop is the released one (marshuang80/gloria, gloria/loss/gloria_loss.py), operation by operation in
TensorFlow. Each contestant runs in a process of its own, one after another and again from the start, as a
compiled graph of loss and gradients by regions and words. Every caption has all of its words. Seconds are the
wall's and the processor's (over all cores): on a busy machine only the latter compare. Exit status 1 where
losses or gradients differ by more than 1e-4 of the largest. Two idle cores: five minutes and 5 GiB.
"""

import json
import pathlib
import resource
import statistics
import sys
import tempfile
import time

import numpy as np
from shared import new_parser, run_apart

CONTESTANTS = ("loop", "ours")


def plain_loop(regions, words, mask):
    """The similarities of the released `local_loss`, a caption at a time; (num_images, num_captions)."""
    import tensorflow as tf

    num_images = regions.shape[0]
    similarities = []
    for i, num_words in enumerate(mask.sum(1).astype(int)):
        word = tf.repeat(words[i : i + 1, :num_words], num_images, axis=0)  # (num_images, num_words, D)
        attention = tf.nn.softmax(tf.matmul(regions, word, transpose_b=True))  # over the words
        attention = tf.nn.softmax(4.0 * tf.transpose(attention, (0, 2, 1)))  # over the regions
        context = tf.matmul(attention, regions)  # (num_images, num_words, D)
        norms = tf.norm(word, axis=2) * tf.norm(context, axis=2)
        cosine = tf.reduce_sum(word * context, axis=2) / tf.maximum(norms, 1e-8)
        similarities.append(tf.math.log(tf.reduce_sum(tf.exp(5.0 * cosine), axis=1, keepdims=True)))
    return tf.concat(similarities, axis=1)


def work(contestant: str, sizes: dict, rounds: int, output: str) -> dict:
    """Runs in a process of its own: seconds of each step after the first, and the process's peak memory."""
    import keras
    import tensorflow as tf

    from medclip_keras.objectives.gloria import local_similarity

    rng = np.random.default_rng(0)
    regions = rng.normal(size=(sizes["batch"], sizes["regions"], sizes["dim"])) / np.sqrt(sizes["dim"])
    words = rng.normal(size=(sizes["batch"], sizes["words"], sizes["dim"]))
    regions, words = (tf.constant(x, "float32") for x in (regions, words))
    mask = np.ones((sizes["batch"], sizes["words"]))

    @tf.function
    def step(regions, words):
        with tf.GradientTape() as tape:
            tape.watch([regions, words])
            if contestant == "loop":
                similarities = plain_loop(regions, words, mask)
            else:
                similarities = local_similarity(regions, words, mask)
            own = tf.range(sizes["batch"])
            losses = [
                tf.nn.sparse_softmax_cross_entropy_with_logits(own, 10.0 * x)
                for x in (similarities, tf.transpose(similarities))
            ]
            loss = tf.reduce_mean(losses[0]) + tf.reduce_mean(losses[1])
        return loss, *tape.gradient(loss, [regions, words])

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = [keras.ops.convert_to_numpy(x) for x in step(regions, words)]
    seconds, processor = [], []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        step(regions, words)[0].numpy()
        seconds.append(time.perf_counter() - wall)
        processor.append(time.process_time() - cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.savez(output, *found)
    return {"seconds": seconds, "processor": processor, "peak": peak / 2**20, "before": before / 2**20}


def matmul_rate(trials: int = 20) -> float:
    """Multiplications and additions a processor second of a large float32 matrix product, the best trial."""
    import tensorflow as tf

    x, y = tf.random.normal((17328, 768)), tf.random.normal((768, 1552))
    seconds = []
    for _ in range(trials):
        begin = time.process_time()
        tf.matmul(x, y).numpy()
        seconds.append(time.process_time() - begin)
    return 2 * 17328 * 768 * 1552 / min(seconds)


def count_operations(batch: int, words: int, regions: int, dim: int) -> dict[str, float]:
    """Multiplications and additions in the matrix products of one step, forward and backward."""
    pairs = 2 * batch**2
    dots = pairs * words * regions * dim  # every word with every region; a context costs as much
    form = pairs * words * regions**2  # a word's attention through the Gram matrix
    gram = 2 * batch * regions**2 * dim
    return {
        "loop": 2 * dots * 3,  # dots and contexts; a product's gradient is two products of its size
        "ours": 3 * dots + 3 * form + 3 * gram,
        "dots alone": 3 * dots,
    }


def run_worker(sizes: dict, rounds: int, contestant: str, output: pathlib.Path) -> dict:
    """A contestant in a process of its own."""
    options = [f"--{name}={value}" for name, value in {**sizes, "rounds": rounds}.items()]
    command = [*options, "--work", contestant, "--output", output]
    return run_apart(__file__, *command, TF_CPP_MIN_LOG_LEVEL="3")


def compare(folder: pathlib.Path) -> float:
    """How far loss and gradients are from those of the loop, relative to the largest of each."""
    loop, ours = (np.load(folder / f"{name}.npz").values() for name in CONTESTANTS)
    return max(np.abs(x - y).max() / np.abs(x).max() for x, y in zip(loop, ours, strict=True))


def print_table(measured: dict[str, list[dict]], operations: dict[str, float], rate: float) -> None:
    """One line a contestant, and what a processor could do at most."""

    def median(name, key):
        values = [run[key] for run in measured[name]]
        return statistics.median(x for v in values for x in (v if isinstance(v, list) else [v]))

    columns = ("wall s", "processor s", "peak GiB", "of it loss", "Gflop", "of matmul")
    print(" " * 18 + "".join(f"{column:>12}" for column in columns))
    for name in measured:
        processor, peak = median(name, "processor"), median(name, "peak")
        values = (median(name, "seconds"), processor, peak, peak - median(name, "before"))
        share = operations[name] / processor / rate
        print(f"{name:18}" + "".join(f"{x:12.2f}" for x in values), end="")
        print(f"{operations[name] / 1e9:12.0f}{share:12.0%}")
    loop, ours = (median(name, "processor") for name in CONTESTANTS)
    least = operations["dots alone"] / rate
    print(f"A plain matrix product runs at {rate / 1e9:.0f} Gflop a processor second (100 % of matmul).")
    print(f"The loop takes {loop / ours:.2f} times the processor seconds of ours. No exact way omits the")
    print(f"products of words with regions and their gradients: {least:.2f} s at that rate, so at most")
    print(f"{loop / least:.1f} times can be had on this machine.")


def main() -> None:
    """Measures all contestants in turn."""
    parser = new_parser(__doc__)
    for name, default in (("batch", 48), ("words", 97), ("regions", 361), ("dim", 768), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--passes", type=int, default=2, help="how often each contestant starts anew")
    parser.add_argument("--work", choices=CONTESTANTS, help="for this script itself")
    parser.add_argument("--output", help="for this script itself")
    arguments = parser.parse_args()
    sizes = {name: getattr(arguments, name) for name in ("batch", "words", "regions", "dim")}
    if arguments.work:
        print(json.dumps(work(arguments.work, sizes, arguments.rounds, arguments.output)))
        return
    print(", ".join(f"{name} {size}" for name, size in sizes.items()), flush=True)
    measured = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for _ in range(arguments.passes):
            for name in CONTESTANTS:
                measured[name].append(run_worker(sizes, arguments.rounds, name, folder / f"{name}.npz"))
        difference = compare(folder)
    print_table(measured, count_operations(**sizes), matmul_rate())
    print(f"Loss and gradients differ from the loop's by {difference:.1e} of the largest (allowed: 1e-4).")
    sys.exit(int(difference > 1e-4))


if __name__ == "__main__":
    main()
