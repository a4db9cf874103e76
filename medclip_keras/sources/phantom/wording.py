"""The words of the phantom reports, read from `wording.json`.

In a sentence, `{noun}` is a finding alone, `{phrase}` a finding with severity, side and place, `{a_phrase}`
the same with its article, `{is}` the verb that agrees; `{also}` and `{third}` are further findings. A noun is
`singular|plural`; a noun without a plural is a mass noun and takes no article.
"""

import importlib.resources
import json

Entries = list[str]  # ways to say one thing; the position of an entry is part of the seed

_WORDING = json.loads((importlib.resources.files(__package__) / "wording.json").read_text(encoding="utf-8"))

NOUNS: dict[str, Entries] = _WORDING["nouns"]  # finding → its nouns where it is asserted
DENIED: dict[str, Entries] = _WORDING["denied"]  # finding → its nouns where it is denied
STATEMENTS: dict[str, Entries] = _WORDING["statements"]  # finding → sentences without its noun
NORMAL_STATEMENTS: dict[str, Entries] = _WORDING["normal_statements"]  # finding → sentences of the normal
DEVICES: dict[str, Entries] = _WORDING["devices"]  # kind of device → sentences
ZONES: dict[str, Entries] = _WORDING["zones"]
HEADINGS: dict[str, Entries] = _WORDING["headings"]
GRADES: dict[str, list[Entries]] = _WORDING["grades"]  # size, degree, adverb → slight, moderate, severe
SENTENCES: dict[str, Entries] = _WORDING["sentences"]
