"""Other labellers for `labels.py`.

negspaCy and medspaCy assign assertions to the mentions of our dictionary, each in a separate environment that
is created on first use (medspaCy needs another spaCy version).
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import venv
from collections.abc import Sequence

import numpy as np

from medclip_keras.knowledge.abbreviations import definitions
from medclip_keras.knowledge.assertion import NEGATIVE, POSITIVE, UNCERTAIN
from medclip_keras.knowledge.concepts import ConceptTable
from medclip_keras.knowledge.extractor import Extractor, Mention
from medclip_keras.knowledge.labeller import ReportLabeller
from medclip_keras.knowledge.sections import CONTENT_SECTIONS, Section, split_sentences

PEERS = {
    "negspacy": ("negspacy==1.1.0", "spacy>=3.8,<3.9", "numpy<2"),
    "medspacy": ("medspacy==1.3.1", "numpy<2", "setuptools<81"),  # brings spaCy 3.7
}
_WORKER = str(pathlib.Path(__file__).with_name("peer_worker.py"))


class PeerError(RuntimeError):
    """A peer cannot be installed or fails; the message is its last line."""


def python_of(peer: str, folder: pathlib.Path | None = None) -> str:
    """The interpreter of a peer's environment, created if missing; raises `PeerError`."""
    caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    environment = (folder or caches / "medclip_keras" / "benchmarks") / peer
    python, done = environment / "bin" / "python", environment / "installed"
    wanted = "\n".join(PEERS[peer])
    if not done.is_file() or done.read_text() != wanted:
        venv.create(environment, clear=True, with_pip=True)
        _run([str(python), "-m", "pip", "install", "--quiet", *PEERS[peer]], peer)
        _run([str(python), _WORKER, peer, "assert"], peer, "")
        done.write_text(wanted)
    return str(python)


def run_worker(peer: str, arguments: Sequence[str], text: str, folder: pathlib.Path | None = None) -> str:
    """Output of `peer_worker.py` for `text` in the peer's environment; raises `PeerError`."""
    return _run([python_of(peer, folder), _WORKER, peer, *arguments], peer, text)


def _run(command: Sequence[str], peer: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise PeerError(f"{peer} cannot be had: {lines[-1]}")
    return done.stdout


class _Nothing:
    """Scopes of a sentence without cues."""

    def assertion(self, start, end):
        return POSITIVE, None


class DictionaryOnly(Extractor):
    """Our dictionary without cues; only aliases of absence ("heart size is normal") are negative.

    The rule of a mention is the JSON of its parts' character offsets.
    """

    def _assert(self, candidate, scopes, offsets):
        mention = super()._assert(candidate, _Nothing(), offsets)
        parts = [(offsets[start][0], offsets[end - 1][1]) for start, end in candidate.parts]
        return mention._replace(rule=json.dumps(parts))


@dataclasses.dataclass(frozen=True)
class DictionaryReport:
    """A report's sentences, each with the dictionary's mentions."""

    report_id: str
    sentences: tuple[tuple[str, tuple[Mention, ...]], ...]


def dictionary_reports(
    table: ConceptTable, reports: Sequence[tuple[str, Sequence[Section]]]
) -> list[DictionaryReport]:
    """Sentences and dictionary mentions, the input of the peers."""
    extractor = DictionaryOnly(table)
    found = []
    for report_id, sections in reports:
        sentences, meanings = [], {}
        for section in sections:
            if section.name in CONTENT_SECTIONS:
                meanings.update(definitions(section.text))
                for start, end in split_sentences(section.text):
                    text = section.text[start:end]
                    mentions = extractor.sentence_mentions(text, section.name, 0, meanings)
                    sentences.append((text, tuple(mentions)))
        found.append(DictionaryReport(report_id, tuple(sentences)))
    return found


def assert_by_peer(
    peer: str, table: ConceptTable, reports: Sequence[DictionaryReport], folder: pathlib.Path | None = None
) -> dict[str, np.ndarray]:
    """Report id → (num_findings,) int8 states, by the peer's assertion; raises `PeerError`.

    A mention of several parts ("heart … enlarged") is negative if one part is: a cue may stand between them.
    """
    labeller = ReportLabeller(table)
    said = [(text, mentions) for report in reports for text, mentions in report.sentences]
    requests = [
        json.dumps({"text": text, "spans": [span for m in mentions for span in json.loads(m.rule)]})
        for text, mentions in said
    ]
    answers = run_worker(peer, ["assert"], "\n".join(requests), folder).splitlines()
    by_sentence = iter(zip(said, map(json.loads, answers), strict=True))
    states = {}
    for report in reports:
        mentions = []
        for _ in report.sentences:
            (_, own), assertions = next(by_sentence)
            mentions += _asserted(own, iter(assertions))
        states[report.report_id] = labeller.states(mentions)
    return states


def _asserted(mentions: Sequence[Mention], assertions) -> list[Mention]:
    asserted = []
    for mention in mentions:
        readings = [next(assertions) for _ in json.loads(mention.rule)]
        decided = next((r for r in (NEGATIVE, UNCERTAIN, *readings) if r in readings), POSITIVE)
        if mention.assertion == NEGATIVE:  # "heart size is not normal" says too little
            decided = "" if decided == NEGATIVE else NEGATIVE
        elif mention.assertion == UNCERTAIN and decided == POSITIVE:
            decided = UNCERTAIN
        if decided:
            asserted.append(mention._replace(assertion=decided))
    return asserted
