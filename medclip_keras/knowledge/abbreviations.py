"""Abbreviations that a report defines for itself: "a pleural effusion (PE) … the PE is unchanged".

Schwartz and Hearst (PSB 2003) find the words before the bracket that an abbreviation stands for by its
letters; here every letter begins a word of them, which is how radiologists abbreviate findings.
"""

import re
from collections.abc import Mapping, Sequence

from medclip_keras.knowledge.aliases import Span, words_of
from medclip_keras.knowledge.language import ENGLISH, Language

_DEFINITION = re.compile(r"((?:[^\W\d_]+[ -]){1,6})\(([A-Z]{2,6})\)")


def definitions(text: str, language: Language = ENGLISH) -> dict[str, tuple[str, ...]]:
    """Abbreviations defined in a text, each with its normalised words.

    >>> definitions("Small right pleural effusion (PE). The PE of last week was larger (see CT).")
    {'PE': ('pleural', 'effusion')}
    """
    if "(" not in text:
        return {}
    found = {}
    for match in _DEFINITION.finditer(text):
        words = re.findall(r"[^\W\d_]+", match[1])[-len(match[2]) :]
        if "".join(word[0] for word in words).upper() == match[2]:
            found[match[2]] = tuple(words_of(" ".join(words), language)[0])
    return found


def written_out(
    sentence: str,
    words: Sequence[str],
    offsets: Sequence[Span],
    meanings: Mapping[str, tuple[str, ...]],
) -> tuple[list[str], list[Span]]:
    """Expand the defined abbreviations of a sentence; expanded words share the abbreviation's offsets."""
    long_words: list[str] = []
    long_offsets: list[Span] = []
    for word, (start, end) in zip(words, offsets, strict=True):
        meaning = meanings.get(sentence[start:end], (word,))
        long_words += meaning
        long_offsets += [(start, end)] * len(meaning)
    return long_words, long_offsets
