"""A report cut in pieces, and mentions given to the sections that they come from."""

from medclip_keras.knowledge.explain import explain, pieces, scope_words
from medclip_keras.knowledge.extractor import Mention
from medclip_keras.knowledge.sections import Section


def mention_of(text: str, words: str, cue: str = "", scope: str = "") -> Mention:
    def span(part):
        return (text.index(part), text.index(part) + len(part)) if part else None

    return Mention(
        "C0000001", words, "findings", *span(words), "negative", cue, "rule", span(cue), span(scope)
    )


def test_pieces_add_up_and_cover_mentions_cues_and_scopes():
    text = "No left effusion or mass, none."
    mentions = [
        mention_of(text, "left effusion", "No", "left effusion or mass"),
        mention_of(text, "effusion or mass", "none", "left effusion or mass"),
    ]
    mentions = dict(enumerate(mentions, start=7))
    found = pieces(text, mentions)
    assert "".join(piece.text for piece in found) == text

    def words(kind, number):
        return "".join(piece.text for piece in found if number in getattr(piece, kind))

    for number, mention in mentions.items():
        assert words("mentions", number) == mention.name
        assert words("cues", number) == mention.cue
        assert words("scopes", number) == "left effusion or mass"
    assert [piece.text for piece in found if piece.mentions == (7, 8)] == ["effusion"]


def test_text_without_mentions_is_one_piece_and_no_text_is_none():
    assert [piece.text for piece in pieces("Clear.", {})] == ["Clear."]
    assert pieces("", {}) == []


def test_same_named_sections_keep_separate_mentions(labeller):
    # The second one's mention stands further on than the first one's, so offsets alone would not tell.
    sections = [
        Section("findings", "Effusion. The catheter tip is where it was before this."),
        Section("indication", "Edema."),
        Section("findings", "In the left lung there is one nodule."),
    ]
    report = explain(labeller, sections)
    said = [
        [section.text[m.start : m.end] for m in mentions]
        for section, mentions in zip(sections, report.mentions, strict=True)
    ]
    assert (said[0][0], said[1], said[2]) == ("Effusion", [], ["nodule"])
    assert [number for _, own in report.numbered for number in own] == [*range(1, 1 + sum(map(len, said)))]


def test_findings_follow_the_table_order(labeller):
    report = explain(
        labeller, [Section("findings", "No effusion. Possible edema. Edema has resolved. Nodule.")]
    )
    assert report.findings == {"Edema": "uncertain", "Pleural Effusion": "negative", "Nodule": "positive"}
    assert list(report.findings) == [n for n in labeller.table.names if n in report.findings]


def test_scope_words_are_the_text_of_the_scope(labeller):
    section = Section("findings", "No effusion or edema; nodule.")
    [mentions] = explain(labeller, [section]).mentions
    assert [scope_words(section, m) for m in mentions] == ["effusion or edema", "effusion or edema", ""]
