import pytest

from medclip_keras.knowledge.concepts import load_table
from medclip_keras.knowledge.extractor import Extractor


@pytest.fixture(scope="session")
def extractor() -> Extractor:
    """Over the shipped table of 21; it is slow to make."""
    return Extractor(load_table("chest21"))
