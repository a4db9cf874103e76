"""From sentences to word pieces, in the graph; the tokeniser of training and serving.

A vocabulary folder holds `wordpieces.txt` (one piece a line, its line number is its id) and `tokenizer.json`
(lower-casing, length, SHA-256): Bio_ClinicalBERT's pieces are cased and BERT-base-uncased's are not, so the
two files belong together.
"""

import contextlib
import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
from etils import epath
from tensorflow_text.tools.wordpiece_vocab import bert_vocab_from_dataset

from medclip_keras.errors import refusal, require

PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
REQUIRED_PIECES = (PAD, UNKNOWN, START, END)
# Control and format characters, which BERT drops: tabs and line ends are spaces.
_DROPPED = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\x{fffd}\p{Cf}\p{Co}]"
MIN_PIECE_COUNT = 5  # rarer pieces are spelled out: they teach little, and may be somebody's name
WORDPIECES_FILE = "wordpieces.txt"
SETTINGS_FILE = "tokenizer.json"
# Of BERT, keras-hub and Hugging Face, in a folder of weights.
VOCABULARY_FILES = ("vocab.txt", "assets/tokenizer/vocabulary.txt", "tokenizer.json")


class Tokenizer(tf.Module):
    """BERT's WordPiece: `[CLS] pieces [SEP] [PAD] …`, always `max_tokens` long; longer texts are cut.

    Args:
        vocabulary: the pieces in the order of their ids; `##` begins a piece that continues a word.
        lower_case: lower the case and strip accents first, for uncased vocabularies.
        max_tokens: length of the result, the two special tokens included.

    Raises:
        ValueError: a special piece is missing, or a piece occurs twice or is empty.
    """

    def __init__(self, vocabulary: Sequence[str], *, lower_case: bool, max_tokens: int):
        super().__init__(name="tokenizer")
        check_vocabulary(vocabulary)
        require(max_tokens >= 3, "max_tokens", "at least 3 ([CLS], a word, [SEP])", max_tokens)
        self.vocabulary = tuple(vocabulary)
        self.lower_case = lower_case
        self.max_tokens = max_tokens
        self.pad_id, self.start_id, self.end_id = (self.vocabulary.index(p) for p in (PAD, START, END))
        self._pieces = tf_text.FastBertTokenizer(
            list(vocabulary),
            token_out_type=tf.int32,
            unknown_token=UNKNOWN,
            lower_case_nfd_strip_accents=False,  # it would fold too: "…" to "...", "½" to "1⁄2", "ß" to "ss"
        )

    def __call__(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Split texts (B,) string into word pieces.

        Returns:
            {"token_ids": (B, max_tokens) int32, "padding_mask": (B, max_tokens) int32, 0 for [PAD], else 1}.
        """
        texts = normalise(texts, lower_case=self.lower_case)
        pieces = self._pieces.tokenize(texts)[:, : self.max_tokens - 2]  # (B, ragged)
        starts = tf.fill([pieces.nrows(), 1], self.start_id)
        ends = tf.fill([pieces.nrows(), 1], self.end_id)
        sequences = tf.concat([starts, pieces, ends], axis=1)  # (B, ragged)
        token_ids = sequences.to_tensor(self.pad_id, shape=(None, self.max_tokens))  # (B, max_tokens)
        mask = tf.sequence_mask(sequences.row_lengths(), self.max_tokens, dtype=tf.int32)
        shape = (texts.shape[0], self.max_tokens)
        return {
            "token_ids": tf.ensure_shape(token_ids, shape),
            "padding_mask": tf.ensure_shape(mask, shape),
        }

    def word_ids(self, token_ids: tf.Tensor) -> tf.Tensor:
        """Index of the word that each piece (B, T) int32 belongs to; punctuation marks count as words.

        Returns:
            (B, T) int32, from 0; -1 for [CLS], [SEP] and [PAD].
        """
        no_word = np.isin(range(len(self.vocabulary)), (self.pad_id, self.start_id, self.end_id))
        begins = [not piece.startswith("##") for piece in self.vocabulary] & ~no_word
        numbers = tf.cumsum(tf.cast(tf.gather(begins, token_ids), tf.int32), axis=1) - 1
        return tf.where(tf.gather(no_word, token_ids), -1, numbers)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `wordpieces.txt`."""
        return hashlib.sha256(_to_lines(self.vocabulary).encode()).hexdigest()

    def save(self, directory: epath.PathLike) -> None:
        """Write the vocabulary folder that `load_tokenizer` reads."""
        directory = epath.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        write_vocabulary(self.vocabulary, directory / WORDPIECES_FILE)
        settings = {"lower_case": self.lower_case, "max_tokens": self.max_tokens, "sha256": self.fingerprint}
        (directory / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")


def normalise(texts: tf.Tensor, *, lower_case: bool) -> tf.Tensor:
    """Drop control characters from texts (B,) string; with `lower_case` strip accents and lower the case.

    Follows: BertNormalizer of the `tokenizers` library, which uncased BERTs were trained with.

    >>> normalise(tf.constant(["ÉPANCHEMENT… 2 cm²"]), lower_case=True).numpy()[0].decode()
    'epanchement… 2 cm²'
    """
    texts = tf.strings.regex_replace(texts, _DROPPED, "")
    if not lower_case:
        return texts
    texts = tf.strings.regex_replace(tf_text.normalize_utf8(texts, "NFD"), r"\p{Mn}", "")
    return tf.strings.lower(texts, encoding="utf-8")


def load_tokenizer(directory: epath.PathLike) -> Tokenizer:
    """Read the vocabulary folder of `Tokenizer.save`.

    Raises:
        ValueError: a file is missing, or the pieces differ from the saved ones.
    """
    directory = epath.Path(directory)
    settings_path = directory / SETTINGS_FILE
    require(settings_path.exists(), "directory", f"a folder with {SETTINGS_FILE}", str(directory))
    settings = json.loads(settings_path.read_text())
    tokenizer = Tokenizer(
        read_vocabulary(directory / WORDPIECES_FILE),
        lower_case=settings["lower_case"],
        max_tokens=settings["max_tokens"],
    )
    path, saved = str(directory / WORDPIECES_FILE), settings["sha256"]
    needed = f"the file whose SHA-256 {SETTINGS_FILE} names ({saved})"
    advice = "The vocabulary was changed after it was saved; the weights need the saved one."
    require(tokenizer.fingerprint == saved, path, needed, tokenizer.fingerprint, advice)
    return tokenizer


def find_vocabulary(folder: epath.PathLike) -> epath.Path | None:
    """Find the word piece file in a folder of weights."""
    files = (epath.Path(folder) / name for name in VOCABULARY_FILES)
    return next((file for file in files if file.exists()), None)


def read_vocabulary(path: epath.PathLike) -> list[str]:
    """Read a word piece file, such as BERT's `vocab.txt`, or the pieces of Hugging Face's `tokenizer.json`.

    Raises:
        ValueError: the path does not exist, or a JSON file without word pieces.
    """
    path = epath.Path(path)
    require(path.exists(), "vocabulary", "an existing word piece file, one piece a line", str(path))
    text = path.read_text(encoding="utf-8").removesuffix("\n")
    if path.suffix == ".json":
        return _pieces_of_json(text, str(path))
    return [line.removesuffix("\r") for line in text.split("\n")]  # splitlines would split at U+2028 too


def _pieces_of_json(text: str, path: str) -> list[str]:
    """Pieces in the order of their ids, of a tokenizer.json."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        ids = json.loads(text)["model"]["vocab"]
        if sorted(ids.values()) == list(range(len(ids))):
            return sorted(ids, key=ids.__getitem__)
    raise refusal("vocabulary", "a tokenizer.json whose model.vocab numbers word pieces from 0", path)


def check_vocabulary(vocabulary: Sequence[str]) -> None:
    """Refuse pieces on which the tokeniser's operations crash or err.

    Raises:
        ValueError: a special piece is missing, or a piece occurs twice or is empty.
    """
    missing = [piece for piece in REQUIRED_PIECES if piece not in vocabulary]
    needed = f"a list that holds {', '.join(REQUIRED_PIECES)}"
    received = f"{len(vocabulary)} pieces without {', '.join(missing)}"
    advice = "Give the vocabulary file that belongs to the text weights."
    require(not missing, "vocabulary", needed, received, advice)
    first_line: dict[str, int] = {}
    for line, piece in enumerate(vocabulary, start=1):
        require(bool(piece), "vocabulary", "free of empty lines", f"nothing in line {line}")
        earlier = first_line.setdefault(piece, line)
        received = f"{piece!r} in lines {earlier} and {line}"
        advice = "Replace the second one by an unused piece, so that the ids after it stay."
        require(earlier == line, "vocabulary", "free of duplicates", received, advice)


def learn_vocabulary(texts: Iterable[str], size: int, lower_case: bool) -> list[str]:
    """Learn word pieces from texts, special ones first; the order of the texts does not matter.

    The result has fewer pieces than `size` if the texts hold fewer, a few more if many are equally frequent.

    Follows: tensorflow-text's top-down WordPiece learner.

    Raises:
        ValueError: no text.
    """
    remaining = iter(texts)
    first = next(remaining, None)
    require(first is not None, "texts", "at least one text", "none")
    dataset = tf.data.Dataset.from_generator(
        lambda: itertools.chain([first], remaining), output_signature=tf.TensorSpec((), tf.string)
    )
    return bert_vocab_from_dataset.bert_vocab_from_dataset(
        dataset.batch(1024).map(functools.partial(normalise, lower_case=lower_case)),
        vocab_size=size,
        reserved_tokens=[*REQUIRED_PIECES, MASK],
        learn_params={"lower_thresh": MIN_PIECE_COUNT},
    )


def write_vocabulary(vocabulary: Sequence[str], path: epath.PathLike) -> None:
    """Write a word piece file that `read_vocabulary` reads."""
    epath.Path(path).write_text(_to_lines(vocabulary), encoding="utf-8")


def _to_lines(vocabulary: Sequence[str]) -> str:
    return "".join(f"{piece}\n" for piece in vocabulary)
