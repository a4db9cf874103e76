"""Syntax of the aliases in concept tables, and normalisation of words.

    pleural effusion            this phrase
    (left|right) effusion       alternatives
    heart + enlarged            both parts, in any order, a few words apart in one clause
    heart ++ normal             both parts, with nothing but a list of organs between them
    !pericardial effusion       excluded: contains another alias, but is not this concept
    ~heart size is normal       the concept is absent
    ^normal                     matches a whole sentence only
    &hydropneumothorax          shared: names another concept of the table too (& in both rows)
    ?nodular opacity            the concept is uncertain, even without a cue

Phrases are compared word by word after `normalise`: lower case, singular, American spelling, no hyphens.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass

from medclip_keras.errors import refusal
from medclip_keras.knowledge.language import ENGLISH, Language

Span = tuple[int, int]  # start and end, of words or of characters
_LEAST_PART = 3  # letters before the head of a compound

PRESENT, ABSENT, EXCLUDED, OPEN = "present", "absent", "excluded", "open"
WHOLE = "^"
_ROLES = {"!": EXCLUDED, "~": ABSENT, "?": OPEN}

_PLAIN = str.maketrans("’–—−", "'---", "\u00ad\u200b\u200c\u200d\u2060")

_WORD = re.compile(
    r"\b(?i:w/o|r/o|h/o|s/p|c/w|b/l|y/o|d/c)(?:'d)?(?!\w)"  # abbreviations with a slash are one word
    r"|\b(?i:cardio|hydro|ha?emo|pneumo|peri|broncho|retro)-[^\W\d_]+"  # other hyphens separate like a space
    r"|\([-+]\)|\d+(?:\.\d+)?|[^\W\d_]+(?:['’\u00ad\u200b-\u200d\u2060]+[^\W\d_]+)*"
    # a mark, but not the full stop of "vs." or "Lt.", nor one before "of"; a dash
    r"|(?!(?i:(?<=\bvs)|(?<=\b[lr]t)|(?<=\bapprox)|(?<=\bbilat)|(?<=\bdr))\.)"
    r"(?!\.\s+(?:of|or|nor|to|for|from|than)\s)[^\w\s\-‐‑]|--+|(?<!\S)-(?=[\s,;)]|$)"
)


@functools.lru_cache(maxsize=50_000)
def normalise(word: str, language: Language = ENGLISH) -> str:
    """Normalise a word by the language's forms: lower case, singular, one spelling.

    >>> [normalise(w) for w in ("Opacities", "OEDEMA", "effusions", "atelectasis", "masses")]
    ['opacity', 'edema', 'effusion', 'atelectasis', 'mass']
    """
    if word[0].isdigit():
        return word
    word = word.lower()
    if not word.isascii():
        word = unicodedata.normalize("NFKC", word).translate(_PLAIN)
    if len(word) > 3:
        word = word.replace("-", "")  # hydro-pneumothorax
    for variant, spelling in language.forms["spelling"].items():
        word = word.replace(variant, spelling)
    word = word.removesuffix("'s")
    if word in language.forms["irregular"]:
        return str(language.forms["irregular"][word])
    for ending, replacement, letters in language.forms["endings"]:
        if len(word) >= letters and word.endswith(ending):
            return str(word.removesuffix(ending) + replacement)
    return word


@functools.cache
def _normal_forms(language: Language) -> Callable[[str], str]:
    """`normalise` in a language; a cache whose key is one word is the quicker one."""
    return functools.lru_cache(maxsize=50_000)(functools.partial(normalise, language=language))


def words_of(text: str, language: Language = ENGLISH) -> tuple[list[str], list[Span]]:
    """The normalised words and marks of a text, and their character offsets.

    Where the language lists them, compounds are read as their parts ("Pleuraerguss"), and the full stop of an
    abbreviation is no mark.
    """
    matches = list(_WORD.finditer(text))
    normal_form = _normal_forms(language)
    words = [normal_form(match[0]) for match in matches]
    spans = [match.span() for match in matches]
    in_parts = language.forms.get("heads") or "." in words[:-1]
    return _in_parts(words, spans, language) if in_parts else (words, spans)


def _in_parts(words: list[str], spans: list[Span], language: Language) -> tuple[list[str], list[Span]]:
    """Words without the full stops of abbreviations, compounds in parts that share their offsets."""
    short = language.forms.get("abbreviated", ())
    before = ("", *words)
    parts = [
        () if word == "." and previous in short else compound_parts(word, language)
        for previous, word in zip(before, words, strict=False)
    ]
    return (
        [part for own in parts for part in own],
        [span for span, own in zip(spans, parts, strict=True) for _ in own],
    )


@functools.lru_cache(maxsize=50_000)
def compound_parts(word: str, language: Language) -> tuple[str, ...]:
    """The parts of a normalised compound, by the heads of the language; a simple word is its own part."""
    for head in language.forms.get("heads", ()):
        if word.endswith(head) and len(word) - len(head) >= _LEAST_PART:
            first = normalise(word.removesuffix(head), language)
            return (*compound_parts(first, language), head)
    return (word,)


@dataclass(frozen=True)
class Alias:
    """A parsed alias; it matches if every part matches one of its phrases."""

    role: str  # PRESENT, ABSENT, EXCLUDED or OPEN
    parts: tuple[tuple[str, ...], ...]
    text: str
    shared: bool = False  # other concepts may name the same phrase
    listed: bool = False  # the parts may be as far apart as a list of organs is long, and no further


def parse_alias(text: str, words: Collection[str] | None = None, language: Language = ENGLISH) -> Alias:
    """Parse the signs, parts and alternatives of an alias; `words` as in `alternatives`.

    >>> parse_alias("(heart|cardiac silhouette) + enlarged").parts
    (('heart', 'cardiac silhouette'), ('enlarged',))

    Raises:
        ValueError: an alias without a word, or with a bracket that does not close.
    """
    role = _ROLES.get(text[:1], PRESENT)
    bare = text.lstrip("&" + WHOLE + "".join(_ROLES)).strip()
    parts = tuple(alternatives(part.strip(), words, language) for part in re.split(r"(?<!\S)\++(?!\S)", bare))
    if not all(words_of(phrase, language)[0] for part in parts for phrase in part):
        raise refusal("aliases", "phrases with a word in every part", text)
    return Alias(role, parts, text, shared=text.startswith("&"), listed=" ++ " in bare)


def alternatives(
    phrase: str, words: Collection[str] | None = None, language: Language = ENGLISH
) -> tuple[str, ...]:
    """Expand the alternatives of a phrase.

    `words` are normalised; alternatives with other words may be dropped. None keeps all.

    >>> alternatives("(is|are|) not seen")
    ('is not seen', 'are not seen', 'not seen')
    >>> alternatives("(is|are|) not seen", {"not", "seen", "are"})
    ('are not seen', 'not seen')

    Raises:
        ValueError: a bracket that does not close, or alternatives without brackets.
    """
    pieces = re.split(r"(\([^()]*\))", phrase)
    plain = "".join(piece for piece in pieces if not re.fullmatch(r"\([^()]*\)", piece))
    if any(sign in plain for sign in "()|"):
        raise refusal("aliases", "phrases with alternatives as (one|two)", phrase)
    choices = [piece[1:-1].split("|") if piece.startswith("(") else [piece] for piece in pieces]
    if words is not None and not re.search(r"\w\(|\)\w", phrase):  # "opacit(y|ies)" holds pieces of words
        choices = [
            [c for c in group if all(word in words for word in words_of(c, language)[0])] for group in choices
        ]
    return tuple(" ".join("".join(choice).split()) for choice in itertools.product(*choices))
