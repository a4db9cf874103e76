"""MedCLIP in Keras 3 on TensorFlow: learning from chest X-rays and reports that were never paired.

Use a model:

    import medclip_keras

    model = medclip_keras.load("MODELS_DIR/1")
    print(model.classify("xray.png", ["Edema", "Pleural Effusion"]))

The public names are imported when they are first used.
"""

import importlib

from medclip_keras.command import start_quietly

__version__ = "0.9.0"

_HOMES = {
    "load": "medclip_keras.inference",
    "RunConfig": "medclip_keras.config",
    "override": "medclip_keras.config",
    "get_run": "medclip_keras.runs",
    "LabelState": "medclip_keras.knowledge.states",
    "load_table": "medclip_keras.knowledge.concepts",
    "split_sections": "medclip_keras.knowledge.sections",
    "ReportLabeller": "medclip_keras.knowledge.labeller",
    "highlight": "medclip_keras.knowledge.render",
    "get_source": "medclip_keras.sources",
    "Pipeline": "medclip_keras.pipeline",
    "semantic_matching": "medclip_keras.objectives.semantic_matching",
    "label_similarity": "medclip_keras.objectives.semantic_matching",
    "train": "medclip_keras.training.train",
    "load_model": "medclip_keras.training.restore",
    "evaluation_images": "medclip_keras.records.batches",
    "evaluation_sentences": "medclip_keras.records.batches",
    "evaluate_workdir": "medclip_keras.measure",
    "export_workdir": "medclip_keras.release",
}
__all__ = sorted(_HOMES)
start_quietly()


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return [*globals(), *_HOMES]
