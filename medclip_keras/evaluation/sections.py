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
class Section:
    """One part of an evaluation on one data set, such as zero-shot classification."""

    anchor: str  # the part of the link, distinct among the sections of a data set
    title: str
    sentence: str  # what was measured, for a reader outside the field
    tables: tuple[Table, ...] = ()
    figures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()  # what limits the figures
