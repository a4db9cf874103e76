from collections.abc import Callable

import pytest

from medclip_keras.knowledge.concepts import load_table
from medclip_keras.knowledge.extractor import Extractor
from medclip_keras.knowledge.labeller import ReportLabeller


@pytest.fixture(scope="session")
def extractor() -> Extractor:
    """Over the shipped table of 21; it is slow to make."""
    return Extractor(load_table("chest21"))


@pytest.fixture(scope="session")
def labeller() -> ReportLabeller:
    """The same, for whole reports."""
    return ReportLabeller(load_table("chest21"))


@pytest.fixture(scope="session")
def said() -> Callable:
    """Findings of a text with their assertions: + there, - denied, ? open, < past or resolved."""
    signs = {"positive": "+", "negative": "-", "uncertain": "?", "historical": "<"}

    def read(extractor: Extractor, text: str) -> dict[str, str]:
        found = {}
        for mention in extractor.mentions(text, "findings"):
            found.setdefault(mention.name, set()).add(signs[mention.assertion])
        return {name: "".join(sorted(marks)) for name, marks in found.items()}

    return read
