"""Report text to sections, and section text to sentences.

Headings are recognised on lines of their own and inside lines, in upper and mixed case. They map to the names
`findings`, `impression`, `indication`, `comparison`, `technique`, `examination`, `recommendation`, `addendum`
and `signature`. Text without a heading is `body`, or `preamble` before the findings section.
"""

import functools
import html
import itertools
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from rapidfuzz import fuzz, process

from medclip_keras.knowledge.language import ENGLISH, Language


@dataclass(frozen=True)
class Section:
    """A named part of a report; the name is lower case: "findings", "impression", "indication"."""

    name: str
    text: str = field(repr=False)
    heading: str = field(default="", compare=False)  # as the report writes it


CONTENT_SECTIONS = frozenset(
    {"findings", "impression", "body", "addendum"}
)  # sections that are searched for findings
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
_NEW_LINE = re.compile(r"\n[ \t\r]*(?=(?-i:[A-Z]))")
# Sections that end at a blank line where the report has no heading for its findings; at a new line that
# begins in upper case where it has none for an impression either; and before a sentence about findings.
_SHORT_SECTIONS = frozenset({"indication", "comparison", "technique", "examination"})
_LEAST_LIKE = 84  # percent of letters that a misspelled heading shares with a heading
_LEAST_LETTERS = 6  # of a heading that may be misspelled
_LONGEST_HEADING = 100  # characters with the white space around it
_MARGIN = r"[ \t\r\n#*_]*"
# Headings begin after a mark, a line break or two spaces, or in upper case after white space.
_START = re.compile(r"[.!?:;\s](?:(?<=[.!?:;\n])|(?<=  )|(?=[A-ZÀ-ÖØ-Þ]))")


class _Layout:
    """The patterns of a language's headings, abbreviations and line breaks."""

    def __init__(self, language: Language):
        layout = language.layout
        self.names = {h: name for name, headings in layout["headings"].items() for h in headings}
        self.abbreviations = frozenset(layout["abbreviations"])
        short = language.forms.get("abbreviated", ())
        self.at_sentence_ends = frozenset(layout["at_sentence_ends"]).union(short) - (
            self.abbreviations.difference(layout["at_sentence_ends"])
        )
        self.continuations = frozenset(layout.get("continuations", ()))
        self.open_ends = frozenset(layout.get("open_ends", ()))
        self.compounds = frozenset(layout.get("compounds", ()))
        self.remarks = _any_word(layout.get("remarks", ()))
        self.statements = re.compile(rf"(?:{'|'.join(layout.get('statements', ())) or '(?!)'})", re.I)
        longest = sorted(self.names, key=len, reverse=True)
        heading = "|".join(re.escape(h).replace(r"\ ", r"\s+") for h in longest)
        signed = "|".join(re.escape(h).replace(r"\ ", r"\s+") for h in longest if h.endswith(" by"))
        bare = "|".join(layout["bare"])
        self.signature = re.compile(rf"{_MARGIN}(?P<signed>{signed or '(?!)'})\b", re.IGNORECASE)
        self.opening = re.compile(
            # a heading with a colon, wherever a sentence or a column may begin;
            rf"(?:^|(?<=[.!?:;\n])|(?<=  )){_MARGIN}\b(?P<colon>{heading})(?:\(s\))?[ \t*_]*:[*_]*"
            # a heading with a dash, or alone, on its line;
            rf"|^[ \t#*_]*(?P<dash>{heading})(?:\(s\))?[ \t*_]*[-–—]{{1,2}}[ \t]+(?=\S)"
            rf"|^[ \t#*_]*(?P<alone>{heading})[ \t*_]*[.]?[ \t\r]*$"
            # an upper-case heading with a colon, after text without a full stop;
            rf"|(?<=\s)(?P<upper>(?-i:{bare.upper()}|{bare.title()})):"
            # an upper-case heading that starts a line of mixed case;
            rf"|^[ \t]*(?P<bare>(?-i:{bare.upper()}))[ \t]+(?=(?-i:[A-Z][a-z]|[A-Z] [a-z]))"
            # a signature;
            rf"|(?:^|(?<=[.!?\n])){_MARGIN}(?P<signed>{signed or '(?!)'})\b"
            # another label: in upper case, or at the line's start.
            rf"|(?:(?:^|(?<=[.!?;\n])){_MARGIN}|(?<=[a-z\d] ))(?P<label>(?-i:[A-Z][A-Z/& -]{{2,40}})):"
            rf"|(?:^|(?<=[.!?;\n])){_MARGIN}(?P<title>(?-i:[A-Z][A-Za-z/& -]{{5,40}})):"
            r"|^[ \t#*_]*(?P<line>(?-i:[A-Z][A-Z/& ]{5,40}))[ \t*_]*[.]?[ \t\r]*$",
            re.IGNORECASE | re.MULTILINE,
        )

    def name_of(self, match: re.Match[str]) -> str:
        """The section that a match of `opening` opens; "" for none."""
        heading = next(filter(None, (match[kind] for kind in _HEADINGS)), "")
        known = self.names.get(re.sub(r"\s+", " ", heading.lower()), "")
        return known or self._like(
            match["label"] or match["title"] or match["line"] or "", bool(match["label"])
        )

    def _like(self, label: str, is_label: bool) -> str:
        """The section of a misspelled heading; "label" for another one in upper case."""
        near = None
        if len(label) >= _LEAST_LETTERS:
            near = process.extractOne(
                label.lower(), list(self.names), scorer=fuzz.ratio, score_cutoff=_LEAST_LIKE
            )
        if near and len(near[0]) >= _LEAST_LETTERS:
            return str(self.names[near[0]])
        return "label" if is_label else ""


_HEADINGS = ("colon", "dash", "alone", "upper", "bare", "signed")
_layout = functools.cache(_Layout)


def _any_word(words: Collection[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(words) or '(?!)'})\b", re.IGNORECASE)


def split_sections(text: str, language: Language = ENGLISH) -> tuple[Section, ...]:
    """Split a report at its headings; sections without text are dropped.

    The text of the sections is `plain_text`. A label that is no heading ("CHEST: …") opens the body where it
    ends a section that is not read, and stays in the text elsewhere.

    >>> [(s.name, s.text) for s in split_sections("HISTORY: Cough. FINDINGS: Large heart. IMPRESSION: CHF.")]
    [('indication', 'Cough.'), ('findings', 'Large heart.'), ('impression', 'CHF.')]
    """
    text, layout = plain_text(text, language), _layout(language)
    marks = _marks(text, layout)
    end_of_short = _BLANK_LINE if any(name == "impression" for _, _, name in marks) else _NEW_LINE
    last_findings = max((start for start, _, name in marks if name == "findings"), default=-1)
    first = marks[0][0] if marks else len(text)
    parts = [("preamble" if last_findings >= 0 else "body", text[:first], "")]
    ends = [start for start, _, _ in marks[1:]] + [len(text)]
    for (opening, start, name), end in zip(marks, ends[: len(marks)], strict=True):
        body, before_findings = text[start:end], start <= last_findings
        heading = text[opening:start].strip(" \t\r\n#*_")
        if name == "title":
            parts.append(("preamble" if before_findings else "body", body, heading))
        elif name in _SHORT_SECTIONS and not before_findings:
            cut = _end_of_short(body, name, end_of_short, layout)
            parts += [(name, body[:cut], heading), ("body", body[cut:], "")]
        else:
            parts.append((name, body, heading))
    found = [(name, part.strip(), heading) for name, part, heading in parts if re.search(r"\w", part)]
    return tuple(Section(*part) for part in found)


def _marks(text: str, layout: _Layout) -> list[tuple[int, int, str]]:
    """Headings as (start, end, name of the section)."""
    found = [(match.start(), match.end(), layout.name_of(match)) for match in _headings(text, layout)]
    last_findings = max((start for start, _, name in found if name == "findings"), default=-1)
    marks: list[tuple[int, int, str]] = []
    for start, end, name in found:
        if name in ("label", "body"):
            if marks and marks[-1][2] not in CONTENT_SECTIONS and start > last_findings:
                marks.append((start, end, "body"))
        elif name:
            marks.append((start, end, name))
    return marks


def _headings(text: str, layout: _Layout) -> Iterator[re.Match[str]]:
    """The matches of `opening`, tried only where one may begin, which is quicker than a search.

    Inside a line that is near a colon, or before a signature.
    """
    end, colon = 0, text.find(":")
    for start in itertools.chain((0,), (match.end() for match in _START.finditer(text))):
        if start < end:
            continue
        if 0 <= colon < start:
            colon = text.find(":", start)
        at_line, at_colon = text[start - 1 : start] in ("", "\n"), start <= colon <= start + _LONGEST_HEADING
        if not (at_line or at_colon or layout.signature.match(text, start)):
            continue
        match = layout.opening.match(text, start)
        if match:
            end = match.end()
            yield match


def _end_of_short(body: str, name: str, line: re.Pattern[str], layout: _Layout) -> int:
    """Where a section that is not read ends: at a line break, or before a sentence about findings."""
    lead = len(body) - len(body.lstrip("\n \t\r"))
    found = line.search(body, lead)
    last = found.start() if found else len(body)
    spans = _sentences(body[:last], layout)
    for start, end in spans[1:]:
        sentence = body[start:end]
        if layout.statements.match(sentence) or (
            name != "indication" and not layout.remarks.search(sentence)
        ):
            return start
    return last


_DROPPED = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))
_BLOCK = re.compile(r"</?(?:p|br|div|li|ul|ol|tr|td|table|h\d)\b[^<>]*>", re.IGNORECASE)
_INLINE = re.compile(r"</?(?:span|b|i|u|strong|em|font)\b[^<>]*>", re.IGNORECASE)
_ESCAPED = re.compile(r"(?:\\r)?\\n|\\r|\\t")
_CUT_WORD = re.compile(r"\b([^\W\d_]{2,})-[ \t]*\n[ \t]*(?=[^\W\d_A-Z])")


def plain_text(text: str, language: Language = ENGLISH) -> str:
    """Plain text: HTML entities, tags and escapes decoded, compatibility characters normalised.

    Words that a hyphen divides at a line's end are joined.

    >>> plain_text("No effu-\\nsion &amp; no pneumo\u00adthorax.")
    'No effusion & no pneumothorax.'
    """
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _BLOCK.sub("\n", _INLINE.sub("", text))
    if "\\" in text:
        text = _ESCAPED.sub("\n", text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_DROPPED)
    text = re.sub(r"\r\n?|\u2028", "\n", text)
    text = re.sub(r"[\f\v\u2029]", "\n\n", text)
    if "-" not in text:
        return text
    compounds = _layout(language).compounds
    return _CUT_WORD.sub(lambda m: m[0] if m[1].lower() in compounds else m[1], text)


_BREAK = re.compile(
    r"(?P<stop>(?<=\S)[.!?]+[\"')\]]*)(?=\s|$)"  # a full stop before white space: "1.5 cm" has none
    r"|(?P<tight>(?<=[a-z)%])[.](?=[A-Z][a-z]))"  # a missing space: "clear.The heart"
    # a blank line, an item of a list, a label; a line that need not have ended there
    r"|(?P<line>\n[ \t\r]*(?:\n\s*|(?=[-*•·‣>+]\s*(?!year)[^\W_]|\d{1,2}[.)]\s*[^\W\d]|\(?[a-hA-H\d]\)|"
    r"[^\W\d_][A-Za-z /]{2,30}(?::|\s?=|\s-\s))))"
    r"|(?P<wrap>\n[ \t\r]*(?=\S))"
    r"|(?P<item>[;,]?\s(?=\(?\d{1,2}\)\s|\([a-h]\)\s|[b-h]\)\s))"  # "1) … 2) …" in one line
    r"|(?P<semi>;(?=\s))"
)
_MARK = re.compile(r"[.!?;\n]|,?\s(?=\(?(?:\d{1,2}|[a-h])\)\s)")
_LEAST_WIDTH = 60  # characters of a line, where a text is wrapped
_NO_WORD = re.compile(r"[^\w.]")
_LETTER = re.compile(r"\w")
_NEXT_WORD = re.compile(r"\s+([a-z]+)\b")
_STOP_INSIDE = re.compile(r"[^\W\d][.!?]\s+\S")
_ITEM = re.compile(r"\s*\(?(?:\d{1,2}|[a-hA-H])")
_INITIAL = re.compile(r"(?:\b(?:Dr|Mr|Mrs|Ms|Prof)\.?|\b[A-Z]\.) [A-Z]$")  # "Dr. J. Smith"
_LIST_MARK = re.compile(
    r"\s*(?:[-*•·‣>+]+(?=\s*[^\W_])|(?:\(?\d{1,2}[.)]|\(?[a-hA-H][.)])(?=\s|[^\W\d_]{2}))\s*"
)


def split_sentences(text: str, language: Language = ENGLISH) -> tuple[tuple[int, int], ...]:
    """Split text into sentences, as character offsets (start, end) without list marks.

    >>> text = "1. Nodule of 1.5 cm, told to Dr. Lee. 2. No effusion"
    >>> [text[start:end] for start, end in split_sentences(text)]
    ['Nodule of 1.5 cm, told to Dr. Lee.', 'No effusion']
    """
    return _sentences(text, _layout(language))


def _sentences(text: str, layout: _Layout) -> tuple[tuple[int, int], ...]:
    spans, start = [], 0
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
        return _is_deliberate(text, match, width, layout)
    goes_on = _NEXT_WORD.match(text, match.end())
    if match["stop"] == "." and goes_on and goes_on[1] in layout.continuations:  # "No evid. of effusion"
        return False
    if not match["stop"] or not match["stop"].startswith("."):
        return text[match.start() - 1 : match.start()] != "("  # "(?) effusion"
    before = text[max(start, match.start() - 16) : match.start()]
    if len(before) < 16 and _ITEM.fullmatch(before):  # "2." opens an item
        return False
    word = _NO_WORD.split(before)[-1].lower().rstrip(".")
    if word in layout.abbreviations or word in layout.at_sentence_ends:
        following = text[match.end() : match.end() + 9].lstrip()[:1]
        if word == "no":  # "No. 3", yet "Effusion? No. The heart …"
            return not following.isdigit()
        return word in layout.at_sentence_ends and (following.isupper() or not following)
    return not (before[-1:].isupper() and _INITIAL.search(before))


def _is_deliberate(text: str, match: re.Match[str], width: int, layout: _Layout) -> bool:
    """Whether a line break ends a sentence: the next word had room, and no phrase is cut.

    A line of one case shows no new sentence: where sentences have full stops it is taken to go on.
    """
    line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()].rstrip()
    following = text[match.end() :].split(maxsplit=1)[0]
    last = line.split()[-1:] or [""]
    is_open = last[0].lower().rstrip(".") in layout.open_ends or last[0].endswith((",", ":", "(", "/", "-"))
    if is_open or following.lower() in layout.continuations or len(line) + 1 + len(following) >= width:
        return False
    return (following[0].isupper() and not line.isupper()) or not _STOP_INSIDE.search(text)


def _trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Strip list mark and white space from a span; None if it has no word."""
    mark = _LIST_MARK.match(text, start, end)
    start = mark.end() if mark else start
    while start < end and text[start].isspace():
        start += 1
    while end > start and (text[end - 1].isspace() or text[end - 1] == ";"):
        end -= 1
    return (start, end) if _LETTER.search(text, start, end) else None
