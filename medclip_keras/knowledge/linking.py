"""Optional linking to the dictionary: misspelled words (`knowledge.spelling`), entities of a spaCy model.

Entities are linked by scispaCy (Neumann et al., BioNLP 2019): its `KnowledgeBase`, its `CandidateGenerator`
over TF-IDF vectors of character n-grams, and its `EntityLinker`. The index alone is our own: scispaCy's
refuses SciPy 1.11 and later, and misses exact aliases because it is approximate.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medclip_keras.errors import refusal, require
from medclip_keras.knowledge.spelling import THRESHOLD
from medclip_keras.knowledge.umls import knowledge_base_path

if TYPE_CHECKING:
    import spacy
    from scipy.sparse import csr_matrix
    from scispacy.candidate_generation import CandidateGenerator
    from scispacy.linking_utils import Entity

_NUM_CANDIDATES = 10
_NGRAMS = (2, 3)  # trigrams alone lose short words: "plueral" shares three of seven with "pleural"


@dataclass(frozen=True)
class Linking:
    """Settings of the linking (pickled for Beam workers).

    Args:
        threshold: least similarity of a spelling to a word of the dictionary: one minus edits by letters, in
            (0, 1]. With 0.8, one edit in five letters, two in ten.
        scispacy_model: name or folder of an installed spaCy model, such as `en_core_sci_sm`. Its entities are
            linked to the dictionary's phrases, where the cosine reaches the threshold.
        umls: aliases to add for the concepts of the table: a file in the form of scispaCy's knowledge bases
            (JSON lines), or "umls" for the one that scispaCy downloads and keeps.

    Raises:
        ValueError: a threshold outside of (0, 1].
    """

    threshold: float = THRESHOLD
    scispacy_model: str = ""
    umls: str = ""

    def __post_init__(self) -> None:
        require(0 < self.threshold <= 1, "threshold", "in (0, 1]", self.threshold)

    def resources(self) -> dict[str, str]:
        """Path of the knowledge base, name and version of the model: a job is repeated when they change.

        Raises:
            ValueError: a knowledge base or model that does not exist; call this before any work.
        """
        model = _load_model(self.scispacy_model).meta if self.scispacy_model else {}
        return {
            "umls": str(knowledge_base_path(self.umls)) if self.umls else "",
            "scispacy_model": f"{model['lang']}_{model['name']} {model['version']}" if model else "",
        }


class LinkedEntity(NamedTuple):
    """An entity, sentence[start:end], linked to a phrase of the dictionary."""

    start: int
    end: int
    phrase: str
    similarity: float


class ExactIndex:
    """Exact nearest rows by cosine of sparse float32 (num_aliases, num_ngrams), with nmslib's interface."""

    def __init__(self, vectors: "csr_matrix"):
        self._vectors = vectors.T.tocsr()

    def knnQueryBatch(  # noqa: N802, nmslib's name
        self, queries: "csr_matrix", k: int
    ) -> list[tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]]:
        """(positions, cosine distances) of up to k rows a query, nearest first, earlier rows before later."""
        found = []
        for row in (queries @ self._vectors).tocsr():
            order = np.lexsort((row.indices, -row.data))[:k]
            found.append((row.indices[order], 1 - row.data[order]))
        return found


def candidate_generator(entities: Iterable["Entity"]) -> "CandidateGenerator":
    """scispaCy's candidate generator over a knowledge base of these entities, with an exact index.

    N-grams are hashed, so those that no alias has count too: they make a text less like every alias.
    """
    from scispacy.candidate_generation import CandidateGenerator
    from scispacy.linking_utils import KnowledgeBase
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.pipeline import make_pipeline

    base = KnowledgeBase(list(entities))
    aliases = sorted(base.alias_to_cuis)  # its own order differs from process to process
    ngrams: dict[str, Any] = {"analyzer": "char_wb", "ngram_range": _NGRAMS, "dtype": np.float32}
    vectorizer = make_pipeline(
        HashingVectorizer(**ngrams, norm=None, alternate_sign=False), TfidfTransformer()
    )
    return CandidateGenerator(ExactIndex(vectorizer.fit_transform(aliases)), vectorizer, aliases, base)


class EntityLinker:
    """Links the entities of a spaCy model to the dictionary's phrases, with scispaCy's own linker.

    `phrases` are by CUI, `threshold` is the least cosine.

    Raises:
        ValueError: no such model, or one that finds no entities.
    """

    def __init__(self, model: str, phrases: Mapping[str, Sequence[str]], threshold: float = THRESHOLD):
        from scispacy.linking import EntityLinker
        from scispacy.linking_utils import Entity

        self._model = _load_model(model)
        self._linker = EntityLinker(
            candidate_generator=candidate_generator(
                Entity(c, own[0], list(own)) for c, own in phrases.items()
            ),
            k=_NUM_CANDIDATES,
            threshold=threshold,
            filter_for_definitions=False,
            max_entities_per_mention=1,
        )

    def entities(self, sentence: str) -> list[LinkedEntity]:
        """The entities of a sentence whose cosine to a phrase reaches the threshold."""
        found = []
        with self._model.memory_zone():  # words that are seen once are not kept
            for entity in self._linker(self._model(sentence)).ents:
                for cui, near in entity._.kb_ents:
                    phrase = self._nearest_phrase(entity.text.lower(), cui)
                    found.append(LinkedEntity(entity.start_char, entity.end_char, phrase, float(near)))
        return found

    def _nearest_phrase(self, text: str, cui: str) -> str:
        """The phrase of a concept that is nearest to a text."""
        (candidates,) = self._linker.candidate_generator([text], _NUM_CANDIDATES)
        nearest = next(candidate for candidate in candidates if candidate.concept_id == cui)
        return str(nearest.aliases[int(np.argmax(nearest.similarities))])


def _load_model(name: str) -> "spacy.Language":
    import spacy

    try:
        model = spacy.load(name)
    except (OSError, ImportError) as error:
        advice = f"Install it as scispaCy's page says ({type(error).__name__}), or leave it out."
        raise refusal("scispacy_model", "an installed spaCy model or its folder", name, advice) from None
    finds = {"ner", "entity_ruler", "span_ruler"}.intersection(model.pipe_names)
    require(bool(finds), "scispacy_model", "a model that finds entities", f"{name}, {model.pipe_names}")
    return model
