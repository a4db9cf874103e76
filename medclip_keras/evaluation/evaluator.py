"""Evaluation of one model on any number of data sets, from batches of arrays and an embedder."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from medclip_keras.config import EvaluationConfig
from medclip_keras.errors import require
from medclip_keras.evaluation.arrays import Batch, ByModel, Floats, Ints, Strings
from medclip_keras.evaluation.class_scores import class_scores
from medclip_keras.evaluation.cross_retrieval import (
    CrossRetrieval,
    image_to_image,
    pair_rows,
    paired,
    study_texts,
    text_to_image,
)
from medclip_keras.evaluation.embedder import (
    Embedder,
    ImageIndex,
    embed_all_texts,
    embed_rows,
    read_index,
)
from medclip_keras.evaluation.leaks import Leaks, find_leaks, read_pictures
from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.probe import Examples, can_be_learned, probe
from medclip_keras.evaluation.prompts import ClassPrompts, finding_prompts
from medclip_keras.evaluation.results import (
    TRAINED,
    UNTRAINED,
    ClassificationResult,
    DatasetResult,
    Json,
    RetrievalResult,
    TrustResult,
    ZeroShotResult,
)
from medclip_keras.evaluation.retrieval import Candidates, retrieve, select_candidates
from medclip_keras.evaluation.shortcuts import (
    ARCHIVE,
    Shortcuts,
    archive_readability,
    readable_facts,
    stratified,
)
from medclip_keras.evaluation.subgroups import Subgroups, groups_of, subgroups
from medclip_keras.evaluation.tasks import Task, check_findings, make_task, single_finding_task
from medclip_keras.evaluation.trust.measure import Scored, measure_trust, negatable
from medclip_keras.evaluation.trust.negation import negation_texts, pair_statistics, pairs
from medclip_keras.evaluation.zero_shot import Embedded, classify, draw_columns

Labelled = tuple[Iterable[Batch], Iterable[Batch]]  # batches of the training and the validation split
ExamplesByModel = dict[str, Examples]


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
    training: Iterable[Batch] = (),
) -> dict[str, DatasetResult]:
    """Evaluate each data set: zero-shot, retrieval, linear probe; next to a baseline and the untrained model.

    Data sets are never mixed: a model can distinguish archives by their source alone.

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
            as those of `images`, for the linear probe and for what trust chooses on validation images.
        training: batches of the images that the model was trained on, as those of `images`, for leaks.

    Returns:
        data set → result.

    Raises:
        ValueError: a finding that the concept table or the prompts lack, no image of any task, or patients
            of the test images among the training images.
    """
    embedders = {TRAINED: embedder} | ({UNTRAINED: untrained} if untrained else {})
    leaks = _leaks(images, training) if "leaks" in config.tasks else {}  # refused before any work
    evaluator = _Evaluator(embedders, sentences, config, concept_names, seed)
    labelled = labelled or {}
    results = {
        name: dataclasses.replace(evaluator.measure(batches, labelled.get(name)), leaks=leaks.get(name))
        for name, batches in images.items()
    }
    alone = bool(config.tasks) and set(config.tasks) <= {"fine_tune", "leaks"}  # measured elsewhere, or above
    require(
        alone or any(result.tasks for result in results.values()),
        "images",
        f"a data set with held-out images that are positive for exactly one of {', '.join(config.findings)}"
        + (", and such training images" if config.tasks == ("probe",) else ""),
        {name: "none" for name in results},
        "Give other records, or other findings in `evaluation.findings`.",
    )
    return evaluator.with_archives(results) if "shortcuts" in config.tasks else results


def _leaks(images: Mapping[str, Iterable[Batch]], training: Iterable[Batch]) -> dict[str, Leaks]:
    seen = read_pictures(training)
    return (
        {name: find_leaks(read_pictures(batches), seen) for name, batches in images.items()}
        if len(seen)
        else {}
    )


def trust_of(
    test: ZeroShotResult, embedder: Embedder, bootstrap: Bootstrap, validation: tuple[Task, Floats] | None
) -> TrustResult:
    """Questions of trust for the trained model, by the validation images and their embeddings, if any."""

    def scored(task: Task, images: Floats) -> Scored:
        logits = embedder.logit_scale * images @ test.prompt_embeddings[TRAINED].T
        options = {"contrast": not task.is_single, "negated": test.negated}
        scores = class_scores(logits, test.prompts, task.classes, "ensemble", **options)
        return Scored(task, logits, scores)

    images = test.image_embeddings[TRAINED]
    names = negatable(test.task.classes)
    texts = [text for name in names for text in negation_texts(name)]
    margins, cosines = {}, {}
    if names:
        stated, denied = np.reshape(embed_all_texts(embedder, texts), (len(names), 2, -1)).swapaxes(0, 1)
        margins = dict(zip(names, (images @ (stated - denied).T).T, strict=True))
        by_text = (dict(zip(names, (images @ of_text.T).T, strict=True)) for of_text in (stated, denied))
        cosines = pairs(test.task, *by_text)
    valid = scored(*validation) if validation else None
    result = measure_trust(scored(test.task, images), valid, test.prompts, margins, bootstrap)
    result.metrics["pairs"] = pair_statistics(cosines)
    return dataclasses.replace(result, pairs=cosines)


class _Evaluator:
    """A trained and an untrained model, with prompts and candidate sentences embedded once."""

    def __init__(
        self,
        embedders: Mapping[str, Embedder],
        sentences: Iterable[Batch],
        config: EvaluationConfig,
        concept_names: Sequence[str],
        seed: int,
    ):
        self.findings = check_findings(config, concept_names)
        self.embedders, self.config, self.concept_names = embedders, config, list(concept_names)
        self.bootstrap = Bootstrap(config.bootstrap, seed)
        self.prompts, self.candidates = ClassPrompts.of({}), Candidates((), np.empty(0, int))
        if "zero_shot" in config.tasks:
            pool = finding_prompts(config, config.num_prompts * max(1, config.prompt_draws))
            self.prompts = ClassPrompts.of(pool)
        if "retrieval" in config.tasks and len(self.findings) > 1:
            columns = [self.concept_names.index(name) for name in self.findings]
            self.candidates = select_candidates(sentences, columns, config.per_class)
        self.reports: dict[str, str] = {}  # study → its sentences
        if "retrieval" in config.tasks:
            self.reports = study_texts(sentences)
        self.prompt_embeddings = self._embed_texts(self.prompts.texts)
        self.candidate_embeddings = self._embed_texts(self.candidates.texts)

    def measure(self, batches: Iterable[Batch], labelled: Labelled | None) -> DatasetResult:
        """Run all tasks on one data set; batches as `evaluate` describes them."""
        index = read_index(batches, len(self.concept_names))
        task = make_task(index, self.config, self.concept_names, self.config.per_class)
        queries = single_finding_task(index, self.findings, self.concept_names, self.config.per_class)
        queries = queries.at(np.isin(queries.class_index, self.candidates.class_index))
        training, held_out = self._examples(labelled if len(task.rows) else None)
        classified = task.rows if self.prompts.texts or training else np.empty(0, int)
        of_pairs = pair_rows(index.facts.get("study_id", np.empty(0, np.str_)), self.reports)
        queried = queries.rows if self.candidates.texts else np.empty(0, int)
        rows = np.concatenate([classified, queried, of_pairs])
        if not len(rows):
            return DatasetResult()
        embed = [embedder.embed_images for embedder in self.embedders.values()]
        embed += [embedder.embed_features for embedder in self.embedders.values()] if training else []
        images = embed_rows(embed, batches, index, rows)
        features = images[len(self.embedders) :]
        validation = self._validation(task, labelled[1] if labelled else ())
        zero_shot = self._zero_shot(task, self._by_model(images, slice(len(classified))), validation)
        query_images = self._by_model(images, slice(len(classified), len(classified) + len(queried)))
        pair_images = self._by_model(images, slice(len(classified) + len(queried), None))
        return DatasetResult(
            zero_shot,
            self._retrieval(queries, query_images),
            self._probe(task, self._by_model(features, slice(len(classified))), training, held_out),
            trust=self._trust(zero_shot, validation),
            cross_retrieval=self._cross_retrieval(queries, query_images, index, of_pairs, pair_images),
            subgroups=self._subgroups(zero_shot, index),
            shortcuts=self._shortcuts(zero_shot, index),
        )

    def with_archives(self, results: Mapping[str, DatasetResult]) -> dict[str, DatasetResult]:
        """The results with how well the archive is read from the embeddings of all data sets together."""
        embedded = {
            name: (result.zero_shot.image_embeddings[TRAINED], result.zero_shot.task.patient_ids)
            for name, result in results.items()
            if result.zero_shot
        }
        row = archive_readability(embedded, self.bootstrap)
        found = dict(results)
        for name in embedded if row else ():
            own = results[name].shortcuts
            metrics = own.metrics if own else {"readable": {}, "strata": {}}
            readable = {ARCHIVE: row} | metrics["readable"]
            found[name] = dataclasses.replace(
                results[name], shortcuts=Shortcuts({**metrics, "readable": readable})
            )
        return found

    def _subgroups(self, test: ZeroShotResult | None, index: ImageIndex) -> Subgroups | None:
        groups = self._groups(test, index) if "subgroups" in self.config.tasks else {}
        if test is None or not groups:
            return None
        return subgroups(test.task, test.scores["ensemble"][TRAINED], groups, self.bootstrap)

    def _shortcuts(self, test: ZeroShotResult | None, index: ImageIndex) -> Shortcuts | None:
        groups = self._groups(test, index) if "shortcuts" in self.config.tasks else {}
        if test is None or not groups:
            return None
        task, images = test.task, test.image_embeddings[TRAINED]
        readable = readable_facts(images, groups, task.patient_ids, self.bootstrap)
        scores = test.scores["ensemble"][TRAINED]
        return Shortcuts({"readable": readable, "strata": stratified(task, scores, groups, self.bootstrap)})

    @staticmethod
    def _groups(test: ZeroShotResult | None, index: ImageIndex) -> dict[str, Strings]:
        """Group of each of the task's images by sex, age decade and view, if recorded."""
        rows = test.task.rows if test else np.empty(0, int)
        return groups_of({name: values[rows] for name, values in index.facts.items()})

    def _by_model(self, arrays: Sequence[Floats], rows: slice = slice(None)) -> ByModel:
        return {who: array[rows] for who, array in zip(self.embedders, arrays, strict=False)}

    def _validation(self, task: Task, batches: Iterable[Batch]) -> Embedded | None:
        """Validation images for trust and the thresholds of multi_label; None without any, or any use."""
        if not self.prompts.texts or not (
            task.rows.size and ("trust" in self.config.tasks or not task.is_single)
        ):
            return None
        index = read_index(batches, len(self.concept_names))
        valid = make_task(index, self.config, self.concept_names, self.config.per_class)
        if not len(valid.rows):
            return None
        embed = [embedder.embed_images for embedder in self.embedders.values()]
        embed = embed[:1] if task.is_single else embed  # the trained model alone is asked for trust
        return valid, self._by_model(embed_rows(embed, batches, index, valid.rows))

    def _zero_shot(self, task: Task, images: ByModel, validation: Embedded | None) -> ZeroShotResult | None:
        if not self.prompts.texts or not len(task.rows):
            return None
        scales = {who: float(embedder.logit_scale) for who, embedder in self.embedders.items()}
        return classify(
            task,
            self.prompts,
            images,
            self.prompt_embeddings,
            logit_scales=scales,
            bootstrap=self.bootstrap,
            validation=validation,
            draws=draw_columns(
                self.prompts, self.config.num_prompts, self.config.prompt_draws, self.bootstrap.seed
            ),
            negated=self.config.contrast == "negated" and not task.is_single,
        )

    def _trust(self, test: ZeroShotResult | None, validation: Embedded | None) -> TrustResult | None:
        if test is None or "trust" not in self.config.tasks:
            return None
        chosen_on = (validation[0], validation[1][TRAINED]) if validation else None
        return trust_of(test, self.embedders[TRAINED], self.bootstrap, chosen_on)

    def _retrieval(self, queries: Task, images: ByModel) -> RetrievalResult | None:
        if not self.candidates.texts or not len(queries.rows):
            return None
        cosines = {who: images[who] @ texts.T for who, texts in self.candidate_embeddings.items()}
        return retrieve(queries, self.candidates, cosines, self.bootstrap)

    def _cross_retrieval(
        self, queries: Task, images: ByModel, index: ImageIndex, rows: Ints, pair_images: ByModel
    ) -> CrossRetrieval | None:
        found: dict[str, Json] = {}
        if self.candidates.texts and len(np.unique(queries.patient_ids)) > 1:
            found["image_to_image"] = image_to_image(queries, images, self.bootstrap)
            texts = self.candidate_embeddings, self.candidates.class_index
            found["text_to_image"] = text_to_image(queries, images, *texts, self.bootstrap)
        if len(rows):
            studies, numbers = np.unique(index.facts["study_id"][rows], return_inverse=True)
            reports = self._embed_texts([self.reports[str(study)] for study in studies])
            patients = index.patient_ids[rows]
            found |= paired(pair_images, numbers, patients, reports, self.bootstrap)
        return CrossRetrieval(found) if found else None

    def _probe(
        self, task: Task, features: ByModel, training: ExamplesByModel, validation: ExamplesByModel
    ) -> ClassificationResult | None:
        if not training:
            return None
        return probe(
            task,
            features,
            training,
            validation,
            shares=self.config.probe_fractions,
            bootstrap=self.bootstrap,
            num_seeds=self.config.probe_seeds,
        )

    def _examples(self, labelled: Labelled | None) -> tuple[ExamplesByModel, ExamplesByModel]:
        """Training and validation images by model; both empty if no probe can be trained."""
        if labelled is None or "probe" not in self.config.tasks:
            return {}, {}
        training = self._split_examples(labelled[0], must_be_learnable=True)
        return training, self._split_examples(labelled[1]) if training else {}

    def _split_examples(self, batches: Iterable[Batch], must_be_learnable: bool = False) -> ExamplesByModel:
        index = read_index(batches, len(self.concept_names))
        task = make_task(index, self.config, self.concept_names, per_class=len(index))
        if not len(task.rows) or (must_be_learnable and not can_be_learned(task.labels, task.name)):
            return {}
        order = np.argsort(task.rows)
        rows, labels = task.rows[order], task.labels[order]
        embed = [embedder.embed_features for embedder in self.embedders.values()]
        features = self._by_model(embed_rows(embed, batches, index, rows))
        return {who: Examples(values, labels, index.record_keys[rows]) for who, values in features.items()}

    def _embed_texts(self, texts: Sequence[str]) -> ByModel:
        return {who: embed_all_texts(e, texts) for who, e in self.embedders.items()} if texts else {}
