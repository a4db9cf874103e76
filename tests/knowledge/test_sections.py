import itertools

import pytest

from medclip_keras.knowledge.sections import split_sections, split_sentences


def sections(text):
    return [(section.name, section.text) for section in split_sections(text)]


def sentences(text):
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # headings on lines of their own, in upper and mixed case, with and without a colon
        (
            "FINDINGS\nThe heart is large.\n\nImpression:\nBig heart.\n",
            [("findings", "The heart is large."), ("impression", "Big heart.")],
        ),
        # all on one line
        (
            "Clinical history: Cough. Findings: Clear lungs. Conclusion: Normal.",
            [("indication", "Cough."), ("findings", "Clear lungs."), ("impression", "Normal.")],
        ),
        # no full stop before an upper-case heading
        ("FINDINGS: Clear lungs IMPRESSION: Normal", [("findings", "Clear lungs"), ("impression", "Normal")]),
        # upper-case heading without a colon
        ("IMPRESSION No change.", [("impression", "No change.")]),
        # an upper-case report
        ("HISTORY: PAIN.\nIMPRESSION: NO CHANGE.", [("indication", "PAIN."), ("impression", "NO CHANGE.")]),
        # no headings at all
        ("The heart is large. No effusion.", [("body", "The heart is large. No effusion.")]),
        # text without heading after a heading that is not about findings
        (
            "INDICATION: Pain.\n\nThe heart is large.\n\nIMPRESSION: Big heart.",
            [("indication", "Pain."), ("body", "The heart is large."), ("impression", "Big heart.")],
        ),
        # what stands before the findings is not a finding
        ("Two views.\nFINDINGS: Clear.", [("preamble", "Two views."), ("findings", "Clear.")]),
        # labels of organs stay inside the findings
        (
            "FINDINGS: LUNGS: Clear. HEART: Large.\nBones: Intact.",
            [("findings", "LUNGS: Clear. HEART: Large.\nBones: Intact.")],
        ),
        # a sentence that only begins like a heading
        ("The findings are stable.", [("body", "The findings are stable.")]),
        ("FINDINGS AND IMPRESSION: Clear.", [("findings", "Clear.")]),
        (
            "RECOMMENDATION(S): Repeat. FINDING(S): Mass.",
            [("recommendation", "Repeat."), ("findings", "Mass.")],
        ),
        # no heading for findings or impression: a new line in upper case leaves the indication
        ("Hx: Pain.\nLarge heart.", [("indication", "Pain."), ("body", "Large heart.")]),
        (
            "HISTORY: Pain.\nFever.\nIMPRESSION: Large heart.",
            [("indication", "Pain.\nFever."), ("impression", "Large heart.")],
        ),
        ("HISTORY: Pain,\nfever.", [("indication", "Pain,\nfever.")]),
        ("FINDINGS:\nIMPRESSION: Normal.", [("impression", "Normal.")]),
        ("FINDINGS: ...", []),
        ("", []),
    ],
)
def test_sections_are_found(text, expected):
    assert sections(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Nodule of 1.5 cm. No effusion.", ["Nodule of 1.5 cm.", "No effusion."]),
        ("Told to Dr. Lee at 5 p.m. today. Clear.", ["Told to Dr. Lee at 5 p.m. today.", "Clear."]),
        ("Told to Dr. J. Lee. Clear.", ["Told to Dr. J. Lee.", "Clear."]),
        ("1. Large heart.\n2. No effusion.", ["Large heart.", "No effusion."]),
        ("1. Large heart. 2. No effusion.", ["Large heart.", "No effusion."]),
        ("1) Large heart 2) No effusion", ["Large heart", "No effusion"]),
        ("- Large heart\n- No effusion", ["Large heart", "No effusion"]),
        ("The heart is\nlarge. Lungs are\nclear.", ["The heart is\nlarge.", "Lungs are\nclear."]),
        ("Large heart\n\nNo effusion", ["Large heart", "No effusion"]),
        # a line that ends early ends its sentence, unless it cannot end there
        ("No effusion\nLarge heart", ["No effusion", "Large heart"]),
        ("NO EFFUSION\nLARGE HEART", ["NO EFFUSION", "LARGE HEART"]),
        ("Large heart\nand mass", ["Large heart\nand mass"]),
        ("No effusion or\nPneumothorax", ["No effusion or\nPneumothorax"]),
        ("Told to\nDr. Lee", ["Told to\nDr. Lee"]),
        ("Heart, lungs,\nBones: clear", ["Heart, lungs,", "Bones: clear"]),
        (
            "No evidence of any effusion, consolidation, large mass or\nother disease. "
            "Clear lungs in the long run of\nYears of follow-up.",
            [
                "No evidence of any effusion, consolidation, large mass or\nother disease.",
                "Clear lungs in the long run of\nYears of follow-up.",
            ],
        ),
        ("(?) small effusion. Clear.", ["(?) small effusion.", "Clear."]),
        # no room for the next word
        (
            "The views of today show no sign of either consolidation\nPneumothorax.",
            ["The views of today show no sign of either consolidation\nPneumothorax."],
        ),
        ("LARGE HEART. NO EFFUSION.", ["LARGE HEART.", "NO EFFUSION."]),
        ("large heart. no effusion.", ["large heart.", "no effusion."]),
        ("Lungs are clear.The heart is large.", ["Lungs are clear.", "The heart is large."]),
        ("Atelectasis vs. scar. Clear.", ["Atelectasis vs. scar.", "Clear."]),
        ("Large heart; no effusion", ["Large heart", "no effusion"]),
        ("Effusion? No. Heart normal.", ["Effusion?", "No.", "Heart normal."]),
        ("? small effusion.", ["? small effusion."]),
        ("Ends at T12. Clear.", ["Ends at T12.", "Clear."]),
        (" \n. ", []),
    ],
)
def test_sentences_are_found(text, expected):
    assert sentences(text) == expected


def test_sentences_do_not_overlap_and_keep_all_words():
    text = "1. Heart: large, 1.5 times. Seen by Dr. Wu.\n\n- Lungs clear;no mass!  b) Stop"
    spans = split_sentences(text)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
    kept = "".join(text[start:end] for start, end in spans)
    assert [w for w in ("large", "1.5", "Wu", "clear", "mass", "Stop") if w not in kept] == []


def test_title_does_not_start_a_section():
    paragraph = " FINAL REPORT\n The lungs are clear. The heart is large.\n"
    assert sections(paragraph) == [("body", "The lungs are clear. The heart is large.")]
    with_findings = " FINAL REPORT\n PORTABLE CHEST\n\n FINDINGS:  Small effusion.\n"
    assert sections(with_findings) == [("preamble", "PORTABLE CHEST"), ("findings", "Small effusion.")]


def test_wet_read_does_not_replace_the_final_findings():
    text = "WET READ: No effusion.\n FINAL REPORT\n INDICATION: Cough.\n\n Large effusion.\n"
    assert sections(text) == [
        ("findings", "No effusion."), ("indication", "Cough."), ("body", "Large effusion."),
    ]  # fmt: skip
