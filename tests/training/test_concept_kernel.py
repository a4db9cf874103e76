"""The kernel of label vectors: derived numbers, and that it is an inner product for any tree."""

import numpy as np
import pytest

from medclip_keras.config import override
from medclip_keras.knowledge.concepts import Concept, ConceptTable, load_table
from medclip_keras.knowledge.states import LabelState
from medclip_keras.records.batches import evaluation_images, evaluation_sentences
from medclip_keras.training.concept_kernel import concept_kernel, idf_weights, label_kernel, tree_similarity


def table_of(parents: dict[str, tuple[str, ...]]) -> ConceptTable:
    rows = enumerate(parents.items())
    return ConceptTable("made", tuple(Concept(f"C{k:07d}", name, (), above) for k, (name, above) in rows))


def random_table(rng, size: int = 25) -> ConceptTable:
    """A graph in which a concept has up to two parents, in an order that tells nothing."""
    drawn = [rng.choice(k, min(k, rng.integers(3)), replace=False) for k in range(size)]
    parents = {f"c{k}": tuple(f"c{p}" for p in above) for k, above in enumerate(drawn)}
    return table_of({name: parents[name] for name in rng.permutation(list(parents))})


def wu_palmer(table: ConceptTable, one: str, other: str) -> float:
    """2 N3 / (N1 + N2 + 2 N3), along the paths from the root, for a concept of one parent."""

    def path(name):
        above = table.concepts[table.index(name)].parents
        return (*path(above[0]), name) if above else (name,)

    first, second = path(one), path(other)
    shared = sum(1 for a, b in zip(first, second, strict=False) if a == b)
    return 2 * shared / (len(first) - shared + len(second) - shared + 2 * shared)


@pytest.mark.parametrize("name", ["chexpert14", "chest21"])
def test_tree_similarity_is_wu_and_palmers(name):
    table = load_table(name)
    if any(len(concept.parents) > 1 for concept in table.concepts):
        pytest.fail("the restatement walks one path")
    expected = [[wu_palmer(table, one, other) for other in table.names] for one in table.names]
    np.testing.assert_allclose(tree_similarity(table), expected, rtol=1e-12)
    assert np.count_nonzero(expected) > 2 * len(table)  # it is not the identity


def test_several_parents_share_all_of_their_ancestors():
    # a and b are roots, c under both, d under b: {a, b, c} and {b, d} share b.
    table = table_of({"c": ("a", "b"), "a": (), "d": ("b",), "b": ()})
    c, d = table.index("c"), table.index("d")
    assert tree_similarity(table)[c, d] == pytest.approx(2 * 1 / (3 + 2))


def test_ancestors_count_wherever_the_table_lists_them():
    table = table_of({"leaf": ("middle",), "middle": ("root",), "root": ()})
    # Three, two and one on the way from the root.
    expected = [[1, 2 * 2 / 5, 2 * 1 / 4], [2 * 2 / 5, 1, 2 * 1 / 3], [2 * 1 / 4, 2 * 1 / 3, 1]]
    np.testing.assert_allclose(tree_similarity(table), expected)


@pytest.mark.parametrize("seed", range(8))
def test_kernels_are_inner_products_whatever_the_tree(seed):
    rng = np.random.default_rng(seed)
    table = random_table(rng)
    for strength in (0.0, 0.4, 1.0):
        kernel = concept_kernel(table, rng.uniform(0.5, 9.0, len(table)), strength)
        np.testing.assert_array_equal(kernel, kernel.T)
        assert np.linalg.eigvalsh(kernel)[0] > 0
        cosines = kernel / np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
        assert np.abs(cosines).max() <= 1 + 1e-12


def test_a_flat_table_has_no_closeness():
    table = table_of({"a": (), "b": (), "c": ()})
    np.testing.assert_array_equal(tree_similarity(table), np.eye(3))
    np.testing.assert_array_equal(concept_kernel(table, tree_closeness=1.0), np.eye(3))


def test_weights_and_closeness_compose():
    table = table_of({"opacity": (), "edema": ("opacity",), "fracture": ()})
    # Edema and opacity: 2 * 1 / (1 + 2) of which a half, weighted on both sides.
    kernel = concept_kernel(table, np.array([2.0, 3.0, 5.0]), tree_closeness=0.5)
    np.testing.assert_allclose(kernel, [[4, 2 * 3 / 3, 0], [2 * 3 / 3, 9, 0], [0, 0, 25]])


def test_the_default_kernel_is_the_identity():
    np.testing.assert_array_equal(concept_kernel(load_table("chest21")), np.eye(21))


def test_idf_weighs_the_rare_and_counts_what_every_document_has():
    weights = idf_weights([99, 9, 0], 99)
    np.testing.assert_allclose(weights, [1, np.log(10) + 1, np.log(100) + 1])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: idf_weights([0, 0], 7), "positive for at least one concept. Received: 'none in 7 images"),
        (lambda: idf_weights([0, 0], 7), "objective.concept_weights=none"),
        (lambda: idf_weights([8, 0], 7), "between 0 and the 7 documents. Received: '0 to 8'"),
        (lambda: concept_kernel(load_table("chexpert14"), np.ones(3)), "of shape (14,). Received: (3,)"),
        (lambda: concept_kernel(table_of({"a": ()}), np.zeros(1)), "`weights` must be positive"),
        (lambda: concept_kernel(table_of({"a": ()}), None, 1.5), "`tree_closeness` must be in [0, 1]"),
    ],
)
def test_what_is_refused(call, sentence):
    with pytest.raises(ValueError, match="must be") as error:
        call()
    assert sentence in str(error.value)


def test_labels_are_compared_as_they_are_by_default(tiny_run):
    assert label_kernel(tiny_run, load_table("chest21")) is None


def test_document_frequencies_are_those_of_the_training_split(tiny_run):
    run = override(tiny_run, ["objective.concept_weights=idf", "data.min_words=1"])
    batches = (*evaluation_images(run, "train"), *evaluation_sentences(run, "train"))
    states = np.concatenate([batch["label_states"].numpy() for batch in batches])
    positives = (states == LabelState.POSITIVE).sum(axis=0)
    weights = np.log((1 + len(states)) / (1 + positives)) + 1
    np.testing.assert_allclose(label_kernel(run, load_table("chest21")), weights**2, rtol=1e-12)
    assert len({*positives}) > 3
