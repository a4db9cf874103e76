"""The published data sets: one module reads one layout on disk as rows.

A module offers `image_rows(path)` with `read_image(row)`, `report_rows(path)` with `read_report(row)`, or
both. `path` is the folder that its docstring describes (of `csv`: the table). Rows come in the order of the
tables, whether the files that these name exist or not; without a table, in the order of the names. The
modules of the user's own data, `csv`, `table`, `dicom` and `fhir`, are `PRIVATE`; they count `unused_columns`
of a table, or the files `passed_over` in a folder. `PATIENTS_OF` names another source with the same patients
under the same identifiers.

An image row's `labels` hold the concepts that the archive labels in this image, silent ones too; every other
concept of a record is `LabelState.UNLABELLED`. These labels are facts of each archive's documentation; its
names for them are in `knowledge/tables/label_names.csv`:

| source | labels |
|---|---|
| phantom | every concept: what was not drawn is absent (`LABELS_ALL`) |
| nih_chestxray14 | its 14 findings and No Finding |
| kermany | Pneumonia, No Finding |
| chexpert, chexpert_plus, mimic_cxr, mimic_cxr_test, brax | CheXpert's 14; a study without a row: none |
| convirt_8x200 | its 8 categories; a query image: its own category |
| rsna | Pneumonia; No Finding with the table of classes; Lung Opacity in images with a box or Normal |
| covid | COVID-19; by class, Pneumonia, Viral Pneumonia, Lung Opacity, No Finding too |
| padchest | all its labels; with "unchanged", "exclude" or "suboptimal study" those that it names |
| vindr_cxr | its findings and No Finding; a wider concept where a narrower one is present |
| siim_acr | Pneumothorax; No Finding, absent, where it is present |
| mura | its outcome, no concept of the chest |
| openi, r2gen, rexgradient, dicom, fhir | none: labels come from reports |
| csv, table | the concepts that are columns |

Raises: ValueError, before the first row, for everything that the docstring lists as refused;
`rows.BadRowError` or OSError for one file that cannot be read.

Adding a data set is one module here, its name in `SOURCES`, and its test with a function `write_layout`.
"""

import importlib
from types import ModuleType

from medclip_keras.errors import near_names, refusal

SOURCES = (  # names of modules in this folder, imported on demand
    "phantom",
    "openi",
    "nih_chestxray14",
    "kermany",
    "mimic_cxr",
    "chexpert",
    "rsna",
    "covid",
    "mura",
    "convirt_8x200",
    "chexpert_plus",
    "mimic_cxr_test",
    "padchest",
    "vindr_cxr",
    "brax",
    "siim_acr",
    "r2gen",
    "rexgradient",
    "csv",
    "table",
    "dicom",
    "fhir",
)


def get_source(name: str) -> ModuleType:
    """The module that reads a data set.

    >>> get_source("phantom").__name__
    'medclip_keras.sources.phantom'

    Raises:
        ValueError: no such data set.
    """
    if name not in SOURCES:
        raise refusal("source", f"one of {', '.join(SOURCES)}", name, near_names(name, SOURCES))
    return importlib.import_module(f"{__name__}.{name}")


def patients_of(name: str) -> str:
    """Name of the archive with a source's patients; one for all sources of the user's own data.

    >>> patients_of("convirt_8x200"), patients_of("openi"), patients_of("csv")
    ('chexpert', 'openi', 'own')
    """
    source = get_source(name) if name in SOURCES else None
    return getattr(source, "PATIENTS_OF", "own" if getattr(source, "PRIVATE", False) else name)
