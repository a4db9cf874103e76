"""A single tower from PyTorch's state dict."""

import keras

from medclip_keras.models.account import Row, Source, assign
from medclip_keras.models.key_maps import Entry


def convert_tower(
    source: Source, *, image_size: int = 224, num_heads: int = 0
) -> tuple[keras.Model, list[Row]]:
    """Convert a single tower's state dict to keras-hub's backbone, or raise ValueError; with the account."""
    given = source.checkpoint(image_size=image_size, num_heads=num_heads)
    backbone = source.architecture.backbone(**source.architecture.sizes(given))
    entries, variables = source.architecture.entries(backbone), backbone.weights
    if source.kind == "hf_bert":
        pooler = backbone.pooled_dense
        if any(key.startswith("pooler.") for key in given.shapes):
            entries.append(Entry("pooler.dense.weight", pooler.kernel, "dense"))
            entries.append(Entry("pooler.dense.bias", pooler.bias))
        else:  # this project does not use it
            variables = [w for w in variables if not any(w is v for v in pooler.weights)]
    return backbone, assign(source, entries, variables)
