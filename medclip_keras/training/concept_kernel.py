"""The kernel by which label vectors are compared: concept weights and closeness in the concept tree.

`objectives.semantic_matching.label_similarity` takes it as K: a^T K b is the inner product of label vectors.
"""

from collections.abc import Sequence

import numpy as np

from medclip_keras.config import RunConfig
from medclip_keras.errors import require
from medclip_keras.knowledge.concepts import ConceptTable
from medclip_keras.records.reading import count, image_folders, sentence_folders

MAX_RELATED = 1000  # concepts of which each pair may be related


def label_kernel(config: RunConfig, table: ConceptTable) -> np.ndarray | None:
    """Build the `concept_kernel` of a run from its objective's switches; None if both are off.

    Document frequencies come from the manifests of the training split's images and sentences: before closure
    over parents, uncertain findings not counted.

    Returns:
        float64 (num_findings, num_findings), its diagonal (num_findings,) without tree_closeness, or None.

    Raises:
        ValueError: objective.concept_weights is idf, and no image or sentence is positive for any concept; or
            tree_closeness with a table of more than 1,000 concepts.
    """
    objective, weights = config.objective, None
    if objective.concept_weights == "none" and not objective.tree_closeness:
        return None
    require(
        not objective.tree_closeness or len(table) <= MAX_RELATED,
        "objective.tree_closeness",
        f"0 for a table of more than {MAX_RELATED:,} concepts, whose pairs fill the memory",
        objective.tree_closeness,
        "objective.concept_weights=idf has no such limit.",
    )
    if objective.concept_weights == "idf":
        images, texts = image_folders(config.data, "train"), sentence_folders(config.data, "train")
        counted = [(f, "positives") for f in images] + [(f, "sentence_positives") for f in texts]
        positives = [f.manifest.splits["train"][what] for f, what in counted if f.count("train")]
        num_documents = count(images, "train") + count(texts, "train", "num_sentences")
        weights = idf_weights(np.sum(positives, axis=0), num_documents)
    if weights is not None and not objective.tree_closeness:
        return weights**2
    return concept_kernel(table, weights, objective.tree_closeness)


def concept_kernel(
    table: ConceptTable, weights: np.ndarray | None = None, tree_closeness: float = 0.0
) -> np.ndarray:
    """Inner product of label vectors: weighted concepts; related concepts have non-zero inner product.

    With w the weights, T the `tree_similarity`, t the strength:

        K_kl = w_k ((1 - t) [k = l] + t T_kl) w_l

    With t = 0 the similarity is the cosine of the weighted vectors w_k a_k and w_k b_k (both sides are
    weighted, as in tf-idf retrieval, so w counts twice); with w = 1 it is the cosine in axes that are not
    orthogonal for related concepts. K is positive definite, because T is and the weights are positive: |s| is
    at most 1, and only zero vectors have zero length.

    Args:
        table: the concepts and their parents.
        weights: float (num_findings,), positive; None: 1 each.
        tree_closeness: t in [0, 1]; 0 keeps concepts apart, 1 is `tree_similarity` in full.

    Returns:
        float64 (num_findings, num_findings), symmetric positive definite; the identity by default.

    Raises:
        ValueError: wrong shape of the weights, a weight that is not positive, t outside [0, 1].

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
    """Closeness of concepts in the table's tree: 1 for equal concepts, 0 without a shared ancestor.

    With A_k the ancestors of concept k, and k itself:

        T_kl = 2 |A_k & A_l| / (|A_k| + |A_l|)

    Positive definite: |A_k & A_l| is the Gram matrix of the indicator vectors of A_k, which are independent
    (a concept is in its own set and in that of no ancestor); 1 / (x + y), the integral of exp(-ux) exp(-uy)
    over u > 0, is positive semi-definite with a positive diagonal; so their product, element by element, is
    positive definite (Schur).

    Follows: Wu and Palmer, "Verbs semantics and lexical selection", ACL 1994: 2 N3 / (N1 + N2 + 2 N3), the
    depths of the nearest shared ancestor and of the paths below it; equal to T in a tree.
    Departs: a table is a forest, so roots share no ancestor; all shared ancestors of several parents count.

    Returns:
        float64 (num_findings, num_findings); the identity for a table without parents.

    Lung Opacity is the parent of Consolidation, Consolidation of Pneumonia: 2 * 2 / (2 + 3).

    >>> from medclip_keras.knowledge.concepts import load_table
    >>> table = load_table("chexpert14")
    >>> float(tree_similarity(table)[table.index("Consolidation"), table.index("Pneumonia")])
    0.8
    """
    lineage = table.descendants.T.astype(np.float64)  # row k: 1 for the members of A_k
    shared, sizes = lineage @ lineage.T, lineage.sum(axis=1)
    return 2 * shared / (sizes[:, None] + sizes)


def idf_weights(num_positive: Sequence[int], num_documents: int) -> np.ndarray:
    """Inverse document frequency: rare concepts weigh more.

    With n_k of N documents (images and sentences) positive for concept k:

        w_k = ln((1 + N) / (1 + n_k)) + 1

    Follows: Spärck Jones, "A statistical interpretation of term specificity and its application in
    retrieval", Journal of Documentation 1972; smoothed as in scikit-learn's TfidfTransformer: a concept in
    every document keeps weight 1, a concept in no document has a finite weight.

    Args:
        num_positive: (num_findings,) documents positive for each concept.
        num_documents: N.

    Returns:
        float64 (num_findings,), at least 1.

    Raises:
        ValueError: no positive document at all, or a count above N.

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
