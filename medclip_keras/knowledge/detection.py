"""Detection of a report's language by its words; a language without cues of ours is recognised and refused.

A word speaks for each language that knows it: by `tables/language_words.toml`, by the cues, headings and
aliases of a shipped language file, and for English by the concept tables and the list of valid words. The
language that knows most words wins, if it knows enough of them. "Pneumothorax" alone is a word of many
languages and is read as English.

Clearly English reports, nearly all of an English archive, are recognised by three set operations.
"""

import functools
import re
import string
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rapidfuzz import process

from medclip_keras.knowledge import TABLES
from medclip_keras.knowledge.aliases import compound_parts, normalise, words_of
from medclip_keras.knowledge.language import Language, languages, load_language
from medclip_keras.knowledge.spelling import MIN_LETTERS, THRESHOLD, similarity, valid_words

UNKNOWN = ""  # no shipped language
_ENGLISH = "en"
_PREFERRED = (_ENGLISH, "es", "de")  # of languages that know equally many words
_LEAST_CLEAR = 0.7  # share of English words by which a report without foreign ones is clearly English
_LEAST_KNOWN = 0.5  # share of words that the language of a report knows
_WORDS_KEPT = 50_000

_MARKS = {ord(mark): " " for mark in string.punctuation + string.digits}
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060"))  # soft hyphens, zero-width spaces
_LETTERS = str.maketrans({"ß": "ss", "ø": "o", "ł": "l", "đ": "d", "ı": "i", "æ": "ae", "œ": "oe"})
_WORD = re.compile(r"[^\W\d_]{2,}")
_MASKS = frozenset({"xx", "xxx", "xxxx", "xxxxx"})


def detect(text: str) -> str:
    """The code of a report's language, UNKNOWN for one that does not ship.

    >>> detect("No pneumothorax."), detect("Kein Pneumothorax."), detect("Sin neumotórax.")
    ('en', 'de', 'es')
    >>> detect("Pas de pneumothorax.")
    ''
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_INVISIBLE)
    words = set(text.lower().translate(_MARKS).split())
    english, foreign = _clear_words()
    if words.isdisjoint(foreign) and len(words & english) >= _LEAST_CLEAR * len(words):
        return _ENGLISH
    return _decide({word for word in _WORD.findall(text.lower()) if word not in _MASKS})


def _decide(words: set[str]) -> str:
    """The language that knows most words, if it ships and knows enough of them."""
    owners = [languages_of(word) for word in sorted(words)]
    known = Counter(code for own in owners for code in own)
    best = max(known.values(), default=0)
    code = next((code for code in _PREFERRED if best and known[code] == best), UNKNOWN)
    if code == _ENGLISH or not known:
        return _ENGLISH if _is_english(words, owners) else UNKNOWN
    return code


def _is_english(words: set[str], owners: Sequence[frozenset[str]]) -> bool:
    """Whether the words that English does not know leave it the language of a report."""
    unknown = sum(_ENGLISH not in own for own in owners)
    pairs = zip(sorted(words), owners, strict=True)
    foreign = any(own and _ENGLISH not in own and not _is_near(word) for word, own in pairs)
    english = any(own == {_ENGLISH} for own in owners)
    least = _LEAST_KNOWN if foreign else _LEAST_KNOWN / 2
    if not unknown or (english and len(words) - unknown >= least * len(words)):
        return True
    return not foreign and _are_misspelled(words)


def _are_misspelled(words: Iterable[str]) -> bool:
    """Whether most words are English ones, misspelled ones included."""
    words = sorted(words)
    english = [w for w in words if _ENGLISH in languages_of(w) or _is_near(w)]
    return len(english) > _LEAST_KNOWN * len(words)


@functools.lru_cache(_WORDS_KEPT)
def _is_near(word: str) -> bool:
    """Whether a long word is an English one with few edits, and no word of another language."""
    if len(word) < MIN_LETTERS or not word.isascii():
        return False
    targets = _targets()
    return process.extractOne(word, targets, scorer=similarity, score_cutoff=THRESHOLD - 0.01) is not None


@functools.lru_cache(_WORDS_KEPT)
def languages_of(word: str) -> frozenset[str]:
    """The codes of the languages that know a word of lower case."""
    plain = fold(word)
    own = {code for code, words in _listed().items() if plain in words}
    own.update(code for code in languages() if _knows(load_language(code), word))
    if not word.isascii():  # a shipped language knows its own letters alone: "ausência" is not Spanish
        own.difference_update(code for code in languages() if not _letters()[code].issuperset(word))
    return frozenset(own)


def fold(text: str) -> str:
    """The text without diacritics.

    >>> fold("größe señal œdème")
    'grosse senal oedeme'
    """
    if text.isascii():
        return text
    decomposed = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def _knows(language: Language, word: str) -> bool:
    """Whether the files of a shipped language hold a word, or the head of a compound."""
    normal = normalise(word, language)
    if language.forms.get("heads"):
        parts = compound_parts(normal, language)
        return len(parts) > 1 or normal in _vocabulary(language.code)
    return normal in _vocabulary(language.code)


@functools.cache
def _listed() -> Mapping[str, frozenset[str]]:
    content = tomllib.loads((TABLES / "language_words.toml").read_text(encoding="utf-8"))
    return {code: frozenset(_WORD.findall(fold(words))) for code, words in content.items()}


@functools.cache
def _letters() -> Mapping[str, frozenset[str]]:
    content = tomllib.loads((TABLES / "language_words.toml").read_text(encoding="utf-8"))
    return {code: frozenset(words.lower() + string.ascii_lowercase) for code, words in content.items()}


@functools.cache
def _vocabulary(code: str) -> frozenset[str]:
    """The normalised words of a shipped language's files."""
    language = load_language(code)
    if code == _ENGLISH:
        tables = [path for path in TABLES.iterdir() if path.name.endswith(".jsonl")]
        text = " ".join(path.read_text(encoding="utf-8").lower() for path in tables)
        aliases = (normalise(word) for word in set(_WORD.findall(text)))
        return valid_words().union(aliases, _words_of_cues(language))
    phrases = [phrase for own in language.aliases.values() for phrase in own]
    listed = " ".join(_listed()[code])
    return frozenset(words_of(" ".join([*phrases, listed]), language)[0]) | _words_of_cues(language)


def _words_of_cues(language: Language) -> frozenset[str]:
    headings = [heading for own in language.layout["headings"].values() for heading in own]
    cues = [phrase for own in language.cues.values() for phrase in own if phrase not in language.borrowed]
    return frozenset(word for word in words_of(" ".join([*headings, *cues]), language)[0] if word.isalpha())


@functools.cache
def _clear_words() -> tuple[frozenset[str], frozenset[str]]:
    """English words with plurals, and the words of other languages that are none."""
    words = _vocabulary(_ENGLISH) | _listed()[_ENGLISH]
    english = words.union(f"{word}s" for word in words)
    others = frozenset().union(*(own for code, own in _listed().items() if code != _ENGLISH))
    return english, others - english


@functools.cache
def _targets() -> list[str]:
    return sorted(word for word in _clear_words()[0] if len(word) >= MIN_LETTERS)
