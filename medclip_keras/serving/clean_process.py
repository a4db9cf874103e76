"""Call a SavedModel's endpoints in a process with TensorFlow and without this project.

Run as a script, `python -I clean_process.py SAVED_MODEL REQUESTS ANSWERS [--text_operations]`. It refuses to
import this project, packages that a server does not have, and tensorflow-text unless --text_operations is
given. REQUESTS and ANSWERS are npz files of arrays named "endpoint/argument" and "endpoint/output". A request
named "timed:endpoint/argument" is sent several times after a first one; its answer
"timed:endpoint/milliseconds" is their median.
"""

import collections
import statistics
import sys
import time

FORBIDDEN = (
    "medclip_keras", "beam_jobs", "keras_hub",
    "IPython", "jax", "matplotlib", "pandas", "scipy", "sklearn",  # Keras takes them if they are there
)  # fmt: skip
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


def main(saved_model: str, requests_path: str, answers_path: str, text_operations: str = "") -> None:
    """Send every request to its endpoint and write the answers."""
    forbidden = FORBIDDEN if text_operations else (*FORBIDDEN, "tensorflow_text")
    sys.meta_path.insert(0, Refuse(forbidden))
    import numpy as np
    import tensorflow as tf

    if text_operations:
        import tensorflow_text  # noqa: F401 (registers the operations)

    # The caller may hold the accelerator's memory, and an accelerator rounds differently.
    tf.config.set_visible_devices([], "GPU")
    requests: dict[str, dict[str, tf.Tensor]] = collections.defaultdict(dict)
    with np.load(
        requests_path, allow_pickle=True
    ) as file:  # pickled: strings of bytes, which the caller wrote
        for name, value in file.items():
            endpoint, argument = name.split("/")
            requests[endpoint][argument] = tf.constant(value)
    loaded = tf.saved_model.load(saved_model)
    answers = {}
    for endpoint, arguments in requests.items():
        if endpoint.startswith(TIMED):
            signature = loaded.signatures[endpoint.removeprefix(TIMED)]
            answers[f"{endpoint}/milliseconds"] = milliseconds(signature, arguments)
            continue
        for output, value in loaded.signatures[endpoint](**arguments).items():
            array = value.numpy()
            answers[f"{endpoint}/{output}"] = array.astype("S") if array.dtype == object else array
    np.savez(answers_path, **answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
