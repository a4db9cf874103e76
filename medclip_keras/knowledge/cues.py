"""Cues: the phrases by which a report denies, doubts or dates a finding, from `tables/cues.toml`."""

import tomllib

from medclip_keras.knowledge import TABLES

_CONTENT = tomllib.loads((TABLES / "cues.toml").read_text(encoding="utf-8"))

# Kind of cue → phrases with the alternatives of `knowledge.aliases`.
KINDS: dict[str, tuple[str, ...]] = {
    kind: tuple(phrase.format(**_CONTENT["words"]) for phrase in phrases)
    for kind, phrases in _CONTENT["cues"].items()
}
# Words that mark the start of a clause: verbs, determiners, subjects.
CLAUSES: dict[str, frozenset[str]] = {name: frozenset(words) for name, words in _CONTENT["clauses"].items()}
