"""The evaluation of one model on any number of data sets: arrays and callables in, figures out."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medclip_keras.config import EvaluationConfig
from medclip_keras.errors import require
from medclip_keras.evaluation import retrieval, zero_shot
from medclip_keras.evaluation.embedder import (
    Batch,
    Embedder,
    ImageTable,
    embed_all_texts,
    embed_rows,
    read_table,
)
from medclip_keras.evaluation.probe import ClassifierResult, Examples, can_be_learned, probe
from medclip_keras.evaluation.prompts import ABNORMAL, ClassPrompts, finding_prompts
from medclip_keras.evaluation.retrieval import Candidates
from medclip_keras.evaluation.zero_shot import MODES, Task, make_task
from medclip_keras.knowledge.concepts import NO_FINDING

TRAINED, UNTRAINED = "trained", "untrained"

Labelled = tuple[Iterable[Batch], Iterable[Batch]]  # batches of the training and the validation split
ByModel = dict[str, np.ndarray]  # "trained", and "untrained" where there is one


@dataclass(frozen=True)
class ZeroShotResult:
    """Zero-shot classification of one data set."""

    task: Task
    prompts: ClassPrompts
    image_embeddings: ByModel  # (num_images, D)
    prompt_embeddings: ByModel  # (num_prompts, D)
    scores: dict[str, ByModel]  # by mode, then by model: (num_images, num_classes)
    metrics: dict


@dataclass(frozen=True)
class RetrievalResult:
    """Retrieval with one data set's images."""

    findings: tuple[str, ...]
    query_classes: np.ndarray
    candidate_classes: np.ndarray
    similarities: ByModel  # (num_queries, num_candidates)
    metrics: dict


@dataclass(frozen=True)
class DatasetResult:
    """One data set; a task that was not asked for or had nothing to work on is None."""

    zero_shot: ZeroShotResult | None = None
    retrieval: RetrievalResult | None = None
    probe: ClassifierResult | None = None
    supervised: ClassifierResult | None = None  # of a classifier, which is all that was measured then

    @property
    def metrics(self) -> dict:
        """{"zero_shot": …, "retrieval": …, "probe": …} in JSON types, of the tasks that were done."""
        return {name: result.metrics for name, result in vars(self).items() if result is not None}


def evaluate(
    embedder: Embedder,
    images: Mapping[str, Iterable[Batch]],
    sentences: Iterable[Batch],
    config: EvaluationConfig,
    concept_names: Sequence[str],
    *,
    seed: int = 0,
    untrained: Embedder | None = None,
    labelled: Mapping[str, Labelled] | None = None,
) -> dict[str, DatasetResult]:
    """Zero-shot classification, retrieval and linear probe on each data set, beside chance and untrained.

    Data sets are never mixed: a model can tell archives apart by their source alone.

    Args:
        embedder: the trained model.
        images: data set → batches {"record_key", "patient_id", "images" uint8 (B, S, S, 1), "label_states"
            int8 (B, num_findings)}, in the same order each time they are read (they are read twice).
        sentences: batches {"record_key", "text", "label_states"} of held-out sentences, for retrieval.
        config: task, findings, prompts, limits.
        concept_names: of the label states, in order.
        seed: of the bootstrap.
        untrained: the same model before training (random weights, or those of its presets), or None.
        labelled: data set → batches of its training split and of its validation split (which may be empty),
            as those of `images`, for the linear probe.

    Returns:
        data set → result.

    Raises:
        ValueError: a finding that the concept table or the prompts lack, or nothing at all to evaluate.
    """
    evaluation = Evaluation(embedder, sentences, config, concept_names, seed=seed, untrained=untrained)
    labelled = labelled or {}
    results = {name: evaluation.measure(batches, labelled.get(name)) for name, batches in images.items()}
    require(
        any(result.metrics for result in results.values()),
        "images",
        f"a data set with held-out images that are positive for exactly one of {', '.join(config.findings)}"
        + (", and such training images" if config.tasks == ("probe",) else ""),
        {name: "none" for name in results},
        "Give other records, or other findings in `evaluation.findings`.",
    )
    return results


class Evaluation:
    """A model, and the untrained one beside it, with prompts and candidate sentences embedded once.

    The arguments are those of `evaluate`.
    """

    def __init__(
        self,
        embedder: Embedder,
        sentences: Iterable[Batch],
        config: EvaluationConfig,
        concept_names: Sequence[str],
        *,
        seed: int = 0,
        untrained: Embedder | None = None,
    ):
        self.findings = check_findings(config, concept_names)
        self.config, self.concept_names, self.seed = config, list(concept_names), seed
        self.embedders = {TRAINED: embedder} | ({UNTRAINED: untrained} if untrained else {})
        self.prompts = self.candidates = None
        if "zero_shot" in config.tasks:
            self.prompts = ClassPrompts.of(finding_prompts(config))
            self.prompt_embeddings = self._embed_texts(self.prompts.texts)
        if "retrieval" in config.tasks and len(self.findings) > 1:
            columns = [self.concept_names.index(name) for name in self.findings]
            candidates = retrieval.select_candidates(sentences, columns, config.per_class)
            if candidates.texts:
                self.candidates = candidates
                self.candidate_embeddings = self._embed_texts(candidates.texts)

    def measure(self, batches: Iterable[Batch], labelled: Labelled | None = None) -> DatasetResult:
        """All tasks on one data set; batches as `evaluate` describes them."""
        table = read_table(batches)
        if not len(table):
            return DatasetResult()
        queries = zero_shot.single_finding_task(
            table, self.findings, self.concept_names, self.config.per_class
        )
        task = make_task(table, self.config, self.concept_names, self.config.per_class)
        training, validation = self._examples(labelled if len(task.rows) else None)
        rows = np.union1d(
            task.rows if self.prompts or training else [], queries.rows if self.candidates else []
        )
        if not len(rows):
            return DatasetResult()
        rows = rows.astype(int)
        embed = [embedder.embed_images for embedder in self.embedders.values()]
        embed += [embedder.embed_features for embedder in self.embedders.values()] if training else []
        embedded = embed_rows(embed, batches, table, rows)

        def of(wanted: Task, pieces: Sequence[np.ndarray] = embedded) -> ByModel:
            positions = np.searchsorted(rows, wanted.rows)
            return {who: piece[positions] for who, piece in zip(self.embedders, pieces, strict=False)}

        classified = probed = retrieved = None
        if self.prompts and len(task.rows):
            classified = self._classify(task, of(task))
        if self.candidates and len(queries.rows):
            retrieved = self._retrieve(queries, of(queries))
        if training:
            features = of(task, embedded[len(self.embedders) :])
            probed = self._probe(task, features, training, validation)
        return DatasetResult(classified, retrieved, probed)

    def _examples(self, labelled: Labelled | None) -> list[dict[str, Examples]]:
        """Training and validation images as each model sees them; both empty where no probe can be made."""
        if labelled is None or "probe" not in self.config.tasks:
            return [{}, {}]
        found = []
        for batches in labelled:
            table = read_table(batches)
            task = None
            if len(table):
                task = make_task(table, self.config, self.concept_names, per_class=len(table))
            if not found and (task is None or not can_be_learned(task.labels, task.name)):
                return [{}, {}]
            found.append(self._embedded(batches, table, task) if task is not None and len(task.rows) else {})
        return found

    def _embedded(self, batches: Iterable[Batch], table: ImageTable, task: Task) -> dict[str, Examples]:
        order = np.argsort(task.rows)
        rows, labels = task.rows[order], task.labels[order]
        embed = [embedder.embed_features for embedder in self.embedders.values()]
        features = embed_rows(embed, batches, table, rows)
        keys = table.record_keys[rows]
        return {who: Examples(f, labels, keys) for who, f in zip(self.embedders, features, strict=True)}

    def _embed_texts(self, texts: Sequence[str]) -> ByModel:
        return {who: embed_all_texts(embedder, texts) for who, embedder in self.embedders.items()}

    def _classify(self, task: Task, image_embeddings: ByModel) -> ZeroShotResult:
        scales = {who: float(embedder.logit_scale) for who, embedder in self.embedders.items()}
        return classify(
            task,
            self.prompts,
            image_embeddings,
            self.prompt_embeddings,
            scales,
            bootstrap=self.config.bootstrap,
            seed=self.seed,
        )

    def _probe(
        self,
        task: Task,
        features: ByModel,
        training: dict[str, Examples],
        validation: dict[str, Examples],
    ) -> ClassifierResult:
        shares = self.config.probe_fractions
        options = {"bootstrap": self.config.bootstrap, "seed": self.seed}
        return probe(task, features, training, validation, shares, **options)

    def _retrieve(self, queries: Task, image_embeddings: ByModel) -> RetrievalResult:
        similarities = {
            who: image_embeddings[who] @ self.candidate_embeddings[who].T for who in self.embedders
        }
        return retrieve(
            queries, self.candidates, similarities, bootstrap=self.config.bootstrap, seed=self.seed
        )


def classify(
    task: Task,
    prompts: ClassPrompts,
    image_embeddings: ByModel,
    prompt_embeddings: ByModel,
    logit_scales: Mapping[str, float],
    *,
    bootstrap: int,
    seed: int,
) -> ZeroShotResult:
    """Zero-shot classification of embedded images (num_images, D) with embedded prompts (num_prompts, D)."""
    scores = {mode: {} for mode in MODES}
    for who, scale in logit_scales.items():
        logits = scale * image_embeddings[who] @ prompt_embeddings[who].T  # (num_images, num_prompts)
        for mode in MODES:
            scores[mode][who] = zero_shot.class_scores(logits, prompts, task.classes, mode)
    metrics = {**task.description(), "chance": zero_shot.chance(task)}
    for who in logit_scales:
        metrics[who] = {mode: zero_shot.figures(task, scores[mode][who], bootstrap, seed) for mode in MODES}
    return ZeroShotResult(task, prompts, image_embeddings, prompt_embeddings, scores, metrics)


def retrieve(
    queries: Task, candidates: Candidates, similarities: ByModel, *, bootstrap: int, seed: int
) -> RetrievalResult:
    """Retrieval from the cosines (num_queries, num_candidates) of each model."""
    classes = (queries.class_index, candidates.class_index)
    metrics = {
        "num_queries": len(queries.rows),
        "num_candidates": {
            name: int((candidates.class_index == k).sum()) for k, name in enumerate(queries.classes)
        },
        "chance": retrieval.chance(*classes),
    }
    for who, similarity in similarities.items():
        metrics[who] = retrieval.figures(
            similarity, *classes, queries.patient_ids, bootstrap=bootstrap, seed=seed
        )
    return RetrievalResult(queries.classes, *classes, similarities, metrics)


def check_findings(config: EvaluationConfig, concept_names: Sequence[str]) -> list[str]:
    """The findings that are concepts: all of them but "Abnormal", which only multi_label knows.

    Raises:
        ValueError: a finding that is not in the concept table, or that the task cannot use.
    """
    for name in config.findings:
        known = [*concept_names, *([ABNORMAL] if config.task == "multi_label" else [])]
        near = difflib.get_close_matches(name, known, 3) or known
        require(name in known, "evaluation.findings", f"concepts of the table, such as {near}", name)
        require(
            not (config.task == "multi_label" and name == NO_FINDING),
            "evaluation.findings",
            "findings, measured against the normal prompts",
            name,
            f"Use {ABNORMAL!r}.",
        )
    findings = [name for name in config.findings if name != ABNORMAL]
    fewest = 2 if config.task == "single_finding" else 1
    require(len(findings) >= fewest, "evaluation.findings", f"at least {fewest} findings", config.findings)
    return findings
