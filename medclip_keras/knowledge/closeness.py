"""How much two concepts have in common: the kernel by which label vectors are compared beyond multi-hot.

`objectives.semantic_matching.label_similarity` takes it as K: a^T K b is the inner product of label vectors.
"""

from collections.abc import Sequence

import numpy as np

from medclip_keras.errors import require
from medclip_keras.knowledge.concepts import ConceptTable


def concept_kernel(
    table: ConceptTable, weights: np.ndarray | None = None, tree_closeness: float = 0.0
) -> np.ndarray:
    """The inner product of label vectors: weighted concepts, of which related ones are partly the same.

    With w the weights, T the `tree_similarity`, t the strength:

        K_kl = w_k ((1 - t) [k = l] + t T_kl) w_l

    so that without t the similarity is the cosine of the weighted vectors w_k a_k and w_k b_k (each side is
    weighted, as in tf-idf retrieval, so w counts twice), and without w the one of the vectors as they are,
    in axes that are not orthogonal where concepts are related. K is positive definite: T is, and the
    weights are not zero; so |s| is at most 1, and only vectors of zeros have no length.

    Args:
        table: the concepts and their parents.
        weights: float (num_findings,), positive; None: 1 each.
        tree_closeness: t in [0, 1]; 0 keeps concepts apart, 1 is `tree_similarity` in full.

    Returns:
        float64 (num_findings, num_findings), symmetric positive definite; the identity by default.

    Raises:
        ValueError: weights of another shape or not positive, a strength out of range.

    >>> from medclip_keras.knowledge.concepts import Concept
    >>> opacity = Concept("C4728208", "Lung Opacity")
    >>> edema = Concept("C0034063", "Edema", parents=("Lung Opacity",))
    >>> concept_kernel(ConceptTable("two", (opacity, edema)), np.array([1.0, 3.0]), tree_closeness=0.5)
    array([[1., 1.],
           [1., 9.]])
    """
    require(0 <= tree_closeness <= 1, "tree_closeness", "in [0, 1]", tree_closeness)
    weights = np.ones(len(table)) if weights is None else np.asarray(weights, np.float64)
    require(weights.shape == (len(table),), "weights", f"of shape ({len(table)},)", weights.shape)
    require(bool(np.all(weights > 0)), "weights", "positive", weights.min())
    kernel = (1 - tree_closeness) * np.eye(len(table)) + tree_closeness * tree_similarity(table)
    return np.outer(weights, weights) * kernel


def tree_similarity(table: ConceptTable) -> np.ndarray:
    """How near concepts are in the table's tree: 1 for the same, 0 where no ancestor is shared.

    With A_k the ancestors of concept k, and k itself:

        T_kl = 2 |A_k & A_l| / (|A_k| + |A_l|)

    Positive definite: |A_k & A_l| is the Gram matrix of the indicator vectors of A_k, which are independent
    (a concept is in its own set and in that of no ancestor); 1 / (x + y), the integral of exp(-ux) exp(-uy)
    over u > 0, is positive semi-definite with a positive diagonal; so their product, element by element, is
    positive definite (Schur).

    Follows: Wu and Palmer, "Verbs semantics and lexical selection", ACL 1994: 2 N3 / (N1 + N2 + 2 N3), the
    depths of the nearest shared ancestor and of what lies below it; in a tree the same number.
    Departs: a table is a forest, and roots share nothing; with several parents all shared ancestors count.

    Returns:
        float64 (num_findings, num_findings); the identity for a table without parents.

    Consolidation lies under Lung Opacity, and Pneumonia under Consolidation: 2 * 2 / (2 + 3).

    >>> from medclip_keras.knowledge.concepts import load_table
    >>> table = load_table("chexpert14")
    >>> float(tree_similarity(table)[table.index("Consolidation"), table.index("Pneumonia")])
    0.8
    """
    lineage = np.eye(len(table))  # row k: 1 for the members of A_k
    for child in table.order:
        for parent in table.concepts[child].parents:
            lineage[child] = np.maximum(lineage[child], lineage[table.index(parent)])
    shared, sizes = lineage @ lineage.T, lineage.sum(axis=1)
    return 2 * shared / (sizes[:, None] + sizes)


def idf_weights(num_positive: Sequence[int], num_documents: int) -> np.ndarray:
    """Inverse document frequency: what is rarely said tells more.

    With n_k of N documents (images and sentences) positive for concept k:

        w_k = ln((1 + N) / (1 + n_k)) + 1

    Follows: Spärck Jones, "A statistical interpretation of term specificity and its application in
    retrieval", Journal of Documentation 1972; in the smoothed form of scikit-learn's TfidfTransformer, by
    which a concept that every document has still counts, and one that none has is finite.

    Args:
        num_positive: (num_findings,) documents positive for each concept.
        num_documents: N.

    Returns:
        float64 (num_findings,), at least 1.

    Raises:
        ValueError: no document is positive for any concept, or more are for one than there are.

    >>> idf_weights([9, 0], 9).round(3).tolist()
    [1.0, 3.303]
    """
    counts = np.asarray(num_positive, np.float64)
    require(
        bool(np.any(counts > 0)),
        "num_positive",
        "positive for at least one concept",
        f"none in {num_documents} images and sentences",
        "Label the records, or set objective.concept_weights=none.",
    )
    require(
        bool(np.all((counts >= 0) & (counts <= num_documents))),
        "num_positive",
        f"between 0 and the {num_documents} documents",
        f"{counts.min():.0f} to {counts.max():.0f}",
    )
    return np.log((1 + num_documents) / (1 + counts)) + 1
