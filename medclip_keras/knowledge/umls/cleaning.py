"""Terms of vocabularies → aliases that a report could contain, or the reason why there is none.

    Pleural effusion (disorder)          Pleural effusion
    [D]Effusion, Pleural, NOS            Pleural Effusion
    Lung Diseases, Interstitial          Interstitial Lung Diseases
    Pneumonia, due to virus              Pneumonia due to virus
    Heart failure (HF)                   Heart failure
    Opacity(s) <2>                       Opacity

The tables are `tables/umls_words.toml` and, for abbreviations, `tables/english_words.txt`.
"""

import functools
import re
import tomllib
import unicodedata

from medclip_keras.knowledge import TABLES
from medclip_keras.knowledge.abbreviations import definitions
from medclip_keras.knowledge.aliases import normalise, words_of

MAX_WORDS, MIN_LETTERS, MAX_ABBREVIATION = 8, 3, 6

_WORDS = tomllib.loads((TABLES / "umls_words.toml").read_text(encoding="utf-8"))
_ENGLISH = frozenset(
    word
    for line in (TABLES / "english_words.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
    for word in line.split()
)
_GENERAL = frozenset(map(normalise, _WORDS["general"]))
_LINKING = frozenset(_WORDS["linking"])
_TAGS = "|".join(re.escape(tag) for tag in sorted(_WORDS["tags"], key=len, reverse=True))
_TAG = re.compile(rf"^\[(?:{_TAGS})\]\s*|[\s,]*[(\[<](?:{_TAGS}|\d+)[)\]>]$", re.IGNORECASE)
_PLURAL = re.compile(r"\((?:s|es)\)")
_UNSPECIFIED = re.compile(
    r"[\s,(-]*\b(?:NOS|(?i:not otherwise specified|unspecified|unspecified type|site unspecified))\)?$"
    r"|^(?i:unspecified)\s+"
)
_RESIDUAL = re.compile(
    rf"^(?:{'|'.join(_WORDS['residual'])})\b|\bNEC\)?$|\bnot elsewhere classified\b|\bothers?\)?$",
    re.IGNORECASE,
)
_ASSERTING = re.compile(rf"^(?:{'|'.join(_WORDS['asserting'])})\b", re.IGNORECASE)
_WORD = r"[^\W_]+(?:['’][^\W\d_]+)?"
_PHRASE = re.compile(rf"{_WORD}(?:[ -]{_WORD})*")
_LETTERS = re.compile(rf"[^\W\d_]{{{MIN_LETTERS}}}")


@functools.lru_cache(maxsize=10_000)
def clean(term: str) -> tuple[str, str]:
    """Clean a term: (alias, "") or ("", the reason why it is left out).

    >>> clean("[D]Effusions, Pleural, NOS (finding)"), clean("Other specified pneumonia"), clean("COLD")
    (('Pleural Effusions', ''), ('', 'residual class'), ('', 'abbreviation that is an English word'))
    """
    plain = _without_tags(" ".join(unicodedata.normalize("NFKC", term).split()))
    text = _in_order(plain)
    reason = _excluded(plain) or _unfit(text)
    return ("", reason) if reason else (text, "")


def key_of(phrase: str) -> str:
    """Words that match a phrase; phrases with equal keys match the same text."""
    return " ".join(words_of(phrase)[0])


def _without_tags(text: str) -> str:
    """Drop the names of kinds, the optional plural, a defined abbreviation, and "unspecified"."""
    before = None
    while text != before:
        before = text
        text = _UNSPECIFIED.sub("", _TAG.sub("", _PLURAL.sub("", text))).strip(" ,;:.")
    head, bracket, abbreviation = text.partition(" (")
    if bracket and abbreviation[:-1].isupper() and definitions(f"{head} ({abbreviation}"):
        return head
    return text


def _in_order(text: str) -> str:
    """Undo an inversion at commas; a list is returned unchanged, and is not a phrase."""
    head, *parts = text.split(", ")
    if not parts or len(parts) > 2 or any(re.search(r"\b(?:and|or)\b", part) for part in parts):
        return text
    if any(part.split(" ", 1)[0].lower() in _LINKING for part in parts):
        return " ".join((head, *parts))
    return " ".join((*reversed(parts), head))


def _excluded(text: str) -> str:
    """Why a term names no finding, "" if it does."""
    if _RESIDUAL.search(text):
        return "residual class"
    return "assertion, not a finding" if _ASSERTING.match(text) else ""


def _unfit(text: str) -> str:
    """The first reason against a phrase as an alias, "" if there is none."""
    if re.search(r"[()\[\]<>]", text):
        return "bracket"
    if not _PHRASE.fullmatch(text):
        return "list or mark"
    if len(text.split()) > MAX_WORDS:
        return "too long"
    if not _LETTERS.search(text):
        return "too short"
    if len(text) <= MAX_ABBREVIATION and text.isupper() and text.lower() in _ENGLISH:
        return "abbreviation that is an English word"
    return "too general" if _GENERAL.issuperset(words_of(text)[0]) else ""
