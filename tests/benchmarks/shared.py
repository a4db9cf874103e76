"""What benchmarks share: the command line, a process of its own, and the baseline of pixels."""

import argparse
import json
import os
import subprocess
import sys

import numpy as np


def new_parser(text: str) -> argparse.ArgumentParser:
    """A parser whose help is a script's docstring, line by line."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


def run_apart(script: str, *arguments: object, **environment: str) -> dict:
    """The JSON in the last line that a script prints, run in a new process."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def require_finished(outcome) -> None:
    """A signal ends a training in order, with a checkpoint; half a training has no scores to keep."""
    if not outcome.finished:
        raise KeyboardInterrupt


def pixels_and_states(config, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images of a split as a model sees them, a row each, and their label states."""
    import tensorflow as tf

    from medclip_keras.preprocess.images import for_evaluation
    from medclip_keras.records.batches import evaluation_images

    batches = list(evaluation_images(config, split).as_numpy_iterator())
    images, states = (np.concatenate([b[k] for b in batches]) for k in ("images", "label_states"))
    pixels = for_evaluation(tf.constant(images), config.model.image.image_size).numpy()
    return pixels.reshape(len(pixels), -1), states


def fit_components(pixels: np.ndarray, labels: np.ndarray, seed: int = 0):
    """Logistic regression on 60 principal components of the pixels."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(PCA(60, random_state=seed), LogisticRegression(max_iter=5000)).fit(pixels, labels)
