"""Sections of the evaluation's page: a part's sentence, tables and figures, as data."""

from dataclasses import dataclass

from matplotlib.figure import Figure

from medclip_keras.evaluation.table import Cells


@dataclass(frozen=True)
class Table:
    """A table of text; its first column names the rows."""

    caption: str  # how to read it
    header: Cells  # (num_columns,)
    rows: tuple[Cells, ...]  # (num_rows,) of num_columns cells
    title: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure; it shows no report text and no picture of a patient."""

    name: str  # file stem, distinct among the figures of a data set
    caption: str  # one sentence of what it shows
    figure: Figure


@dataclass(frozen=True)
class Thumbnail:
    """A picture of a strip."""

    url: str  # holds the picture itself, as data:image/png;base64,…
    caption: str
    right: bool | None = None  # whether it belongs to the strip's class; None: not asked


@dataclass(frozen=True)
class Strip:
    """Pictures beside each other."""

    title: str
    pictures: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Section:
    """One part of an evaluation on one data set, such as zero-shot classification."""

    anchor: str  # the part of the link, distinct among the sections of a data set
    title: str
    sentence: str  # what was measured, for a reader outside the field
    tables: tuple[Table, ...] = ()
    figures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()  # what limits the figures
    strips: tuple[Strip, ...] = ()
    published: tuple[Table, ...] = ()  # the papers' figures, on their data
