"""Which data sets a run has: its folders of image records, each by itself."""

import dataclasses

from medclip_keras.config import DataConfig
from medclip_keras.records.manifest import read_manifest


def data_sets(data: DataConfig, split: str) -> dict[str, DataConfig]:
    """Each folder of image records that has a split: its source's name → the data with it alone.

    Models can tell archives apart by their source alone, so they are not evaluated together. A second folder
    of a source is called "NAME 2".

    Args:
        data: names the folders; everything else in it stays.
        split: "train", "valid" or "test".
    """
    found = {}
    for directory in data.images:
        manifest = read_manifest(directory)
        if not manifest.splits.get(split, {}).get("num_records"):
            continue
        name, number = manifest.source, 2
        while name in found:
            name, number = f"{manifest.source} {number}", number + 1
        found[name] = dataclasses.replace(data, images=(str(directory),))
    return found
