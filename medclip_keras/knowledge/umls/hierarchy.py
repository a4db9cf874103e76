"""The is-a hierarchy of a vocabulary: nodes above and below, circles, nearest kept ancestors.

A node is the number of a CUI. Marks of nodes are bool arrays (num_nodes,): 10 MB for all of UMLS.
"""

import graphlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Nodes = npt.NDArray[np.int32]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Hierarchy:
    """Edges from a child to a parent, each with its trust: 0 for is-a, more for weaker kinds."""

    children: Nodes  # (num_edges,)
    parents: Nodes
    trust: npt.NDArray[np.int8]
    num_nodes: int

    def below(self, nodes: Marks) -> Marks:
        """The nodes and all their descendants."""
        return _reached(nodes, self.parents, self.children)

    def above(self, nodes: Marks) -> Marks:
        """The nodes and all their ancestors."""
        return _reached(nodes, self.children, self.parents)

    def within(self, nodes: Marks) -> "Hierarchy":
        """The edges between some of the nodes, each once, with its best trust."""
        inside = nodes[self.children] & nodes[self.parents] & (self.children != self.parents)
        children, parents, trust = self.children[inside], self.parents[inside], self.trust[inside]
        order = np.lexsort((trust, parents, children))
        pairs = np.stack([children, parents], axis=1)[order]
        first = np.ones(len(order), bool)
        first[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
        kept = order[first]
        return Hierarchy(children[kept], parents[kept], trust[kept], self.num_nodes)

    def without_circles(self) -> "Hierarchy":
        """Drop the edges that close a circle.

        Kinds of edges are added from the most to the least trusted. The new edges between nodes that reach
        each other are dropped, all of them: the result does not depend on the order of rows.
        """
        kept = np.zeros(len(self.children), bool)
        for trust in np.unique(self.trust):
            new = self.trust == trust
            group = _strong_components(self.children, self.parents, kept | new)
            kept |= new & (group[0] != group[1])
        return Hierarchy(self.children[kept], self.parents[kept], self.trust[kept], self.num_nodes)

    def nearest(self, kept: Marks) -> dict[int, tuple[int, ...]]:
        """The nearest kept ancestors of each kept node, none above another; needs no circles."""
        arrows: dict[int, list[int]] = {}
        for child, parent in zip(self.children.tolist(), self.parents.tolist(), strict=True):
            arrows.setdefault(child, []).append(parent)
        near: dict[int, frozenset[int]] = {}  # the node itself if it is kept
        above: dict[int, frozenset[int]] = {}  # kept ancestors
        found: dict[int, tuple[int, ...]] = {}
        for node in graphlib.TopologicalSorter(arrows).static_order():
            own = frozenset().union(*(near[parent] for parent in arrows.get(node, ())))
            higher = frozenset().union(*(above[one] for one in own))
            above[node], near[node] = own | higher, frozenset([node]) if kept[node] else own - higher
            if kept[node]:
                found[node] = tuple(sorted(own - higher))
        return found


def marks(nodes: object, num_nodes: int) -> Marks:
    """Marks of the given nodes."""
    marked = np.zeros(num_nodes, bool)
    marked[np.array(sorted(nodes), np.int64)] = True  # type: ignore[call-overload]
    return marked


def _reached(nodes: Marks, origin: Nodes, target: Nodes) -> Marks:
    reached = nodes.copy()
    while True:
        new = target[reached[origin] & ~reached[target]]
        if not new.size:
            return reached
        reached[new] = True


def _strong_components(children: Nodes, parents: Nodes, edges: Marks) -> tuple[Nodes, Nodes]:
    """The strongly connected component of both ends of every edge, in the graph of some `edges`."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    nodes, places = np.unique(np.concatenate([children, parents]), return_inverse=True)
    ends = places.reshape(2, -1)
    ones = np.ones(int(edges.sum()), np.int8)
    graph = csr_matrix((ones, tuple(ends[:, edges])), shape=(len(nodes), len(nodes)))
    _, component = connected_components(graph, directed=True, connection="strong")
    return component[ends[0]], component[ends[1]]
