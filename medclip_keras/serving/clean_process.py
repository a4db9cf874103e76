"""Asks a SavedModel in a process that has TensorFlow, and not this project.

Run as a script, `python -I clean_process.py SAVED_MODEL REQUESTS ANSWERS [--text_operations]`; it imports
nothing of ours and refuses to, and tensorflow-text only when told. REQUESTS is JSON,
endpoint → argument → {"dtype", "values"} or {"base64": […]}; ANSWERS is an npz file of arrays named
"endpoint/output".
"""

import base64
import json
import sys

FORBIDDEN = ("medclip_keras", "beam_jobs", "keras_hub")


class Refuse:
    """An import finder that finds none of some packages."""

    def __init__(self, packages):
        self._packages = packages

    def find_spec(self, name, path=None, target=None):
        """Raises for a forbidden package; None leaves every other one to the usual finders."""
        if name.partition(".")[0] in self._packages:
            raise ImportError(f"{name} must not be needed to serve the model")


def main(saved_model: str, requests_path: str, answers_path: str, text_operations: str = "") -> None:
    """Sends every request to its endpoint and writes the answers."""
    forbidden = FORBIDDEN if text_operations else (*FORBIDDEN, "tensorflow_text")
    sys.meta_path.insert(0, Refuse(forbidden))
    import numpy as np
    import tensorflow as tf

    if text_operations:
        import tensorflow_text  # noqa: F401 (registers the operations)

    def tensor(value):
        if "base64" in value:
            return tf.constant([base64.b64decode(item) for item in value["base64"]])
        return tf.constant(value["values"], value["dtype"])

    # The caller may hold the accelerator's memory, and its arithmetic is another one.
    tf.config.set_visible_devices([], "GPU")
    with open(requests_path, encoding="utf-8") as file:
        requests = json.load(file)
    loaded = tf.saved_model.load(saved_model)
    answers = {}
    for endpoint, arguments in requests.items():
        inputs = {name: tensor(value) for name, value in arguments.items()}
        for output, value in loaded.signatures[endpoint](**inputs).items():
            answers[f"{endpoint}/{output}"] = value.numpy()
    np.savez(answers_path, **answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
