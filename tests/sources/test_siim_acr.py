"""SIIM-ACR: outlines to Pneumothorax, files below folders of studies and series."""

import gzip

from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import siim_acr

POSITIVE, NEGATIVE = LabelState.POSITIVE, LabelState.NEGATIVE
ROWS = (("1.2.3", "1 5 7 2 "), ("1.2.4", "-1"), ("1.2.3", "90 4"), ("1.2.5", "-1"))
TEXT = "ImageId, EncodedPixels\n" + "".join(f"{image}, {outline}\n" for image, outline in ROWS)


def write_layout(folder, image_file):
    root = folder / "siim"
    for seed, image in enumerate(sorted({image for image, _ in ROWS})):
        path = root / siim_acr.IMAGES / f"9.{seed}" / f"8.{seed}" / f"{image}.dcm"
        path.parent.mkdir(parents=True)
        path.write_bytes(image_file(seed, "dicom"))
    (root / TABLE).write_text(TEXT)
    return root


TABLE = siim_acr.TABLES[0]
DAMAGED = {
    write_layout: [
        (TABLE, None, rf"`input` must be a folder with {TABLE}\. .*kaggle\.com/c/siim-acr"),
        (TABLE, lambda t: t.replace("ImageId", "Image"), "`ImageId` must be a column of"),
        (
            TABLE,
            lambda t: t.replace(" Encoded", " encoded"),
            "`EncodedPixels` must be a column .*encodedPixels",
        ),
        (
            TABLE,
            lambda t: t.replace("90 4", "90"),
            "`EncodedPixels` must be -1 or pairs of numbers.*row 3 of",
        ),
        (TABLE, lambda t: t.replace("90 4", "-1"), "`EncodedPixels` must be -1 in all rows of an .*row 3 of"),
        (TABLE, lambda t: t + "1.2.4,-1\n", "must be different in every row .*'row 5, which repeats row 2'"),
    ]
}


def test_an_image_is_one_row_with_all_its_outlines(archive, decoded):
    rows = list(siim_acr.image_rows(archive))
    assert [row.image_id for row in rows] == ["1.2.3", "1.2.4", "1.2.5"]
    assert all(row.image_id == row.patient_id for row in rows)
    assert rows[1].path == f"{archive}/{siim_acr.IMAGES}/9.1/8.1/1.2.4.dcm"
    without = {"Pneumothorax": NEGATIVE}
    assert list(decoded(siim_acr, archive).values()) == [
        {"Pneumothorax": POSITIVE, "No Finding": NEGATIVE},
        without,
        without,
    ]


def test_the_table_of_torchxrayvision_is_read(archive):
    rows = list(siim_acr.image_rows(archive))
    (archive / siim_acr.TABLES[1]).write_bytes(gzip.compress((archive / TABLE).read_bytes()))
    (archive / TABLE).unlink()
    assert list(siim_acr.image_rows(archive)) == rows
