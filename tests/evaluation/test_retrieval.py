import numpy as np
import pytest

from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.retrieval import Candidates, retrieve, select_candidates
from medclip_keras.evaluation.tasks import Task

# Concepts: 0 No Finding, 1 Edema, 2 Mass, 3 Support Devices; findings are Edema and Mass.
SENTENCES = [
    ("k4", "Edema is seen.", [0, 1, 0, 0]),
    ("k3", "EDEMA  is seen", [0, 1, 0, 0]),  # the same text in other letters, and the smaller key
    ("k2", "Edema and a mass.", [0, 1, 1, 0]),
    ("k1", "Edema and a tube.", [0, 1, 0, 1]),
    ("k0", "Edema and maybe a mass.", [0, 1, 3, 0]),
    ("k5", "A mass, no edema.", [0, 2, 1, 0]),
    ("k6", "Possible mass.", [0, 0, 3, 0]),
    ("k7", "Normal chest.", [1, 0, 0, 0]),
    ("k9", "Another mass.", [0, 0, 1, 0]),
    ("k8", "A third mass.", [0, 0, 1, 0]),
]


def batches(rows=SENTENCES, size=3):
    for i in range(0, len(rows), size):
        keys, texts, states = zip(*rows[i : i + size], strict=True)
        yield {
            "record_key": np.array([k.encode() for k in keys], object),
            "text": np.array([t.encode() for t in texts], object),
            "label_states": np.array(states, np.int8),
        }


def test_candidates_state_exactly_one_finding_and_are_distinct():
    found = select_candidates(batches(), columns=[2, 1], per_class=10)
    assert found.texts == ("A mass, no edema.", "A third mass.", "Another mass.", "EDEMA  is seen")
    assert found.class_index.tolist() == [0, 0, 0, 1]


def test_candidates_are_limited_by_key_and_do_not_depend_on_order():
    limited = select_candidates(batches(), columns=[2, 1], per_class=2)
    assert limited.texts == ("A mass, no edema.", "A third mass.", "EDEMA  is seen")
    shuffled = select_candidates(batches(SENTENCES[::-1], 4), columns=[2, 1], per_class=2)
    assert shuffled.texts == limited.texts


def test_no_sentence_gives_no_candidate():
    assert select_candidates([], [1, 2], 10).texts == ()


def retrieved(similarities, queries, candidates):
    """Metrics of queries of two or three classes, an image and a patient each."""
    rows = np.arange(len(queries))
    task = Task(
        "single_finding", ("Edema", "Mass", "Hernia"), rows, np.eye(3)[queries], *[rows.astype(str)] * 2
    )
    texts = Candidates(tuple(map(str, candidates)), np.array(candidates))
    return retrieve(task, texts, {"trained": similarities}, Bootstrap(0, seed=0)).metrics


def test_precision_is_counted_by_hand():
    found = retrieved(np.array([[0.9, 0.8, 0.1], [0.3, 0.2, 0.1]]), [0, 1], [0, 1, 1])
    assert {k: v["value"] for k, v in found["trained"].items()} == {
        "precision_at_1": 0.5,
        "precision_at_2": 0.5,
    }
    assert found["num_candidates"] == {"Edema": 1, "Mass": 2, "Hernia": 0}
    assert found["baseline"] == {"precision_at_1": 0.5, "precision_at_2": 0.5}  # (1 + 2) relevant of 2 x 3


def test_chance_is_the_mean_precision_of_random_orders():
    rng = np.random.default_rng(0)
    queries, candidates = rng.integers(0, 3, 40), np.repeat([0, 1, 2], [20, 8, 4])
    drawn = [retrieved(rng.normal(size=(40, 32)), queries, candidates) for _ in range(300)]
    for metric, expected in drawn[0]["baseline"].items():
        assert np.mean([d["trained"][metric]["value"] for d in drawn]) == pytest.approx(expected, abs=0.02)
