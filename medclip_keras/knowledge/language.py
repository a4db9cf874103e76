"""A language: the cues, word forms and headings by which its reports are read, from `tables/languages`."""

import collections
import functools
import itertools
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from medclip_keras.errors import near_names, refusal
from medclip_keras.knowledge import TABLES

_FOLDER = TABLES / "languages"


@dataclass(frozen=True, eq=False)
class Language:
    """Content of a language file; compared by identity, pickled as its code."""

    code: str  # "en"
    forms: Mapping[str, Any]  # `aliases.normalise`: endings, prefixes, spelling, irregular
    layout: Mapping[str, Any]  # `sections`: abbreviations, headings
    cues: Mapping[str, tuple[str, ...]]  # `assertion`: kind → phrases with the alternatives of `aliases`
    clauses: Mapping[str, frozenset[str]]  # `assertion`: sets of words; one that the file lacks is empty
    joints: frozenset[str]  # words and marks at which a clause may end
    sides: Mapping[str, str]  # word → "left", "right" or "both"
    reaches: Mapping[str, int]  # phrase → words that its scope contains at most, where fewer than its kind's
    borrowed: frozenset[str]  # those of the cues that are words of other languages
    aliases: Mapping[str, tuple[str, ...]]  # CUI → aliases beside those of the concept table

    def __reduce__(self) -> tuple[Callable[[str], "Language"], tuple[str]]:
        return load_language, (self.code,)


def languages() -> tuple[str, ...]:
    """Codes of the shipped languages.

    >>> "en" in languages()
    True
    """
    return tuple(sorted(p.name.removesuffix(".toml") for p in _FOLDER.iterdir()))


@functools.cache
def load_language(code: str) -> Language:
    """Load a shipped language by its code.

    Raises:
        ValueError: no such language; the codes are in the sentence.
    """
    if code not in languages():
        raise refusal("language", "a shipped language", code, near_names(code, languages()))
    content = tomllib.loads((_FOLDER / f"{code}.toml").read_text(encoding="utf-8"))
    cues, borrowed = content["cues"], content.get("borrowed", {})
    cues = {kind: [*own, *borrowed.get(kind, ())] for kind, own in cues.items()}
    return Language(
        code=code,
        forms=content["forms"],
        layout=content["layout"],
        cues={kind: tuple(p.format(**content["phrases"]) for p in phrases) for kind, phrases in cues.items()},
        clauses=collections.defaultdict(
            frozenset, {name: frozenset(words) for name, words in content["clauses"].items()}
        ),
        joints=frozenset((",", ":", *content["clauses"].get("and", ()), *content["clauses"].get("with", ()))),
        sides={word: s for s in ("left", "right", "both") for word in content["clauses"].get(s, ())},
        reaches=content.get("reaches", {}),
        borrowed=frozenset(itertools.chain.from_iterable(borrowed.values())),
        aliases={cui: tuple(own) for cui, own in content.get("aliases", {}).items()},
    )


ENGLISH = load_language("en")
