"""Shortcuts: attributes other than findings in the embeddings, and metrics within strata of them.

A model that reads the archive or the view can score well where these differ between sick and healthy images.
A logistic regression on the embeddings of other patients says how well each fact is read. A finding's AUROC
within a stratum, such as the AP views alone, cannot come from the fact. Neither can that of all images if
they are weighted such that a stratum has the same share among positives as among negatives.

Follows: Zech et al., PLoS Medicine 2018, and DeGrave et al., Nature Machine Intelligence 2021, on archives
    and views that models read; the weights are those of inverse probability (Robins et al., 1994).
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from medclip_keras.errors import require
from medclip_keras.evaluation.arrays import Array, Bools, Floats, Strings
from medclip_keras.evaluation.classification import ranked_scores
from medclip_keras.evaluation.metrics import Bootstrap, Estimate, Statistic, auroc, mean_of
from medclip_keras.evaluation.results import Json
from medclip_keras.evaluation.sections import Section, Table
from medclip_keras.evaluation.subgroups import FEWEST, enough
from medclip_keras.evaluation.table import Cells, estimate_of, with_interval
from medclip_keras.evaluation.tasks import Task

ARCHIVE = "archive"
TITLES = {ARCHIVE: "Archive", "view_position": "View", "sex": "Sex", "age": "Age (decade)"}
_FOLDS, _STRENGTH = 5, 1e-2


@dataclass(frozen=True)
class Shortcuts:
    """The two tables."""

    # "readable": fact → {"num_images", "num_groups", "auroc"}; "strata": fact → finding → {"all",
    # "reweighted": estimate, "within": {stratum: estimate or None}}
    metrics: Mapping[str, Json]


def readability(
    embeddings: Floats, groups: Strings, patient_ids: Array, bootstrap: Bootstrap
) -> Estimate | None:
    """AUROC of a linear probe that reads a fact from embeddings, each image judged by other patients' images.

    Of more than two groups it is the macro mean, one against the rest. The interval is that of the images
    judged, for the five probes as they were fitted: with few images another sample varies more.

    Args:
        embeddings: float (num_images, D).
        groups: (num_images,); "" is unknown.
        patient_ids: (num_images,).
        bootstrap: of the interval, over patients.

    Returns:
        None with fewer than two groups of `FEWEST` patients each.

    Raises:
        ValueError: embeddings that are not finite.
    """
    require(bool(np.isfinite(embeddings).all()), "embeddings", "finite", "NaN or infinite embeddings")
    names = [str(n) for n in np.unique(groups) if n and len(np.unique(patient_ids[groups == n])) >= FEWEST]
    known = np.isin(groups, names)
    if len(names) < 2:
        return None
    x, y, patients = embeddings[known], groups[known], patient_ids[known]
    scores = np.zeros((len(y), len(names)))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=bootstrap.seed)
    for train, test in folds.split(x, y, patients):
        scaler = StandardScaler().fit(x[train])
        model = LogisticRegression(C=_STRENGTH, class_weight="balanced", max_iter=1000)
        model.fit(scaler.transform(x[train]), y[train])
        of_test = model.predict_log_proba(scaler.transform(x[test]))
        for k, name in enumerate(names):
            if name in model.classes_:
                scores[test, k] = of_test[:, list(model.classes_).index(name)]
    areas = [functools.partial(auroc, scores[:, k], (y == name) * 1) for k, name in enumerate(names)]
    return bootstrap.estimate({"auroc": mean_of(areas)}, patients)["auroc"]


def equal_strata_weights(labels: Floats, strata: Strings) -> Floats:
    """Weights with which each stratum has the same share among positives as among negatives.

    An image of stratum s and label y weighs P(s) / P(s | y) among the images of known stratum and label, of
    strata with both labels; others weigh 0.

    >>> equal_strata_weights(np.array([1, 1, 1, 0, 0]), np.array(["a", "a", "b", "a", "b"])).round(2).tolist()
    [0.9, 0.9, 1.2, 1.2, 0.8]
    """
    both = {s for s in np.unique(strata[strata != ""]) if {0.0, 1.0} <= {*labels[strata == s].tolist()}}
    used = np.isin(strata, list(both)) & ~np.isnan(labels.astype(float))
    weights = np.zeros(len(labels))
    for stratum in both:
        share = (strata[used] == stratum).mean()
        for label in (0, 1):
            own = used & (labels == label)
            inside = own & (strata == stratum)
            weights[inside] = share / (inside.sum() / own.sum())
    return weights


def stratified(
    task: Task, scores: Floats, groups: Mapping[str, Strings], bootstrap: Bootstrap
) -> dict[str, Json]:
    """Each finding's AUROC in all images of known stratum, within each stratum, and with equal strata.

    `scores` are float (num_images, num_classes); `groups` fact → (num_images,), "" is unknown. A figure of
    fewer than `FEWEST` patients with or without the finding is None.
    """
    ranked = ranked_scores(task, scores)
    return {
        fact: {
            name: _strata(ranked[:, k], task.labels[:, k], of_image, task.patient_ids, bootstrap)
            for k, name in enumerate(task.classes)
            if enough(task.labels[of_image != "", k], task.patient_ids[of_image != ""])
        }
        for fact, of_image in groups.items()
        if len({*of_image.tolist()} - {""}) > 1
    }


def _strata(scores: Floats, labels: Floats, strata: Strings, patients: Array, bootstrap: Bootstrap) -> Json:
    names = sorted({str(name) for name in strata} - {""})
    statistics: dict[str, Statistic] = {"all": _inside(scores, labels, strata != "")}
    for name in names:
        if enough(labels[strata == name], patients[strata == name]):
            statistics[f"in {name}"] = _inside(scores, labels, strata == name)
    factors = equal_strata_weights(labels, strata)

    def reweighted(weights: Floats) -> Floats:
        return auroc(scores, labels, weights * factors)

    if enough(labels[factors > 0], patients[factors > 0]):
        statistics["reweighted"] = reweighted
    found = {name: estimate.to_dict() for name, estimate in bootstrap.estimate(statistics, patients).items()}
    within = {name: found.get(f"in {name}") for name in names}
    return {"all": found["all"], "reweighted": found.get("reweighted"), "within": within}


def _inside(scores: Floats, labels: Floats, inside: Bools) -> Statistic:
    known = np.where(inside, labels, np.nan)
    return functools.partial(auroc, scores, known)


def readable_facts(
    embeddings: Floats, facts: Mapping[str, Strings], patient_ids: Array, bootstrap: Bootstrap
) -> dict[str, Json]:
    """Fact → number of images of known group, of groups, and the AUROC of `readability`, if there is any."""
    found: dict[str, Json] = {}
    for fact, groups in facts.items():
        estimate = readability(embeddings, groups, patient_ids, bootstrap)
        if estimate:
            numbers = {"num_images": int((groups != "").sum()), "num_groups": len({*groups.tolist()} - {""})}
            found[fact] = numbers | {"auroc": estimate.to_dict()}
    return found


def archive_readability(by_data_set: Mapping[str, tuple[Floats, Array]], bootstrap: Bootstrap) -> Json | None:
    """The row of `readable_facts` for the archive, of several data sets' embeddings and patients.

    Data sets' patients are told apart by the data set's name. None for a single data set.
    """
    if len(by_data_set) < 2:
        return None
    embeddings = np.concatenate([of[0] for of in by_data_set.values()])
    names = np.repeat(list(by_data_set), [len(of[0]) for of in by_data_set.values()])
    patients = np.concatenate([[f"{n}/{p}" for p in of[1]] for n, of in by_data_set.items()])
    return readable_facts(embeddings, {ARCHIVE: names}, patients, bootstrap).get(ARCHIVE)


def shortcuts_section(result: Shortcuts) -> Section:
    """Attributes that a probe reads from the embeddings, and metrics of the findings within strata."""
    readable, strata = result.metrics["readable"], result.metrics["strata"]
    rows = tuple(
        (
            TITLES[fact],
            str(row["num_images"]),
            str(row["num_groups"]),
            with_interval(estimate_of(row["auroc"])),
        )
        for fact, row in readable.items()
    )
    caption = (
        "AUROC of a linear probe on the embeddings, judged on other patients: .5 means that it is not read."
    )
    header: Cells = ("read from the embeddings", "images", "groups", "AUROC [95 % CI]")
    tables = (Table(caption, header, rows, "What the embeddings tell"),) if rows else ()
    return Section(
        "shortcuts",
        "Does it cheat?",
        "Whether the model could answer by archive, view, sex or age, and its figures where it cannot.",
        tables + tuple(_strata_table(TITLES[fact], found) for fact, found in strata.items() if found),
        (),
        (
            "A fact that is read is a chance to cheat, and no proof: compare all, within and equal strata.",
            "Intervals of the first table hold for the probes as fitted: of few images they are too narrow.",
        ),
    )


def _strata_table(title: str, findings: Mapping[str, Json]) -> Table:
    names: Sequence[str] = list(next(iter(findings.values()))["within"])
    header: Cells = (title, "all", "equal strata", *(f"within {name}" for name in names))
    rows = tuple(
        (finding, *(_cell(x) for x in (row["all"], row["reweighted"], *(row["within"][n] for n in names))))
        for finding, row in findings.items()
    )
    caption = "AUROC [95 % CI]; a dash: too few patients with the finding, or without it."
    return Table(caption, header, rows, f"Findings by {title.lower()}")


def _cell(estimate: Json | None) -> str:
    return with_interval(estimate_of(estimate)) if estimate else "–"
