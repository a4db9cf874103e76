"""Precision and recall of spelling correction by threshold.

    python tests/benchmarks/linking.py [--concepts NAME or FILE] [--seed N]

Reads `$MEDCLIP_DATA` (Open-i reports of the tuning part, the words of BERT's vocabulary). Three tables:

1. By threshold, for the fewest edits (ours) and the highest cosine (scispaCy): recall over misspellings, and
   precision over misspellings and valid words, with and without the list of valid words. Each word of the
   dictionary is misspelled four times, three times by one edit and once by two.
2. Aliases with one misspelled word in "There is …" and "No …": found, and correctly asserted.
3. Mentions that linking adds to the tuning reports.

The list of valid words was written with these words in view: precision on other text is lower.
"""

import argparse
import os
import pathlib
import random
import sys

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from medclip_keras.knowledge.aliases import PRESENT, normalise, parse_alias, words_of
from medclip_keras.knowledge.concepts import NO_FINDING, load_table
from medclip_keras.knowledge.extractor import Extractor
from medclip_keras.knowledge.linking import ExactIndex, Linking
from medclip_keras.knowledge.sections import CONTENT_SECTIONS, split_sentences
from medclip_keras.knowledge.spelling import MIN_LETTERS, THRESHOLD, SpellingLinker
from medclip_keras.sources import openi

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from labels import is_tuning

_THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def misspell(word: str, rng: random.Random) -> str:
    """Apply one edit: swap neighbours, or drop, double or replace a letter."""
    k = rng.randrange(len(word))
    edits = [
        word[:k] + word[k + 1 :],
        word[: k + 1] + word[k:],
        word[:k] + rng.choice(_LETTERS) + word[k + 1 :],
    ]
    if k + 1 < len(word):
        edits.append(word[:k] + word[k + 1] + word[k] + word[k + 2 :])
    return rng.choice(edits)


def misspellings(words, rng: random.Random) -> list[tuple[str, str]]:
    """(spelling, word) pairs, four per word, without spellings that are valid words."""
    pairs = []
    for word in sorted(words):
        for num_edits in (1, 1, 1, 2):
            spelling = word
            for _ in range(num_edits):
                spelling = misspell(spelling, rng)
            if normalise(spelling) not in words:
                pairs.append((normalise(spelling), word))
    return pairs


def sentences_of_tuning(folder: pathlib.Path) -> list[str]:
    """The sentences of the tuning reports."""
    return [
        section.text[start:end]
        for row in openi.report_rows(str(folder / "openi" / "NLMCXR_reports_dev.tgz"))
        if is_tuning(row.report_id)
        for section in openi.read_report(row)
        if section.name in CONTENT_SECTIONS
        for start, end in split_sentences(section.text)
    ]


def best_by_each(words, spellings) -> list[tuple[tuple[str, float], tuple[str, float]]]:
    """(word, similarity) for each spelling, by fewest edits and by highest cosine of trigram vectors."""
    words, spellings = sorted(words), list(spellings)
    linker = SpellingLinker(words, threshold=min(_THRESHOLDS))
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3))
    index = ExactIndex(vectorizer.fit_transform(words))
    nearest = index.knnQueryBatch(vectorizer.transform(spellings), 1)
    best = []
    for spelling, (positions, distances) in zip(spellings, nearest, strict=True):
        by_cosine = [(words[k], 1 - distance) for k, distance in zip(positions, distances, strict=True)]
        best.append((linker.link(spelling), max(by_cosine, key=lambda one: one[1], default=("", 0.0))))
    return best


def print_by_threshold(words, pairs, negatives) -> None:
    """Print table 1."""
    known = SpellingLinker(words)
    lists = {"without the list": negatives, "with it": [w for w in negatives if not known.is_valid(w)]}
    print(f"{len(pairs)} misspellings of {len(words)} words; real words outside of the dictionary:")
    print("  " + ", ".join(f"{len(own)} {name}" for name, own in lists.items()))
    print(f"{'':10}" + "".join(f"{name:>34}" for name in ("fewest edits (ours)", "highest cosine")))
    print(f"{'threshold':10}" + f"{'recall':>12}{'P without':>11}{'P with it':>11}" * 2)
    of_pairs = best_by_each(words, [spelling for spelling, _ in pairs])
    of_lists = [best_by_each(words, own) for own in lists.values()]
    for threshold in _THRESHOLDS:
        line = f"{threshold:<10}"
        for measure in (0, 1):
            linked = [
                (best[measure][0] == word)
                for best, (_, word) in zip(of_pairs, pairs, strict=True)
                if best[measure][1] >= threshold
            ]
            right = sum(linked)
            false = [sum(best[measure][1] >= threshold for best in own) for own in of_lists]
            line += f"{right / len(pairs):12.3f}"
            line += "".join(f"{right / max(len(linked) + wrong, 1):11.3f}" for wrong in false)
        print(line)


def print_in_sentences(table, pairs, extractors) -> None:
    """Print table 2."""
    spellings: dict[str, list[str]] = {}
    for spelling, word in pairs:
        spellings.setdefault(word, []).append(spelling)
    cases = []
    for concept in table.concepts:
        aliases = [parse_alias(text) for text in (concept.name, *concept.aliases)]
        phrases = {p for a in aliases if a.role == PRESENT and len(a.parts) == 1 for p in a.parts[0]}
        for phrase in sorted(phrases)[:40] if concept.name != NO_FINDING else ():
            for word in words_of(phrase)[0]:
                cases += [(concept.name, phrase.replace(word, s)) for s in spellings.get(word, ())[:1]]
    print(f"\n{len(cases)} misspelled aliases in sentences: named, and with the right assertion")
    for name, extractor in extractors.items():
        for start, wanted in (("There is ", "positive"), ("No ", "negative")):
            said = [
                {m.assertion for m in extractor.mentions(f"{start}{text}.", "findings") if m.name == concept}
                for concept, text in cases
            ]
            named, right = np.mean([bool(s) for s in said]), np.mean([s == {wanted} for s in said])
            print(f"  {name:18} {start:10} {named:.3f} {right:.3f}")


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--concepts", default="chest21")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = pathlib.Path(os.environ.get("MEDCLIP_DATA", ""))
    if not (folder / "openi").is_dir():
        parser.error("`MEDCLIP_DATA` must be a folder that holds openi/ and bert_vocab/.")
    table, rng = load_table(arguments.concepts), random.Random(arguments.seed)
    plain, linking = Extractor(table), Extractor(table, linking=Linking())
    dictionary = plain.words
    words = {word for word in dictionary if len(word) >= MIN_LETTERS and word.isalpha()}
    pairs = misspellings(words, rng)
    sentences = sentences_of_tuning(folder)
    written = {word for sentence in sentences for word in words_of(sentence)[0]}
    written.update(normalise(word) for word in (folder / "bert_vocab" / "vocab.txt").read_text().split())
    negatives = sorted(w for w in written - dictionary if len(w) >= MIN_LETTERS and w.isalpha())
    print_by_threshold(words, pairs, negatives)
    print_in_sentences(table, pairs, {"dictionary": plain, "with linking": linking})
    linked = [
        m.rule for s in sentences for m in linking.mentions(s, "findings") if m.rule.startswith("linked")
    ]
    print(f"\n{len(sentences)} sentences of tuning reports: {len(linked)} mentions by linking at {THRESHOLD}")


if __name__ == "__main__":
    main()
