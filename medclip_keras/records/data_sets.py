"""Data sets of a run: its folders of image records, one by one."""

import dataclasses

from medclip_keras.config import DataConfig
from medclip_keras.records.manifest import read_manifest


def data_sets(data: DataConfig, split: str) -> dict[str, DataConfig]:
    """Map the source's name of each folder that has a split to the data restricted to that folder.

    Archives are evaluated one by one: a model can tell them apart by their source. A second folder of a
    source is "NAME 2".
    """
    found = {}
    for directory in data.images:
        manifest = read_manifest(directory)
        if not any(part["num_records"] for part in manifest.parts(split)):
            continue
        name, number = manifest.source, 2
        while name in found:
            name, number = f"{manifest.source} {number}", number + 1
        found[name] = dataclasses.replace(data, images=(str(directory),))
    return found
