"""One module a published data set: its layout on disk → rows.

Adding a data set is one module and one row of `SOURCES`.
"""

import difflib
import importlib
from types import ModuleType

SOURCES = {  # name → module, imported when asked for
    "phantom": "medclip_keras.sources.phantom",
    "openi": "medclip_keras.sources.openi",
    "nih_chestxray14": "medclip_keras.sources.nih_chestxray14",
    "kermany": "medclip_keras.sources.kermany",
    "mimic_cxr": "medclip_keras.sources.mimic_cxr",
    "chexpert": "medclip_keras.sources.chexpert",
    "rsna": "medclip_keras.sources.rsna",
    "covid": "medclip_keras.sources.covid",
    "mura": "medclip_keras.sources.mura",
    "convirt_8x200": "medclip_keras.sources.convirt_8x200",
    "csv": "medclip_keras.sources.csv",
}


def get_source(name: str) -> ModuleType:
    """The module that reads a data set.

    >>> get_source("phantom").__name__
    'medclip_keras.sources.phantom'

    Raises:
        ValueError: no such data set.
    """
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, 3) or list(SOURCES)
        raise ValueError(
            f"`source` must be one of {', '.join(SOURCES)}. Received: {name!r}. Near: {', '.join(near)}."
        )
    return importlib.import_module(SOURCES[name])
