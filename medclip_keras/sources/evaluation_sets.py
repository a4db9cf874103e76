"""Evaluation sets of the papers' tables: rules that choose the same images of an archive on every machine.

| set | images of | test | train |
|---|---|---|---|
| chexpert_5x200 | chexpert | 200 a finding | 200 a finding |
| chexpert_5x200_gloria | chexpert | 200 a finding | 200 a finding |
| mimic_5x200 | mimic_cxr | 200 a finding | 200 a finding |
| rsna, rsna_any_negative | rsna | 1,769 of 3,538 positive | 4,243 of 8,486 positive |
| covid, covid_any_negative | covid | 1,470 of 3,000 positive | 411 of 2,162 positive |
| chexpert_8x200 | convirt_8x200 | all: 1,600 candidates, 80 queries | – |

Sizes are those of MedCLIP's Table 3, which gives shares in whole per cent (49 % of 3,000, 19 % of 2,162). Its
train images are for the linear probe. No paper published its images, so a figure on these sets stands beside
a published one, not on it.

The choice. An image is drawn by SHA-256 of its identifier under a fixed salt, and the first ones are taken:
no state, no seed, the same images on every machine and in whatever order the rows come. Test is filled first,
in it the scarcest class first; no patient of test is in train. Test must be full; where there are too few
images for train, the set has none. Take all the set's patients out of what a model is trained on
(`--hold_out`), also where that is another archive of the same patients: `chexpert_plus` for sets of
CheXpert's images, `r2gen` for those of MIMIC-CXR's.

5x200: frontal images of the archive's training split (or of no split) that are positive for one of CheXpert's
five competition findings and negative or blank for the other four; one that is uncertain for any of the five
is no candidate. An image a patient, and a second one only where patients do not suffice. GLoRIA
(Huang et al., ICCV 2021) demands in its code (`preprocess_chexpert_5x200_data`,
https://github.com/marshuang80/gloria) negative or blank for eight further observations too, all but No
Finding: that is `chexpert_5x200_gloria`. It drew without a seed and took the images, but not their patients,
out of training. MedCLIP (Wang et al., EMNLP 2022) says it follows GLoRIA; of the nine rows of its table that
are public (`chexpert-5x200-val-meta.csv`) two are lateral. MIMIC-5x200 is MedCLIP's, by the same rule.

rsna: Pneumonia is Target 1, Normal the class Normal (MedCLIP's released prompts are of these two), which
needs the table of classes; `rsna_any_negative` takes every image with Target 0, as GLoRIA did. 4,243 and
1,769 are all the 6,012 positives of stage 2. The paper leaves open which negatives, and whether patients are
disjoint. Here patients are whole on one side, if the source knows them (its mapping to the NIH's names);
else an image counts as a patient. Test sets of 8,006 images are GLoRIA's validation and test together, 15 %
each of 26,684 images, drawn by image; 9,006 is how a later paper prints it.

covid: COVID-19 and Normal of the COVID-19 Radiography Database in its release of 21,165 images (3,616 COVID);
`covid_any_negative` takes every image that is negative for COVID-19, and so reads COVIDx' lists of positive
and negative. Lists' own splits are not used. The paper names Rahman et al., 2021, but neither a release nor
which negatives.

chexpert_8x200: ConVIRT's tables as they are (Zhang et al., MLHC 2022). Its patients are CheXpert's, of the
training split.

Refused before any work: another name; an archive with too few images for test.
"""

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from etils import epath

from medclip_keras.errors import near_names, refusal, require
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import get_source
from medclip_keras.sources.convirt_8x200 import CATEGORIES
from medclip_keras.sources.rows import ImageRow
from medclip_keras.sources.tables import CHEXPERT_OBSERVATIONS

COMPETITION_FINDINGS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
NORMAL = "No Finding"
_SALT = "medclip_keras evaluation sets"  # another salt is another choice: it never changes
_ABSENT = (LabelState.NEGATIVE, LabelState.NOT_MENTIONED, None)
_MEDCLIP = "Wang et al., MedCLIP: contrastive learning from unpaired medical images and text, EMNLP 2022"
_GLORIA = "Huang et al., GLoRIA: a multimodal global-local representation learning framework, ICCV 2021"


@dataclass(frozen=True)
class EvaluationSet:
    """The rule that chooses the images of a set from a source.

    Attributes:
        class_of: the class of a candidate; "" for an image that is none.
        classes: those that `class_of` gives.
        sizes: split → images of each class, in the order in which splits are filled; empty: all candidates,
            in their own split.
        one_a_patient: take a second image of a patient only where patients do not suffice; else all images
            of a patient that are candidates go together.
        patients_of: the sources whose patient identifiers are those of this set.
        citation: of who made the set; the images' own is the source's.
    """

    name: str
    source: str
    class_of: Callable[[ImageRow], str] = field(repr=False)
    classes: tuple[str, ...]
    sizes: Mapping[str, tuple[int, ...]]
    one_a_patient: bool
    patients_of: tuple[str, ...]
    citation: str


@dataclass(frozen=True)
class Membership:
    """The images of a set.

    Attributes:
        split_of: image_id → "train" or "test".
        patients: of all its images.
        counts: split → class → images.
        names_patients: whether the archive tells patients from images.
    """

    name: str
    split_of: Mapping[str, str] = field(repr=False)
    patients: frozenset[str] = field(repr=False)
    counts: Mapping[str, Mapping[str, int]]
    names_patients: bool

    @property
    def sentence(self) -> str:
        """The counts in words."""
        by_split = (
            f"{split} {sum(classes.values())} ({', '.join(f'{c} {n}' for c, n in classes.items())})"
            for split, classes in self.counts.items()
        )
        return f"{self.name}: {'; '.join(by_split)}; {len(self.patients)} patients"


class _Candidate(NamedTuple):
    draw: str
    image_id: str
    patient_id: str
    image_class: str
    split: str


def exclusive_finding(row: ImageRow, others: Iterable[str] = COMPETITION_FINDINGS) -> str:
    """The only positive competition finding of a frontal training image, else "".

    All of `others`, the one aside, must be negative or not mentioned.
    """
    if row.view != "frontal" or row.split not in ("train", ""):
        return ""
    present = {name: row.labels[name] for name in others if row.labels.get(name) not in _ABSENT}
    alone = next(iter(present)) if len(present) == 1 else ""
    is_positive = alone in COMPETITION_FINDINGS and present[alone] == LabelState.POSITIVE
    return alone if is_positive else ""


def exclusive_finding_of_gloria(row: ImageRow) -> str:
    """`exclusive_finding` with all of CheXpert's other observations but No Finding absent too."""
    return exclusive_finding(row, [name for name in CHEXPERT_OBSERVATIONS if name != NORMAL])


def class_of_two(finding: str, negatives: str, must_be_normal: bool, row: ImageRow) -> str:
    """The class of an image: `finding` if it is positive for it, `negatives` if it is negative, else "".

    A negative may have to be normal: positive for No Finding.
    """
    state = row.labels.get(finding)
    if state == LabelState.POSITIVE:
        return finding
    normal = not must_be_normal or row.labels.get(NORMAL) == LabelState.POSITIVE
    return negatives if state == LabelState.NEGATIVE and normal else ""


def category_of_8x200(row: ImageRow) -> str:
    """The only positive category of one of ConVIRT's candidates or queries."""
    return next(name for name, state in row.labels.items() if state == LabelState.POSITIVE)


def _five_by_200(name: str, source: str, class_of: Callable[[ImageRow], str], citation: str) -> EvaluationSet:
    sizes = {"test": (200,) * 5, "train": (200,) * 5}
    patients_of = _PATIENTS_OF[source]
    return EvaluationSet(name, source, class_of, COMPETITION_FINDINGS, sizes, True, patients_of, citation)


def _two_classes(
    name: str, finding: str, normal: bool, sizes: Mapping[str, tuple[int, ...]], patients_of: tuple[str, ...]
) -> EvaluationSet:
    classes = (finding, "Normal" if normal else f"no {finding}")
    class_of = functools.partial(class_of_two, *classes, normal)
    return EvaluationSet(name, patients_of[0], class_of, classes, sizes, False, patients_of, _MEDCLIP)


# Sources with the same patients under the same identifiers.
_PATIENTS_OF = {
    "chexpert": ("chexpert", "chexpert_plus"),
    "mimic_cxr": ("mimic_cxr", "mimic_cxr_test", "r2gen"),
}
_SIZES_OF_RSNA = {"test": (1769, 1769), "train": (4243, 4243)}
_SIZES_OF_COVID = {"test": (1470, 1530), "train": (411, 1751)}
_SETS = (
    _five_by_200("chexpert_5x200", "chexpert", exclusive_finding, f"{_GLORIA}; {_MEDCLIP}"),
    _five_by_200("chexpert_5x200_gloria", "chexpert", exclusive_finding_of_gloria, _GLORIA),
    _five_by_200("mimic_5x200", "mimic_cxr", exclusive_finding, _MEDCLIP),
    _two_classes("rsna", "Pneumonia", True, _SIZES_OF_RSNA, ("rsna", "nih_chestxray14")),
    _two_classes("rsna_any_negative", "Pneumonia", False, _SIZES_OF_RSNA, ("rsna", "nih_chestxray14")),
    _two_classes("covid", "COVID-19", True, _SIZES_OF_COVID, ("covid",)),
    _two_classes("covid_any_negative", "COVID-19", False, _SIZES_OF_COVID, ("covid",)),
    EvaluationSet(
        name="chexpert_8x200",
        source="convirt_8x200",
        class_of=category_of_8x200,
        classes=CATEGORIES,
        sizes={},
        one_a_patient=False,
        patients_of=("convirt_8x200", *_PATIENTS_OF["chexpert"]),
        citation="Zhang et al., Contrastive learning of medical visual representations, MLHC 2022",
    ),
)
EVALUATION_SETS = {one.name: one for one in _SETS}


def get_evaluation_set(name: str) -> EvaluationSet:
    """Look up a set by its name, or raise the error sentence.

    >>> get_evaluation_set("mimic_5x200").source
    'mimic_cxr'
    """
    if name not in EVALUATION_SETS:
        requirement = f"one of {', '.join(EVALUATION_SETS)}"
        raise refusal("evaluation_set", requirement, name, near_names(name, EVALUATION_SETS))
    return EVALUATION_SETS[name]


def members_of(name: str, path: epath.PathLike) -> Membership:
    """Choose the images of a set from an archive, as the set's source reads it; raises as `choose`."""
    evaluation_set = get_evaluation_set(name)
    return choose(evaluation_set, get_source(evaluation_set.source).image_rows(path))


def choose(evaluation_set: EvaluationSet, rows: Iterable[ImageRow]) -> Membership:
    """Choose the images of a set from the rows of its source, in any order.

    Raises:
        ValueError: too few images for a split other than train.
    """
    names_patients = False
    candidates = []
    for row in rows:
        names_patients |= row.patient_id != row.image_id
        if image_class := evaluation_set.class_of(row):
            ids = _draw(row.image_id), row.image_id, row.patient_id
            candidates.append(_Candidate(*ids, image_class, row.split))
    if evaluation_set.sizes:
        chosen = dict(_fill_splits(evaluation_set, sorted(candidates)))
    else:
        chosen = _group(candidates, lambda one: one.split)
    return Membership(
        name=evaluation_set.name,
        split_of={one.image_id: split for split, images in chosen.items() for one in images},
        patients=frozenset(one.patient_id for images in chosen.values() for one in images),
        counts={split: _count(evaluation_set.classes, images) for split, images in chosen.items()},
        names_patients=names_patients,
    )


def _draw(identifier: str) -> str:
    return hashlib.sha256(f"{_SALT}\0{identifier}".encode()).hexdigest()


def _count(classes: Iterable[str], images: Iterable[_Candidate]) -> dict[str, int]:
    of_images = [one.image_class for one in images]
    return {name: of_images.count(name) for name in classes}


def _fill_splits(
    evaluation_set: EvaluationSet, free: list[_Candidate]
) -> Iterator[tuple[str, list[_Candidate]]]:
    """Each split with its images; train is empty if there are too few."""
    for split, sizes in evaluation_set.sizes.items():
        wanted = dict(zip(evaluation_set.classes, sizes, strict=True))
        images = _fill(wanted, free, evaluation_set.one_a_patient)
        if _count(wanted, images) != wanted:
            requirement = f"an archive with enough images for the {split} split of {evaluation_set.name}: "
            requirement += ", ".join(f"{name} {number}" for name, number in wanted.items())
            advice = "Point at the whole release; the documentation of evaluation_sets says which."
            require(split == "train", "input", requirement, _count(wanted, free), advice)
            images = []
        patients = {one.patient_id for one in images}
        free = [one for one in free if one.patient_id not in patients]
        yield split, images


def _fill(wanted: Mapping[str, int], free: list[_Candidate], one_a_patient: bool) -> list[_Candidate]:
    """Images of a split: the wanted number of each class, or all if there are fewer.

    `free` are candidates whose patients are in no other split, in the order of their draw.
    """
    of_patient = _group(free, lambda one: one.patient_id)
    chosen: list[_Candidate] = []
    patients: set[str] = set()
    filled: set[str] = set()

    def suits(patient: str) -> bool:
        if one_a_patient:
            return patient not in patients
        # The scarcer classes' images of a patient that comes in now would be missing in another split.
        return patient in patients or not any(one.image_class in filled for one in of_patient[patient])

    available = _count(wanted, free)
    for name in sorted(wanted, key=lambda name: available[name] / wanted[name]):
        images = [one for one in free if one.image_class == name]
        room = wanted[name] + len(chosen)
        left = []
        for bundle in _bundles(images, one_a_patient):
            if len(chosen) + len(bundle) <= room and suits(bundle[0].patient_id):
                chosen += bundle
                patients.add(bundle[0].patient_id)
            else:
                left += bundle
        rest = left[: room - len(chosen)]  # other patients' images, the last patient in part
        chosen += rest
        patients.update(one.patient_id for one in rest)
        filled.add(name)
    return chosen


def _group(images: Iterable[_Candidate], key: Callable[[_Candidate], str]) -> dict[str, list[_Candidate]]:
    groups: dict[str, list[_Candidate]] = {}
    for one in images:
        groups.setdefault(key(one), []).append(one)
    return groups


def _bundles(images: list[_Candidate], one_a_patient: bool) -> list[list[_Candidate]]:
    """Units of a draw: single images, or each patient's images in the order of the patients' own draw."""
    if one_a_patient:
        return [[one] for one in images]
    of_patient = _group(images, lambda one: one.patient_id)
    return [of_patient[patient] for patient in sorted(of_patient, key=_draw)]
