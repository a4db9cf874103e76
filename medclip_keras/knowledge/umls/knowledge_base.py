"""Further aliases from UMLS, in the files of scispaCy's knowledge bases; users bring or download them."""

import json
from collections.abc import Iterable

from etils import epath

from medclip_keras.errors import refusal, require
from medclip_keras.knowledge.umls.cleaning import clean

SCISPACY_UMLS = "umls"  # the knowledge base that scispaCy downloads, and keeps below the home folder


def knowledge_base_aliases(name_or_path: str, cuis: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Aliases of given concepts in a scispaCy knowledge base, read line by line.

    Returns:
        CUI → aliases in lower case that only this concept has, as `umls.cleaning` leaves them.

    Raises:
        ValueError: no such file, or a line that is not an entity.
    """
    from scispacy.linking_utils import Entity, KnowledgeBase

    entities, path, wanted = [], knowledge_base_path(name_or_path), frozenset(cuis)
    with path.open() as lines:
        for number, line in enumerate(lines, start=1):
            try:
                entity = Entity(**json.loads(line))
            except (json.JSONDecodeError, TypeError) as error:
                received = f"line {number} of {path.name!r} ({type(error).__name__})"
                fields = "JSON lines with concept_id, canonical_name and aliases"
                raise refusal("umls", fields, received) from None
            if entity.concept_id in wanted:
                entities.append(entity)
    aliases: dict[str, list[str]] = {}
    for alias, owners in sorted(KnowledgeBase(entities).alias_to_cuis.items()):
        cleaned, _ = clean(alias)
        if len(owners) == 1 and cleaned:
            aliases.setdefault(next(iter(owners)), []).append(cleaned.lower())
    return {cui: tuple(dict.fromkeys(own)) for cui, own in aliases.items()}


def knowledge_base_path(name_or_path: str) -> epath.Path:
    """The file of a knowledge base; "umls" is downloaded by scispaCy at the first use.

    Raises:
        ValueError: no such file, or a download that failed.
    """
    if name_or_path == SCISPACY_UMLS:
        from scispacy.file_cache import cached_path
        from scispacy.linking_utils import DEFAULT_UMLS_PATH

        try:
            return epath.Path(cached_path(DEFAULT_UMLS_PATH))
        except OSError as error:  # of requests: no network, or refused
            advice = f"scispaCy could not download it ({type(error).__name__}): give a file of yours."
            raise refusal("umls", "a knowledge base that scispaCy keeps", name_or_path, advice) from None
    path = epath.Path(name_or_path)
    require(path.is_file(), "umls", "a .jsonl file that exists, or 'umls'", name_or_path)
    return path
