"""Reports as HTML: what stands where, that overlaps show, and that nothing of a report becomes markup."""

import importlib.resources
import re
from html.parser import HTMLParser

import pytest

from medclip_keras.knowledge.assertion import ASSERTIONS
from medclip_keras.knowledge.explain import Explained, explain
from medclip_keras.knowledge.extractor import Mention
from medclip_keras.knowledge.render import highlight, render_page
from medclip_keras.knowledge.sections import Section, split_sections

REPORT = """INDICATION: <script>alert("1")</script> & cough.
FINDINGS: The heart is enlarged. No <q>effusion</q>, "edema" or $pneumothorax seen.
Possible nodule < 3 mm. Previously seen consolidation has resolved."""


@pytest.fixture(scope="module")
def report(labeller) -> Explained:
    return explain(labeller, split_sections(REPORT))


class Elements(HTMLParser):
    """Runs of text with the elements around them, and every tag."""

    EMPTY = ("meta", "br", "wbr")

    def __init__(self, page: str):
        super().__init__()
        self.open, self.runs, self.tags = [], [], []
        self.feed(page)
        self.close()
        assert not self.open, "every element is closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        self.runs.append((data, tuple(self.open)))

    def text(self, wanted) -> str:
        """The report's words in elements with a class or of a tag; signs and explanations left out."""
        return "".join(
            data
            for data, around in self.runs
            if any(tag == wanted or wanted in attrs.get("class", "").split() for tag, attrs in around)
            and any(tag == "p" for tag, _ in around)
            and not any(tag == "sup" or attrs.get("class") == "tip" for tag, attrs in around)
        )


def test_page_contains_the_report_once_and_escaped(report):
    page = Elements(render_page(report))
    said = "".join(section.text for section in report.sections)
    assert page.text("medclip-report") == said
    assert "<q>effusion</q>" in said
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1  # the page's own
    assert tags.count("b") == 1  # of the page's own note


def test_marks_cues_and_scopes_are_the_mentions(report):
    page = Elements(render_page(report))
    numbered = [(number, section, m) for section, own in report.numbered for number, m in own.items()]
    assert len(numbered) == 6
    for number, section, mention in numbered:
        assert page.text(f"m{number}") == section.text[mention.start : mention.end]
        assert page.text(f"c{number}").lower() == mention.cue
        assert page.text(f"s{number}") == section.text[slice(*(mention.scope or (0, 0)))]
    assert page.text("cue") == "NoPossiblehas resolved"
    by_assertion = {a: page.text(a) for a in ASSERTIONS}
    assert by_assertion == {
        "positive": "heart is enlarged",
        "negative": "effusionedemapneumothorax",
        "uncertain": "nodule",
        "historical": "consolidation",
    }


def test_every_mention_has_keyboard_focus_and_a_label(report):
    page = render_page(report)
    marks = [attrs for _, attrs in Elements(page).tags if attrs.get("tabindex") == "0"]
    assert len(marks) == 6
    label = next(attrs["aria-label"] for attrs in marks if "m3" in attrs["class"].split())
    assert label.startswith(
        '3 Edema (C0034063): negative cue: no reaches: <q>effusion</q>, "edema" or $pneumothorax'
    )
    assert "rule: Edema" in label
    for number in range(1, 7):
        for kind in "sc":
            assert f".medclip-report:has(.m{number}:is(:hover,:focus)) .{kind}{number}{{" in page


def test_overlapping_mentions_have_both_marks_and_signs():
    text = "left effusion mass here"
    mentions = (
        Mention("C0000001", "One", "findings", 0, 13, "negative", "", "one"),  # left effusion
        Mention("C0000002", "Two", "findings", 5, 18, "uncertain", "", "two"),  # effusion mass
        Mention("C0000003", "Three", "findings", 19, 23, "positive", "", "three"),  # here
        Mention("C0000004", "Four", "findings", 19, 23, "historical", "", "four"),  # the same words
    )
    page = highlight([Section("findings", text)], mentions)
    found = Elements(page)
    assert found.text("m1") == "left effusion"
    assert found.text("m2") == "effusion mass"
    assert found.text("negative") == "left effusion"
    assert found.text("uncertain") == "effusion mass"
    assert found.text("positive") == found.text("historical") == "here"
    signs = [data for data, around in found.runs if around and around[-1][0] == "sup"]
    assert signs == ["1−", "1− 2?", "2?", "3+ 4past"]
    assert found.text("medclip-report") == text


def test_highlight_assigns_mentions_to_same_named_sections(labeller):
    sections = [Section("findings", "Nodule."), Section("findings", "Nothing else but an effusion.")]
    page = Elements(highlight(sections, labeller.label(sections).mentions))
    assert (page.text("m1"), page.text("m2")) == ("Nodule", "effusion")


def test_assertions_differ_by_underline_style():
    css = (importlib.resources.files("medclip_keras.knowledge") / "report.css").read_text()
    default = re.search(r"\.mention mark \{[^}]*text-decoration: underline", css)
    styles = {a: re.search(rf"mark\.{a} \{{[^}}]*text-decoration-style: (\w+)", css) for a in ASSERTIONS}
    lines = [match[1] if match else "solid" for match in styles.values()]
    assert default
    assert len(set(lines)) == len(ASSERTIONS)


def test_page_has_no_links_and_styles_dark_mode_and_print(report):
    page = render_page(report)
    assert not re.search(r"https?:|src=|url\(|@import|<link", page)
    for needed in ("color-scheme: light dark", "@media (prefers-color-scheme: dark)", "@media print"):
        assert needed in page


def test_page_has_tables_of_findings_and_mentions(labeller):
    report = explain(
        labeller, split_sections("The lungs are clear. The heart is normal in size. No effusion.")
    )
    page = render_page(report)
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr>(.*?)</tr>", page)]
    assert ["positive", "+", "No", "Finding", "by", "rule"] in rows
    assert ["negative", "−", "Pleural", "Effusion", "3"] in rows
    assert any(row[:6] == ["3−", "Pleural", "Effusion", "C0032227", "effusion", "body"] for row in rows)


def test_a_report_without_findings_says_so(labeller):
    page = render_page(explain(labeller, split_sections("Film of good quality.")))
    assert page.count("<p>None.</p>") == 2


def test_highlight_marks_escapes_and_refuses_mentions_of_other_sections(labeller):
    sections = [Section("findings", "Nodule < 3 mm; no effusion.")]
    mentions = labeller.label(sections).mentions
    page = highlight(sections, mentions)
    assert "&lt; 3 mm" in page
    assert page.count('tabindex="0"') == 2
    assert 'aria-label="2 Pleural Effusion (C0032227): negative cue: no' in page
    with pytest.raises(ValueError, match=r"`mentions` must be of these sections.*'findings' at 0") as error:
        highlight([Section("impression", "Nodule.")], mentions)
    assert "Nodule" not in str(error.value)
