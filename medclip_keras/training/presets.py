"""Presets of pretrained towers: early refusals, and their architectures kept in the workdir.

`train` saves the architecture of each pretrained tower as `architecture/image.json` or `text.json`, and the
weights before the first step as `checkpoints/start`.
"""

import contextlib
import pathlib
import shlex
from collections.abc import Iterator

import keras_hub
from etils import epath

from medclip_keras.config import ModelConfig, RunConfig, override
from medclip_keras.errors import near_names, refusal, require
from medclip_keras.models.dual_encoder import DualEncoder
from medclip_keras.models.image_encoder import check_backbone, statistics_of
from medclip_keras.models.packages import PACKAGES, find_package
from medclip_keras.models.state_dicts import find_weights, read_settings
from medclip_keras.training.run_json import RUN_FILE, read_run_json

ARCHITECTURE = "architecture"  # folder in a workdir
_TOWERS = {"image": keras_hub.models.Backbone, "text": keras_hub.models.BertBackbone}


def check_presets(config: ModelConfig) -> None:
    """Refuse an unknown backbone, and a preset that keras-hub cannot load.

    Raises:
        ValueError: such a name; the sentence says how to convert a folder of PyTorch weights.
    """
    check_backbone(config.image)
    for name, backbone in _TOWERS.items():
        preset, field = getattr(config, name).preset, f"model.{name}.preset"
        packaged = [known for known, package in PACKAGES.items() if package.tower == name]
        if preset in packaged:
            find_package(preset)
            continue
        require(
            "$" not in preset,
            field,
            "a path whose environment variables are set",
            preset,
            "Set MEDCLIP_WEIGHTS to the folder of downloaded weights that the run's docstring in "
            f"medclip_keras/runs/papers.py describes; or --set {field}=FOLDER.",
        )
        is_path = bool(preset) and "://" not in preset and preset not in backbone.presets
        if is_path and not preset.endswith(".json"):
            advice = near_names(preset, [*packaged, *backbone.presets])
            needed = (
                f"a local folder of weights, {packaged[0]} of the extra `pretrained`, a kaggle:// or hf:// "
                "address, or a preset of keras-hub"
            )
            advice = advice if advice.startswith("Near") else ""
            require(pathlib.Path(preset).is_dir(), field, needed, preset, advice)
            _check_folder(pathlib.Path(preset), field)


def _check_folder(folder: pathlib.Path, field: str) -> None:
    """Refuse a folder that keras-hub cannot load, with the command that converts it."""
    settings = read_settings(folder / "config.json")
    # keras-hub builds these with PyTorch's padding and epsilon, and says nothing.
    is_misread = str(settings.get("architecture", "")).startswith("tf_efficientnet")
    has_weights = settings and any(folder.glob("model.safetensors*"))
    if "registered_name" in settings or (has_weights and not is_misread):
        return
    file, made = find_weights(folder), f"{folder}-keras"
    convert = shlex.join(["--weights", str(folder), "--workdir", made])
    torch = "" if file.suffix == ".safetensors" else " It needs torch: pip install 'medclip_keras[torch]'."
    advice = f"Convert {file.name}: python -m medclip_keras.convert {convert}.{torch} "
    needed = "a folder that keras-hub loads: its own, or Hugging Face's with model.safetensors"
    needed += ", TensorFlow's EfficientNets aside" if is_misread else ""
    raise refusal(field, needed, str(folder), advice + f"Then --set {shlex.quote(f'{field}={made}')}.")


@contextlib.contextmanager
def downloading(config: ModelConfig) -> Iterator[None]:
    """Refuse presets whose download fails inside the block; `requests` raises OSErrors."""
    try:
        yield
    except OSError as error:
        advice = f"The download failed: {type(error).__name__}. Name a local folder of the weights."
        presets = [config.image.preset, config.text.preset]
        raise refusal("model.image.preset, model.text.preset", "at hand", presets, advice) from error


def write_architectures(model: DualEncoder, workdir: epath.PathLike) -> None:
    """Write the architectures of the towers that start from a preset."""
    folder = epath.Path(workdir) / ARCHITECTURE
    for name in _TOWERS:
        architecture = getattr(model, f"{name}_encoder").architecture
        if architecture:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.json").write_text(architecture)


def with_architectures(config: RunConfig, workdir: epath.PathLike) -> RunConfig:
    """Replace presets by the architecture files of the run in `workdir`, if any."""
    if not (epath.Path(workdir) / RUN_FILE).exists():
        return config
    earlier = read_run_json(workdir).model
    files: list[str] = []
    for name in _TOWERS:
        file = epath.Path(workdir) / ARCHITECTURE / f"{name}.json"
        if file.exists() and getattr(earlier, name).preset == getattr(config.model, name).preset:
            files.append(f"model.{name}.preset={file}")
            if name == "image":  # the file does not tell
                files.append(f"model.image.statistics={statistics_of(config.model.image)}")
    return override(config, files)
