"""The word pieces of a run: from a file, from the text weights, or learned from the training sentences."""

from collections.abc import Iterator

import tensorflow as tf
from etils import epath

from medclip_keras.config import RunConfig
from medclip_keras.errors import refusal
from medclip_keras.preprocess.text import Tokenizer, learn_vocabulary, read_vocabulary


def make_tokenizer(config: RunConfig, sentences: tf.data.Dataset) -> Tokenizer:
    """The tokeniser that `model.text` asks for.

    Args:
        config: the run.
        sentences: batches with "text", string (B,); read only where the vocabulary is learned.

    Raises:
        ValueError: a vocabulary file that is missing or malformed.
    """
    text = config.model.text
    path = text.vocabulary or _vocabulary_of_preset(text.preset)
    if path:
        vocabulary = read_vocabulary(path)
    else:
        vocabulary = learn_vocabulary(_texts(sentences), text.vocabulary_size, text.lower_case)
    return Tokenizer(vocabulary, lower_case=text.lower_case, max_tokens=config.data.max_tokens)


def _vocabulary_of_preset(preset: str) -> str:
    """The vocabulary file in a local folder of weights, keras-hub's or Hugging Face's layout."""
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


def _texts(sentences: tf.data.Dataset) -> Iterator[str]:
    for batch in sentences:
        for text in batch["text"].numpy():
            yield text.decode()
