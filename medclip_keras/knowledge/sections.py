"""Report text to sections, and section text to sentences.

Headings are recognised on lines of their own and inside lines, in upper and mixed case. They map to the names
`findings`, `impression`, `indication`, `comparison`, `technique`, `examination`, `recommendation`, `addendum`
and `signature`. Text without a heading is `body`, or `preamble` before the findings section.
"""

import functools
import re
from dataclasses import dataclass, field

from medclip_keras.knowledge.language import ENGLISH, Language


@dataclass(frozen=True)
class Section:
    """A named part of a report; the name is lower case: "findings", "impression", "indication"."""

    name: str
    text: str = field(repr=False)


CONTENT_SECTIONS = frozenset(
    {"findings", "impression", "body", "addendum"}
)  # sections that are searched for findings
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
_NEW_LINE = re.compile(r"\n[ \t\r]*(?=(?-i:[A-Z]))")
# Sections that end at a blank line where the report has no heading for its findings; at a new line that
# begins in upper case where it has none for an impression either.
_SHORT_SECTIONS = frozenset({"indication", "comparison", "technique", "examination"})


class _Layout:
    """The patterns of a language's headings and abbreviations."""

    def __init__(self, language: Language):
        layout = language.layout
        self.names = {h: name for name, headings in layout["headings"].items() for h in headings}
        self.abbreviations = frozenset(layout["abbreviations"])
        self.at_sentence_ends = frozenset(layout["at_sentence_ends"])
        longest = sorted(self.names, key=len, reverse=True)
        heading = "|".join(re.escape(h).replace(r"\ ", r"\s+") for h in longest)
        bare = "|".join(layout["bare"]).upper()
        self.opening = re.compile(
            # a heading with a colon (or a dash, at the line's start), wherever a sentence may begin;
            rf"(?:^|(?<=[.!?:;\n]))[ \t\r\n#*_]*\b(?P<colon>{heading})(?:\(s\))?"
            r"[ \t*_]*(?::[*_]*|(?<=\n)\s[-–]\s)"
            # a heading alone on its line;
            rf"|^[ \t#*_]*(?P<alone>{heading})[ \t*_]*[.]?[ \t\r]*$"
            # an upper-case heading with a colon, after text without a full stop;
            rf"|(?<=\s)(?P<upper>(?-i:{bare})):"
            # an upper-case heading that starts a line of mixed case.
            rf"|^[ \t]*(?P<bare>(?-i:{bare}))[ \t]+(?=(?-i:[A-Z][a-z]|[A-Z] [a-z]))",
            re.IGNORECASE | re.MULTILINE,
        )

    def name_of(self, match: re.Match[str]) -> str:
        """The section that a match of `opening` opens."""
        heading = match["colon"] or match["alone"] or match["upper"] or match["bare"]
        return self.names[re.sub(r"\s+", " ", heading.lower())]


_layout = functools.cache(_Layout)


def split_sections(text: str, language: Language = ENGLISH) -> tuple[Section, ...]:
    """Split a report at its headings; sections without text are dropped.

    >>> [(s.name, s.text) for s in split_sections("HISTORY: Cough. FINDINGS: Large heart. IMPRESSION: CHF.")]
    [('indication', 'Cough.'), ('findings', 'Large heart.'), ('impression', 'CHF.')]
    """
    layout = _layout(language)
    marks = [(match.start(), match.end(), layout.name_of(match)) for match in layout.opening.finditer(text)]
    end_of_short = _BLANK_LINE if any(name == "impression" for _, _, name in marks) else _NEW_LINE
    last_findings = max((start for start, _, name in marks if name == "findings"), default=-1)
    first = marks[0][0] if marks else len(text)
    parts = [("preamble" if last_findings >= 0 else "body", text[:first])]
    ends = [start for start, _, _ in marks[1:]] + [len(text)]
    for (_, start, name), end in zip(marks, ends[: len(marks)], strict=True):
        body, before_findings = text[start:end], start <= last_findings
        blank = end_of_short.search(body.lstrip("\n \t\r"))
        if name == "title":
            parts.append(("preamble" if before_findings else "body", body))
        elif name in _SHORT_SECTIONS and not before_findings and blank:
            lead = len(body) - len(body.lstrip("\n \t\r"))
            parts += [(name, body[: lead + blank.start()]), ("body", body[lead + blank.end() :])]
        else:
            parts.append((name, body))
    return tuple(Section(name, part.strip()) for name, part in parts if re.search(r"\w", part))


_BREAK = re.compile(
    r"(?P<stop>(?<=\S)[.!?]+[\"')\]]*)(?=\s|$)"  # a full stop before white space: "1.5 cm" has none
    r"|(?P<tight>(?<=[a-z)%])[.](?=[A-Z][a-z]))"  # a missing space: "clear.The heart"
    # a blank line, an item of a list, a label; a line that need not have ended there
    r"|(?P<line>\n[ \t\r]*(?:\n\s*|(?=[-*•·‣]\s|\d{1,2}[.)]\s|[A-Z][A-Za-z ]{2,30}:)))"
    r"|(?P<wrap>\n[ \t\r]*(?=[A-Z]))"
    r"|(?P<item>;?\s(?=\d{1,2}\)\s))"  # "1) … 2) …" in one line
    r"|(?P<semi>;(?=\s))"
)
_MARK = re.compile(r"[.!?;\n]|\s(?=\d{1,2}\)\s)")
_LEAST_WIDTH = 60  # characters of a line, where a text is wrapped
# A line that ends so goes on in the next.
_OPEN_END = re.compile(
    r"(?:^|.*\s)(?:\S*[,:(/-]|a|an|the|of|in|on|at|to|for|and|or|nor|with|without|no|not|is|are|was|were|by|from|"
    r"than|versus|vs\.?|dr\.|left|right)$",
    re.IGNORECASE | re.DOTALL,
)
_NO_WORD = re.compile(r"[^\w.]")
_LETTER = re.compile(r"\w")
_ITEM = re.compile(r"\s*\(?(?:\d{1,2}|[a-hA-H])")
_INITIAL = re.compile(r"(?:\b(?:Dr|Mr|Mrs|Ms|Prof)\.?|\b[A-Z]\.) [A-Z]$")  # "Dr. J. Smith"
_LIST_MARK = re.compile(r"\s*(?:[-*•·‣]+|\(?\d{1,2}[.)]|\(?[a-hA-H][.)])(?=\s)\s*")


def split_sentences(text: str, language: Language = ENGLISH) -> tuple[tuple[int, int], ...]:
    """Split text into sentences, as character offsets (start, end) without list marks.

    >>> text = "1. Nodule of 1.5 cm, told to Dr. Lee. 2. No effusion"
    >>> [text[start:end] for start, end in split_sentences(text)]
    ['Nodule of 1.5 cm, told to Dr. Lee.', 'No effusion']
    """
    spans, start, layout = [], 0, _layout(language)
    width = max(_LEAST_WIDTH, *map(len, text.splitlines())) if "\n" in text else 0
    for mark in _MARK.finditer(text):  # a fast scan for possible matches of `_BREAK`
        if mark.start() < start:
            continue
        match = _BREAK.match(text, mark.start())
        if not match or not _breaks(text, start, match, width, layout):
            continue
        spans.append((start, match.end()))
        start = match.end()
    spans.append((start, len(text)))
    return tuple(span for span in (_trim(text, *span) for span in spans) if span)


def _breaks(text: str, start: int, match: re.Match[str], width: int, layout: _Layout) -> bool:
    """Whether a match ends a sentence; list marks, abbreviations and initials do not."""
    if match["wrap"]:
        return _is_deliberate(text, match, width)
    if not match["stop"] or not match["stop"].startswith("."):
        return text[match.start() - 1 : match.start()] != "("  # "(?) effusion"
    before = text[max(start, match.start() - 16) : match.start()]
    if len(before) < 16 and _ITEM.fullmatch(before):  # "2." opens an item
        return False
    word = _NO_WORD.split(before)[-1].lower().rstrip(".")
    if word in layout.abbreviations:
        following = text[match.end() : match.end() + 9].lstrip()[:1]
        if word == "no":  # "No. 3", yet "Effusion? No. The heart …"
            return not following.isdigit()
        return word in layout.at_sentence_ends and (following.isupper() or not following)
    return not (before[-1:].isupper() and _INITIAL.search(before))


def _is_deliberate(text: str, match: re.Match[str], width: int) -> bool:
    """Whether a line break ends a sentence: the next word had room, and no phrase is cut."""
    line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()].rstrip()
    following = text[match.end() :].split(maxsplit=1)[0]  # the next line begins in upper case
    return len(line) + 1 + len(following) < width and not _OPEN_END.match(line)


def _trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Strip list mark and white space from a span; None if it has no word."""
    mark = _LIST_MARK.match(text, start, end)
    start = mark.end() if mark else start
    while start < end and text[start].isspace():
        start += 1
    while end > start and (text[end - 1].isspace() or text[end - 1] == ";"):
        end -= 1
    return (start, end) if _LETTER.search(text, start, end) else None
