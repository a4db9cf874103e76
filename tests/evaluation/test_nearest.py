import math

import numpy as np
import pytest

from medclip_keras.evaluation import nearest
from medclip_keras.evaluation.nearest import Corpus, pair_ranks, precision_at_k, precisions, recall_at_k


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def world(seed=0, num_queries=13, num_candidates=217, with_ties=True):
    """Queries and candidates of four classes and ten groups, many candidates alike."""
    rng = np.random.default_rng(seed)
    directions = unit(rng.normal(size=(9 if with_ties else num_candidates, 16)))
    candidates = directions[rng.integers(0, len(directions), num_candidates)] if with_ties else directions
    queries = unit(rng.normal(size=(num_queries, 16)))
    classes, groups = rng.integers(0, 4, num_candidates), rng.integers(0, 10, num_candidates)
    of_queries = rng.integers(0, 4, num_queries), np.arange(num_queries) % 10
    return queries, *of_queries, Corpus(candidates, classes, groups)


def by_random_orders(queries, classes, corpus, k, excluded=None, num_orders=4000):
    """Mean Precision@K over random orders of the candidates, sorted by cosine."""
    rng = np.random.default_rng(5)
    steps = np.round(queries.astype(float) @ corpus.embeddings.T.astype(float), 6)
    found = np.zeros(len(queries))
    for _ in range(num_orders):
        order = rng.permutation(len(corpus.classes))
        for q in range(len(queries)):
            allowed = order if excluded is None else order[corpus.groups[order] != excluded[q]]
            top = allowed[np.argsort(-steps[q, allowed], kind="stable")[:k]]
            found[q] += (corpus.classes[top] == classes[q]).mean()
    return found / num_orders


def test_precision_of_ties_is_the_mean_over_random_orders():
    queries, classes, _, corpus = world(num_queries=3, num_candidates=60)
    relevant = corpus.classes == classes[:, None]
    found = precision_at_k(queries @ corpus.embeddings.T, relevant, 7)
    np.testing.assert_allclose(found, by_random_orders(queries, classes, corpus, 7), atol=0.02)


def test_precision_of_constant_similarities_is_the_share_of_relevant_candidates():
    relevant = np.array([[True, False, False, True, False]])
    for k in (1, 3, 5):
        assert precision_at_k(np.full((1, 5), 0.3), relevant, k)[0] == pytest.approx(0.4)


@pytest.mark.parametrize("with_ties", [True, False])
@pytest.mark.parametrize("size", [1, 50, 64, 1000])
def test_chunks_of_any_size_give_the_precision_of_the_whole_matrix(monkeypatch, size, with_ties):
    queries, classes, groups, corpus = world(1, with_ties=with_ties)
    monkeypatch.setattr(nearest, "_COSINES_AT_ONCE", size * len(queries))
    found = precisions(queries, classes, groups, corpus, (1, 5, 50))
    for k, values in found.items():
        for q in range(len(queries)):
            allowed = corpus.groups != groups[q]
            cosines = queries[[q]] @ corpus.embeddings[allowed].T
            expected = precision_at_k(cosines, (corpus.classes[allowed] == classes[q])[None], k)
            assert values[q] == pytest.approx(expected[0], abs=1e-9)


def test_a_query_with_too_few_candidates_has_no_precision():
    queries, classes, groups, corpus = world(2, num_candidates=6)
    found = precisions(queries, classes, np.full_like(groups, -1), corpus, (5, 7))
    assert np.isfinite(found[5]).all()
    assert np.isnan(found[7]).all()


@pytest.mark.parametrize("size", [1, 40, 1000])
def test_ranks_of_pairs_are_counted_by_hand(monkeypatch, size):
    queries, _, groups, corpus = world(3)
    monkeypatch.setattr(nearest, "_COSINES_AT_ONCE", size * len(queries))
    nearer, tied = pair_ranks(queries, groups, corpus)
    cosines = np.round(queries.astype(float) @ corpus.embeddings.T.astype(float), 6)
    for q in range(len(queries)):
        own, others = cosines[q, corpus.groups == groups[q]], cosines[q, corpus.groups != groups[q]]
        assert (nearer[q], tied[q]) == ((others > own.max()).sum(), (others == own.max()).sum())
    assert tied.max() > 0


def test_recall_at_k_is_the_share_of_orders_with_the_own_candidate_among_the_first():
    # Two nearer, three tied: of the orders of four, the own one is first, second, … in a quarter each.
    nearer, tied = np.array([2.0]), np.array([3.0])
    assert [recall_at_k(nearer, tied, k)[0] for k in (1, 2, 3, 5, 6, 9)] == [0, 0, 1 / 4, 3 / 4, 1, 1]


def test_nan_embeddings_are_refused():
    queries, classes, groups, corpus = world()
    for bad in (math.nan, math.inf):
        broken = Corpus(np.full_like(corpus.embeddings, bad), corpus.classes, corpus.groups)
        with pytest.raises(ValueError, match="finite"):
            precisions(queries, classes, groups, broken, (1,))
        with pytest.raises(ValueError, match="finite"):
            precisions(np.full_like(queries, bad), classes, groups, corpus, (1,))
    with pytest.raises(ValueError, match="must be numbers"):
        precision_at_k(np.array([[math.nan, 0.1]]), np.array([[True, False]]), 1)
    with pytest.raises(ValueError, match="groups of the candidates"):
        pair_ranks(queries, np.full(len(queries), 77), corpus)


def test_precision_at_k_counts_the_relevant_among_the_nearest():
    similarities = np.array([[0.3, 0.9, 0.1, 0.8], [0.0, 0.1, 0.2, 0.3]])
    relevant = np.array([[True, True, False, False], [True, False, False, True]])
    assert precision_at_k(similarities, relevant, 1).tolist() == [1.0, 1.0]
    assert precision_at_k(similarities, relevant, 2).tolist() == [0.5, 0.5]
    np.testing.assert_allclose(precision_at_k(similarities, relevant, 3), [2 / 3, 1 / 3])


def test_precision_at_k_does_not_depend_on_the_order_of_candidates():
    rng = np.random.default_rng(3)
    similarities, relevant = rng.normal(size=(5, 30)), rng.random((5, 30)) < 0.3
    order = rng.permutation(30)
    np.testing.assert_array_equal(
        precision_at_k(similarities, relevant, 10),
        precision_at_k(similarities[:, order], relevant[:, order], 10),
    )
