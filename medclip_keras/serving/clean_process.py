"""Call the endpoints of SavedModels in a process with TensorFlow and without this project.

Run as a script, `python -I clean_process.py REQUESTS ANSWERS [MODEL …] [--text_operations MODEL …]`. It
refuses to import this project, packages that a server does not have, and tensorflow-text, which only the
models after --text_operations find. REQUESTS and ANSWERS are npz files of arrays "number/endpoint/argument"
and "number/endpoint/output", by the number of the model, from 0. A request named "number/timed:endpoint/…" is
sent several times after a first one; its answer "number/timed:endpoint/milliseconds" is their median.
"""

import collections
import statistics
import sys
import time

FORBIDDEN = (
    "medclip_keras", "beam_jobs", "keras_hub",
    "IPython", "jax", "matplotlib", "pandas", "scipy", "sklearn",  # Keras takes them if they are there
)  # fmt: skip
TEXT_OPERATIONS = "--text_operations"
TIMED = "timed:"
TIMED_CALLS = 9


class Refuse:
    """Import finder that refuses some packages."""

    def __init__(self, packages):
        self._packages = packages

    def find_spec(self, name, path=None, target=None):
        """Raise for a refused package; return None, for the next finder, for any other."""
        if name.partition(".")[0] in self._packages:
            raise ImportError(f"{name} must not be needed to serve the model")


def milliseconds(signature, arguments) -> float:
    """Median of a signature's time on a request, after a first call, which is slower."""
    seconds = []
    for _ in range(1 + TIMED_CALLS):
        started = time.perf_counter()
        for value in signature(**arguments).values():
            value.numpy()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds[1:])


def answers_to(saved_model: str, requests: dict) -> dict:
    """Answers of a SavedModel to requests, "endpoint/output" → array."""
    import tensorflow as tf

    loaded, answers = tf.saved_model.load(saved_model), {}
    for endpoint, arguments in requests.items():
        tensors = {argument: tf.constant(value) for argument, value in arguments.items()}
        if endpoint.startswith(TIMED):
            signature = loaded.signatures[endpoint.removeprefix(TIMED)]
            answers[f"{endpoint}/milliseconds"] = milliseconds(signature, tensors)
            continue
        for output, value in loaded.signatures[endpoint](**tensors).items():
            array = value.numpy()
            answers[f"{endpoint}/{output}"] = array.astype("S") if array.dtype == object else array
    return answers


def main(requests_path: str, answers_path: str, *arguments: str) -> None:
    """Send every request to its endpoint and write the answers."""
    forbidden = {*FORBIDDEN, "tensorflow_text"}
    sys.meta_path.insert(0, Refuse(forbidden))
    import numpy as np
    import tensorflow as tf

    # The caller may hold the accelerator's memory, and an accelerator rounds differently.
    tf.config.set_visible_devices([], "GPU")
    requests: dict = collections.defaultdict(lambda: collections.defaultdict(dict))
    with np.load(
        requests_path, allow_pickle=True
    ) as file:  # pickled: strings of bytes, which the caller wrote
        for name, value in file.items():
            number, endpoint, argument = name.split("/")
            requests[int(number)][endpoint][argument] = value
    answers: dict = {}
    number = 0
    for argument in arguments:
        if argument == TEXT_OPERATIONS:
            forbidden.remove("tensorflow_text")
            import tensorflow_text  # noqa: F401 (registers the operations)

            continue
        answers |= {f"{number}/{name}": a for name, a in answers_to(argument, requests[number]).items()}
        number += 1
    np.savez(answers_path, **answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
