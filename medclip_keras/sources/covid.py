"""COVID-19 chest X-rays of three publications; the layout at the path decides which.

Layout on disk, one of three.

COVID-19 Radiography Database (https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database)
    COVID/images/COVID-1.png  Lung_Opacity/images/…  Normal/images/…  Viral Pneumonia/images/…
    COVID/masks/…, COVID.metadata.xlsx, …    are not read; earlier releases have no images/ between
    3,616 COVID, 6,012 Lung_Opacity, 10,192 Normal, 1,345 Viral Pneumonia
    Licence: the collected archives' own. Chowdhury et al., IEEE Access 8, 2020; Rahman et al., Computers in
    Biology and Medicine 132, 2021.
    It names no patients: an image counts as a patient of its own.

COVIDx (https://github.com/lindawangg/COVID-Net/blob/master/docs/COVIDx.md), lists and the images they name
    train_COVIDx9A.txt, test_COVIDx9A.txt    or train.txt, test.txt, val.txt, as on Kaggle (covidx-cxr2)
    train/<filename>, test/<filename>, …
    A line is `patientid filename class source`, the last one absent in COVIDx 2. Patients of the source
    `sirm` have a blank in their name. Classes are normal, pneumonia and COVID-19 (A), or positive and
    negative (B).
    COVIDx 9A: 30,130 and 400 images; 9B: 30,482 and 400; 3: 13,670 and 300.
    Licence: the collected archives' own. Wang et al., COVID-Net, Scientific Reports 10, 2020.
    The lists are the split. COVIDx 6 and 7B have one patient on both sides; COVIDx 1 and 4 repeat images
    and are refused.

Hannover (https://github.com/ml-workgroup/covid-19-image-repository)
    data.csv    a row an image: patient_id, image_id, projection (ap, pa), …
    png/<image_id>.png    or images/<image_id>.jpg, …
    243 images of 71 patients, all with COVID-19.
    Licence CC BY 3.0. Winther et al., COVID-19 Image Repository, doi:10.6084/m9.figshare.12275009, 2020.

Labels, by class; a dash is not mentioned, and no class is uncertain:

                                COVID-19  Pneumonia  Viral Pneumonia  Lung Opacity  No Finding
    COVID, COVID-19, positive;  positive  –          –                –             –
      Hannover's patients
    negative                    negative  –          –                –             –
    Viral Pneumonia             negative  positive   positive         –             negative
    pneumonia                   negative  positive   –                –             negative
    Lung_Opacity                negative  –          –                positive      negative
    Normal, normal              negative  negative   negative         negative      positive

COVID-19 is a laboratory's finding: the picture may be normal or not. It and Viral Pneumonia are concepts of
`thorax` alone, so label records with `--concepts thorax`.

Lung_Opacity and most of Normal are RSNA's images (and so the NIH's), Viral Pneumonia and the rest of Normal
are Kermany's children, and COVIDx has RSNA's too, under RSNA's names: a model tells the archives apart, and
training on one of them with a test on another leaks. Hannover has no normals; never pair it with another
archive's.

Refused before any work: a folder of none or of several of these layouts; a missing list, column or part of a
line; a file that is named twice.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

from etils import epath

from medclip_keras.errors import require
from medclip_keras.sources import dicom
from medclip_keras.sources.files import image_files
from medclip_keras.sources.rows import ImageRow, age_of, position_of, sex_of
from medclip_keras.sources.tables import read_lines, read_table, require_distinct, states_of

CITATION = (
    "Rahman et al., Exploring the effect of image enhancement techniques on COVID-19 detection using chest "
    "X-ray images, Computers in Biology and Medicine 132, 2021; or Wang et al., COVID-Net, Scientific "
    "Reports 10, 2020; or Winther et al., COVID-19 Image Repository, figshare 2020"
)
LICENCE = "The collected archives' own; Hannover CC BY 3.0"

read_image = dicom.read_image  # PNG or JPEG files

FOLDERS = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
TABLE = "data.csv"
_LISTS = {  # split → names of its list, folder of its images
    "train": (("train_COVIDx*.txt", "train.txt"), "train"),
    "test": (("test_COVIDx*.txt", "test.txt"), "test"),
    "valid": (("val_COVIDx*.txt", "val.txt"), "val"),
}
_MASKS = re.compile("masks/")
_CLASSES_OF_LISTS = ("normal", "pneumonia", "COVID-19", "positive", "negative")
_LINE = re.compile(rf"(?P<patient>.+) (?P<file>\S+\.\w+) (?P<label>{'|'.join(_CLASSES_OF_LISTS)})(?: \S+)?")
_VIEWS = {"ap": "frontal", "pa": "frontal", "lateral": "lateral"}

_COVID = states_of("covid", ["COVID-19"], [])
_NORMAL = states_of("covid", ["Normal"], ["COVID-19", "Pneumonia", "Viral Pneumonia", "Lung_Opacity"])
STATES = {  # class → states
    "COVID": _COVID,
    "COVID-19": _COVID,
    "positive": _COVID,
    "negative": states_of("covid", [], ["COVID-19"]),
    "Viral Pneumonia": states_of("covid", ["Viral Pneumonia", "Pneumonia"], ["COVID-19", "Normal"]),
    "pneumonia": states_of("covid", ["Pneumonia"], ["COVID-19", "Normal"]),
    "Lung_Opacity": states_of("covid", ["Lung_Opacity"], ["COVID-19", "Normal"]),
    "Normal": _NORMAL,
    "normal": _NORMAL,
}


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The images; `path` is the folder that holds the class folders, the lists, or data.csv."""
    root = epath.Path(path)
    layouts = {
        f"the folders {', '.join(FOLDERS)}": (any((root / name).is_dir() for name in FOLDERS), _folder_rows),
        "the lists train_COVIDx*.txt and test_COVIDx*.txt": (any(_find_lists(root).values()), _list_rows),
        f"Hannover's {TABLE}": ((root / TABLE).is_file(), _table_rows),
    }
    found = [name for name, (is_there, _) in layouts.items() if is_there]
    requirement = f"a folder with one of: {'; '.join(layouts)}"
    received = f"{path}, which has {' and '.join(found) or 'none of them'}"
    require(len(found) == 1, "input", requirement, received, "See the documentation of this source.")
    _, rows = layouts[found[0]]
    yield from rows(root)


def _folder_rows(root: epath.Path) -> list[ImageRow]:
    rows = []
    for folder in FOLDERS:
        images = root / folder / "images"
        images = images if images.is_dir() else root / folder
        require(images.is_dir(), "input", f"a folder with {folder}/images", str(root), "Download it again.")
        found = ((file, f"{file.relative_to(images)}") for file in image_files(images))
        rows += [_row(f"{folder}/{name}", file, folder) for file, name in found if not _MASKS.match(name)]
    return rows


def _find_lists(root: epath.Path) -> dict[str, list[epath.Path]]:
    return {split: sorted(itertools.chain(*map(root.glob, names))) for split, (names, _) in _LISTS.items()}


def _list_rows(root: epath.Path) -> list[ImageRow]:
    lists = _find_lists(root)
    for split, files in lists.items():
        names = [file.name for file in files]
        enough = len(files) == 1 or (split == "valid" and not files)
        require(enough, "input", f"one {split} list", names, "Keep the lists of one version in the folder.")
    rows: dict[str, ImageRow] = {}
    for split, file in ((split, file) for split, files in lists.items() for file in files):
        for row in _rows_of_list(file, root / _LISTS[split][1], split):
            other = rows.setdefault(row.image_id, row).split
            received = f"an image of both the {other} and the {split} list"
            require(other == split, "filename", "in one list", received, "Delete it from one of them.")
    return list(rows.values())


def _rows_of_list(file: epath.Path, images: epath.Path, split: str) -> list[ImageRow]:
    requirement = f"lines of patient, file, class ({', '.join(_CLASSES_OF_LISTS)}), source"
    lines = read_lines(file, _LINE, "input", requirement)
    require_distinct((line["file"] for line in lines), "filename", file)
    return [_row(x["file"], images / x["file"], x["label"], x["patient"], split=split) for x in lines]


def _table_rows(root: epath.Path) -> Iterator[ImageRow]:
    rows = list(read_table(root / TABLE, ("patient_id", "image_id", "projection")))
    require_distinct((row["image_id"] for row in rows), "image_id", root / TABLE)
    files = {f.stem: f for name in ("png", "images") for f in image_files(root / name)}
    for row in rows:
        name, view = row["image_id"], _VIEWS.get(row["projection"].strip().lower(), "")
        file = files.get(name, root / "png" / f"{name}.png")
        yield replace(
            _row(name, file, "COVID-19", row["patient_id"], view=view),
            view_position=position_of(row["projection"]),
            sex=sex_of(row.get("sex", "")),
            age=age_of(row.get("age", "")),
        )


def _row(
    image_id: str, file: epath.Path, label: str, patient_id: str = "", *, view: str = "", split: str = ""
) -> ImageRow:
    return ImageRow(
        image_id=image_id,
        study_id=image_id,
        patient_id=patient_id or image_id,
        path=str(file),
        view=view,
        labels=STATES[label],
        split=split,
    )
