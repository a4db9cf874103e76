"""Zero-shot classification of the validation split while a model is trained."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from medclip_keras.evaluation.evaluator import evaluate
from medclip_keras.evaluation.results import TRAINED
from medclip_keras.preprocess.text import Tokenizer
from medclip_keras.records.batches import evaluation_images
from medclip_keras.records.data_sets import data_sets
from medclip_keras.serving.embedders import model_embedder
from medclip_keras.training.model import MedCLIP
from medclip_keras.training.validation import ZeroShot

_SPLIT = "valid"
_FEWEST = 2  # resamples of the bootstrap, whose interval is not used


class _BrokenOffError(Exception):
    """A signal came while the images were read."""


class _Stoppable:
    """Batches, readable several times, that raise an error once `is_stopped()` is true."""

    def __init__(self, batches: Any, is_stopped: Callable[[], bool]):
        self._batches, self._is_stopped = batches, is_stopped

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches:
            if self._is_stopped():
                raise _BrokenOffError
            yield batch


def zero_shot_on_validation(model: MedCLIP, tokenizer: Tokenizer, concept_names: Sequence[str]) -> ZeroShot:
    """Return a function that classifies the run's validation images with the model's present weights.

    Its figures are those of `evaluate --split valid`: the mean over the prompts' ensemble, "accuracy" and
    "auroc", with the data set's name before them if there are several.
    """
    config = model.run
    embedder = functools.cache(lambda: model_embedder(model, tokenizer))
    settings = dataclasses.replace(config.evaluation, tasks=("zero_shot",), bootstrap=_FEWEST, prompt_draws=0)

    def measure(is_stopped: Callable[[], bool]) -> dict[str, float] | None:
        images = {
            name: _Stoppable(evaluation_images(dataclasses.replace(config, data=data), _SPLIT), is_stopped)
            for name, data in data_sets(config.data, _SPLIT).items()
        }
        embedder().logit_scale = float(model.logit_scale())
        try:
            results = evaluate(embedder(), images, (), settings, concept_names, seed=config.seed)
        except _BrokenOffError:
            return None
        found: dict[str, float] = {}
        for name, result in results.items():
            if result.zero_shot:
                prefix = f"{name}/" if len(results) > 1 else ""
                figures = result.zero_shot.estimates["ensemble"][TRAINED].overall
                found |= {prefix + metric: float(value.value) for metric, value in figures.items()}
        return found

    return measure
