"""Make a run's tokenizer from a vocabulary file, pretrained text weights, or the training sentences."""

import tensorflow as tf
from etils import epath

from medclip_keras.config import RunConfig
from medclip_keras.errors import refusal
from medclip_keras.preprocess.text import Tokenizer, learn_vocabulary, read_vocabulary


def make_tokenizer(config: RunConfig, sentences: tf.data.Dataset) -> Tokenizer:
    """Make the tokenizer that `model.text` configures.

    Args:
        config: the run.
        sentences: batches with "text", string (B,); read only to learn a vocabulary.

    Raises:
        ValueError: a missing or malformed vocabulary file.
    """
    text = config.model.text
    path = text.vocabulary or _vocabulary_of_preset(text.preset)
    if path:
        vocabulary = read_vocabulary(path)
    else:
        texts = (sentence.decode() for batch in sentences for sentence in batch["text"].numpy())
        vocabulary = learn_vocabulary(texts, text.vocabulary_size, text.lower_case)
    return Tokenizer(vocabulary, lower_case=text.lower_case, max_tokens=config.data.max_tokens)


def _vocabulary_of_preset(preset: str) -> str:
    """Find the vocabulary file in a local folder of keras-hub or Hugging Face weights."""
    if not preset:
        return ""
    folder = epath.Path(preset)
    for name in ("vocab.txt", "assets/tokenizer/vocabulary.txt"):
        if (folder / name).exists():
            return str(folder / name)
    raise refusal(
        "model.text.vocabulary",
        "named where the preset is no local folder with a vocabulary",
        preset,
        "Download the preset's vocab.txt and name it.",
    )
