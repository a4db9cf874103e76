"""Make a run's tokenizer from a vocabulary file, pretrained text weights, or the training sentences."""

import keras_hub
import tensorflow as tf
from etils import epath

from medclip_keras.config import RunConfig
from medclip_keras.errors import refusal
from medclip_keras.models.packages import PACKAGES, unpacked
from medclip_keras.preprocess.text import (
    VOCABULARY_FILES,
    Tokenizer,
    find_vocabulary,
    learn_vocabulary,
    read_vocabulary,
)
from medclip_keras.training.presets import downloading


def make_tokenizer(config: RunConfig, sentences: tf.data.Dataset) -> Tokenizer:
    """Make the tokenizer that `model.text` configures.

    Args:
        config: the run.
        sentences: batches with "text", string (B,); read only to learn a vocabulary.

    Raises:
        ValueError: a missing or malformed vocabulary file.
    """
    text = config.model.text
    if text.vocabulary:
        vocabulary = read_vocabulary(text.vocabulary)
    elif text.preset:
        with downloading(config.model):
            vocabulary = _vocabulary_of_preset(text.preset)
    else:
        texts = (sentence.decode() for batch in sentences for sentence in batch["text"].numpy())
        vocabulary = learn_vocabulary(texts, text.vocabulary_size, text.lower_case)
    return Tokenizer(vocabulary, lower_case=text.lower_case, max_tokens=config.data.max_tokens)


def _vocabulary_of_preset(preset: str) -> list[str]:
    """Read the vocabulary of a local folder of weights, or of a preset that keras-hub downloads."""
    if preset in PACKAGES:
        with unpacked(preset) as folder:
            return _vocabulary_of_preset(str(folder))
    if not epath.Path(preset).exists():
        return keras_hub.models.BertTokenizer.from_preset(preset).get_vocabulary()
    path = find_vocabulary(preset)
    if path is None:
        needed = f"named for a preset's folder without {' and '.join(VOCABULARY_FILES)}"
        advice = "Download the preset's vocab.txt: --set model.text.vocabulary=FILE."
        raise refusal("model.text.vocabulary", needed, preset, advice)
    return read_vocabulary(path)
