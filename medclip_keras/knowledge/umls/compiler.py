"""A vocabulary → a concept table: concepts, aliases, parents, and counts of dropped names.

An alias that several concepts claim belongs to the concept whose preferred name it is, if there is exactly
one, and else to none. Concepts that were not selected claim theirs too: "cold" is no common cold where the
vocabulary has a cold temperature.

A closure over parents reads a child as its parent. So edges that close a circle are dropped, and parents that
were not kept pass their own parents on.

No Finding, which labeller and evaluation need, is no term of UMLS that a report states: the row of `chest21`
with its phrases comes first in the table. Support Devices of `chest21` becomes the parent of medical devices
(T074, T075, T203 in MRSTY), so that a device leaves a chest normal.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medclip_keras.errors import refusal, require
from medclip_keras.knowledge.aliases import parse_alias
from medclip_keras.knowledge.concepts import NO_FINDING, SUPPORT_DEVICES, ConceptTable, load_table
from medclip_keras.knowledge.table_checks import Concept
from medclip_keras.knowledge.umls.cleaning import clean, key_of
from medclip_keras.knowledge.umls.hierarchy import Hierarchy, Marks, marks
from medclip_keras.knowledge.umls.vocabulary import NUM_CUIS, Term, Vocabulary, cui_of, node_of_cui

MAX_SHARE, MIN_BELOW = (
    0.25,
    100,
)  # a concept above more than this share and number of the others is too general


@dataclass(frozen=True, order=True)
class _Alias:
    """An alias; the least one of a concept is its name."""

    language: int
    rank: int  # 0: the vocabulary's preferred name
    length: int
    text: str


Aliases = dict[str, _Alias]  # by key: the words that match


def compile_table(
    name: str, vocabulary: Vocabulary, roots: Sequence[str] = (), semantic_types: Sequence[str] = ()
) -> ConceptTable:
    """Compile the concepts below some roots, or of some semantic types, or both; else all of the vocabulary.

    The vocabulary's `account` counts what was kept and dropped: "aliases", "concepts", "parents".

    Raises:
        ValueError: an unknown root or type, a file that cannot be read, or no concept that is left.
    """
    hierarchy, top = vocabulary.hierarchy(), _nodes_of_roots(vocabulary, roots)
    selected = _selected(vocabulary, hierarchy, top, semantic_types)
    devices = vocabulary.devices().intersection(np.flatnonzero(selected).tolist())
    shipped = {concept.name: replace(concept, parents=()) for concept in load_table("chest21").concepts}
    own_rows = [shipped[name] for name in (NO_FINDING, *([SUPPORT_DEVICES] if devices else []))]
    wanted = set(np.flatnonzero(selected).tolist()).difference(node_of_cui(row.cui) for row in own_rows)
    aliases = usable_aliases(vocabulary, wanted, set(_keys_of(shipped[NO_FINDING])))
    counts = vocabulary.account["concepts"] = Counter(selected=len(wanted))
    counts["left out: no alias is left"] = len(wanted) - len(aliases)
    near = _parents(vocabulary, hierarchy, aliases)
    if general := _too_general(near, len(aliases)) - top:
        counts["left out: above a quarter of the others"] = len(general)
        aliases = {node: own for node, own in aliases.items() if node not in general}
        near = _parents(vocabulary, hierarchy, aliases)
    require(bool(aliases), "concepts", "some that are left", dict(vocabulary.account))
    counts["kept, with rows of chest21"] = len(aliases) + len(own_rows)
    return ConceptTable(name, (*_unclaimed(own_rows, aliases), *_rows(vocabulary, aliases, near, devices)))


def extend_table(base: ConceptTable, vocabulary: Vocabulary) -> ConceptTable:
    """The concepts, names and parents of a table, with the vocabulary's aliases after its own.

    An alias with the words of any alias of the table, excluded ones too, is left to the table.
    """
    positions = {
        node: position
        for position, concept in enumerate(base.concepts)
        for cui in (concept.cui, *concept.equivalents)
        if (node := node_of_cui(cui)) is not None and concept.name != NO_FINDING
    }
    reserved = {key for concept in base.concepts for key in _keys_of(concept)}
    further: dict[int, list[_Alias]] = defaultdict(list)
    for owner, own in usable_aliases(vocabulary, set(positions), reserved, positions).items():
        further[positions[owner]] += own
    concepts = tuple(
        replace(concept, aliases=concept.aliases + tuple(alias.text for alias in sorted(further[position])))
        for position, concept in enumerate(base.concepts)
    )
    vocabulary.account["concepts"] = Counter(kept=len(concepts), extended=sum(map(bool, further.values())))
    return ConceptTable(base.name, concepts)


def usable_aliases(
    vocabulary: Vocabulary,
    wanted: Collection[int],
    reserved: Collection[str] = (),
    owners: Mapping[int, int] | None = None,
) -> dict[int, list[_Alias]]:
    """Aliases of each wanted node that has one, the name first; dropped ones are counted by reason.

    `reserved` are keys that no node may claim; nodes of one owner share their aliases.
    """
    counts: Counter[str] = Counter()
    found: dict[int, Aliases] = {}
    for term in vocabulary.terms(wanted):
        counts["read"] += 1
        _add(found.setdefault(term.node, {}), term, counts)
    vocabulary.account["aliases"] = counts
    foreign = _claimed_by_others(vocabulary, found, wanted)
    claims: dict[str, list[tuple[int, int]]] = defaultdict(list)  # key → rank and node
    for node, own in found.items():
        for key, alias in own.items():
            claims[key].append((alias.rank, node))
    usable: dict[int, list[_Alias]] = defaultdict(list)
    for key, claimants in claims.items():
        if key in reserved:
            counts["dropped: words of the table's own rows"] += len(claimants)
        elif winners := _winners(claimants, owners or {}, key in foreign):
            counts["dropped: ambiguous, of several concepts"] += len(claimants) - len(winners)
            counts["kept"] += 1
            usable[min(winners)].append(found[min(winners)][key])
        else:
            counts["dropped: ambiguous, of several concepts"] += len(claimants)
    return {node: sorted(own) for node, own in sorted(usable.items())}


def _add(own: Aliases, term: Term, counts: Counter[str]) -> None:
    alias, reason = clean(term.text)
    if reason:
        counts[f"dropped: {reason}"] += 1
        return
    key, one = key_of(alias), _Alias(term.language, int(not term.preferred), len(alias), alias)
    counts["dropped: plural, inversion or spelling of another"] += key in own
    own[key] = min(own.get(key, one), one)


def _claimed_by_others(
    vocabulary: Vocabulary, found: Mapping[int, Aliases], wanted: Collection[int]
) -> set[str]:
    """Keys of aliases that concepts have that are not wanted."""
    texts = {alias.text.encode().lower(): key for own in found.values() for key, alias in own.items()}
    return {texts[text] for text in vocabulary.claims_of_others(wanted, texts)}


def _winners(claimants: Sequence[tuple[int, int]], owners: Mapping[int, int], foreign: bool) -> list[int]:
    """Nodes of the only claimant, or of the only one whose preferred name an alias is; else none."""
    preferred = [claim for claim in claimants if claim[0] == 0]
    for some in (preferred,) if foreign else (claimants, preferred):
        nodes = [node for _, node in some]
        if len({owners.get(node, node) for node in nodes}) == 1:
            return nodes
    return []


def _nodes_of_roots(vocabulary: Vocabulary, roots: Iterable[str]) -> set[int]:
    nodes = set()
    for root in roots:
        node = vocabulary.node_of(root)
        if node is None:
            raise refusal("--roots", "CUIs, or identifiers of the .obo file", root)
        nodes.add(node)
    return nodes


def _selected(
    vocabulary: Vocabulary, hierarchy: Hierarchy, top: set[int], semantic_types: Sequence[str]
) -> Marks:
    """Marks of the selected nodes that have a CUI."""
    num_nodes = vocabulary.num_nodes
    selected = np.ones(num_nodes, bool)
    if top:
        roots = marks(top, num_nodes)
        below = hierarchy.within(hierarchy.below(roots))  # with every circle that a node of it is part of
        selected &= below.without_circles().below(roots)
    if semantic_types:
        selected &= marks(vocabulary.of_semantic_types(semantic_types), num_nodes)
    if not top and not semantic_types:  # of an ontology
        selected = marks([*hierarchy.children.tolist(), *hierarchy.parents.tolist()], num_nodes)
    selected[NUM_CUIS:] = False
    return selected


def _parents(
    vocabulary: Vocabulary, hierarchy: Hierarchy, kept: Collection[int]
) -> dict[int, tuple[int, ...]]:
    """The nearest kept ancestors of each kept node."""
    wanted = marks(kept, vocabulary.num_nodes)
    edges = hierarchy.within(hierarchy.above(wanted))
    open_edges = edges.without_circles()
    near = open_edges.nearest(wanted)
    vocabulary.account["parents"] = Counter(
        {
            "kept": sum(map(len, near.values())),
            "dropped: edges that close a circle": len(edges.children) - len(open_edges.children),
        }
    )
    return near


def _too_general(near: Mapping[int, Sequence[int]], num_concepts: int) -> set[int]:
    """Nodes above more than a quarter of all, at least a hundred: labels that all share."""
    above: dict[int, frozenset[int]] = {}
    for node in near:  # parents first
        above[node] = frozenset(near[node]).union(*(above[parent] for parent in near[node]))
    counts = Counter(ancestor for own in above.values() for ancestor in own)
    return {node for node, below in counts.items() if below > max(MIN_BELOW, MAX_SHARE * num_concepts)}


def _keys_of(concept: Concept) -> Iterator[str]:
    """Keys of all phrases of a row, whatever their role."""
    for alias in map(parse_alias, (concept.name, *concept.aliases)):
        if len(alias.parts) == 1:
            yield from map(key_of, alias.parts[0])


def _unclaimed(rows: Iterable[Concept], aliases: Mapping[int, Sequence[_Alias]]) -> Iterator[Concept]:
    """Rows without the phrases that are aliases of compiled concepts."""
    claimed = {key_of(alias.text) for own in aliases.values() for alias in own}
    for row in rows:
        own: list[str] = []
        for alias in map(parse_alias, row.aliases):
            if len(alias.parts) > 1 or claimed.isdisjoint(map(key_of, alias.parts[0])):
                own.append(alias.text)
            else:
                own += [phrase for phrase in alias.parts[0] if key_of(phrase) not in claimed]
        yield replace(row, aliases=tuple(own))


def _rows(
    vocabulary: Vocabulary,
    aliases: Mapping[int, Sequence[_Alias]],
    near: Mapping[int, Sequence[int]],
    devices: Collection[int],
) -> Iterator[Concept]:
    names = {node: own[0].text for node, own in aliases.items()}
    for node, own in aliases.items():
        parents = [names[parent] for parent in near.get(node, ())]
        if node in devices and not any(parent in devices for parent in near.get(node, ())):
            parents.append(SUPPORT_DEVICES)
        yield Concept(
            cui_of(node),
            names[node],
            tuple(alias.text for alias in own[1:]),
            tuple(parents),
            tuple(map(cui_of, vocabulary.equivalents(node))),
        )
