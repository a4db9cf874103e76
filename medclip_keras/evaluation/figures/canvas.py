"""Axes, colours and files of the figures.

Matplotlib draws them, for it is maintained, the papers' figures are of it, and it writes PNG for folders and
TensorBoard as well as SVG for the page. The SVG stands in the page itself: its text and its lines take the
page's colours, light or dark, and it stays sharp on any screen without a script. A figure has one panel, so
that a telephone shows it at a readable size and a wide screen shows two beside each other.
"""

import html
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import pdist

from medclip_keras.evaluation.arrays import Array, Floats, Ints
from medclip_keras.evaluation.results import TRAINED, UNTRAINED

WIDTH, HEIGHT = 4.3, 3.5  # inches
MODEL_COLOURS = {UNTRAINED: "#9fb0c0", TRAINED: "#3a7fc4"}
WARM = "#dd7a33"
_INK, _LINE = "#24303b", "#c4ced7"  # the page's variables --text and --line take their place
_PALETTE = (
    "#3a7fc4", "#dd7a33", "#3c9f68", "#cf4a5c", "#8b6cc6",
    "#a2755c", "#d573b0", "#87919b", "#ab9a2a", "#2ba3b5",
)  # fmt: skip
_LONG = 22  # letters of a label that leaves no room for a second one beside it
_DASHES = ("-", "--", "-.", ":")
STYLE: dict[str, Any] = {
    "text.parse_math": False,  # names of classes are drawn as they are
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "path",
    "svg.hashsalt": "medclip_keras",
}


def new_axes(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """A figure of one panel, in inches; call it and draw within `style`."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    return figure, figure.subplots()


def style() -> Any:
    """Context in which figures are drawn and saved."""
    return matplotlib.rc_context(STYLE)


def as_png(figure: Figure, dpi: int = 110) -> bytes:
    """A PNG file on white."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def as_svg(figure: Figure, name: str, caption: str) -> str:
    """An SVG element for a page with the CSS variables --text and --line; `name` is distinct on the page."""
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", facecolor="none", dpi=200, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.S
    )
    prefix = re.sub(r"[^\w-]", "_", name)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = text.replace(_INK, "var(--text)").replace(_LINE, "var(--line)")
    width, height = (72 * inches for inches in figure.get_size_inches())
    opening = f'<svg role="img" aria-label="{html.escape(caption)}" viewBox="0 0 {width:g} {height:g}" '
    opening += f'style="max-width:{1.5 * width:.0f}px" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return opening + text[text.index(">") + 1 :]


def legend_below(figure: Figure, ax: Axes, columns: int = 2, **options: Any) -> None:
    """A legend under the axes, which covers no curve however many names it has."""
    handles, labels = ax.get_legend_handles_labels()
    if max(map(len, labels), default=0) > _LONG:
        columns = 1
    lines = int(np.ceil(len(labels) / columns))
    figure.set_figheight(figure.get_figheight() + 0.19 * lines)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9, **options)


def legend_label(name: str) -> str:
    """The name; Matplotlib leaves a name that begins with an underscore out of a legend."""
    return f" {name}" if name.startswith("_") else name


def colour(k: int) -> str:
    """Colour of the k-th class, readable on white and on black."""
    return _PALETTE[k % len(_PALETTE)]


def line(k: int) -> dict[str, Any]:
    """Colour and dashes of the k-th class, different for forty classes."""
    return {"color": colour(k), "linestyle": _DASHES[k // len(_PALETTE) % len(_DASHES)], "linewidth": 1.6}


def guide(ax: Axes, x: Sequence[float], y: Sequence[float], label: str) -> None:
    """A line that curves are compared with."""
    ax.plot(x, y, color="#87919b", linestyle=(0, (1, 2)), linewidth=1.2, label=label)


def similar_together(matrix: Floats) -> Ints:
    """An order of rows in which similar rows are neighbours, by hierarchical clustering.

    >>> similar_together(np.array([[0.0, 9.0], [8.0, 0.0], [0.0, 8.0], [9.0, 0.0]])).tolist() in (
    ...     [0, 2, 1, 3], [0, 2, 3, 1], [2, 0, 1, 3], [2, 0, 3, 1],
    ...     [1, 3, 0, 2], [1, 3, 2, 0], [3, 1, 0, 2], [3, 1, 2, 0])
    True

    Follows: Bar-Joseph et al., Bioinformatics 2001 (optimal leaf order), as SciPy has it.

    Args:
        matrix: float (num_rows, num_columns), finite.

    Returns:
        int (num_rows,), a permutation.
    """
    if len(matrix) < 3:
        return np.arange(len(matrix))
    order: Ints = leaves_list(linkage(pdist(matrix), "average", optimal_ordering=len(matrix) <= 500))
    return order


def matrix_axes(num_classes: int) -> tuple[Figure, Axes]:
    """Axes of a square matrix whose numbers do not touch."""
    side = max(2.6, 0.26 * num_classes)
    return new_axes(max(WIDTH, side + 2.0), side + 1.3)


def draw_matrix(ax: Axes, matrix: Array, names: Sequence[str], number: str, **options: Any) -> AxesImage:
    """Cells with their numbers; `number` is a format."""
    drawn = ax.imshow(matrix, **options)
    is_low = np.asarray(drawn.norm(matrix)) < 0.5
    small = len(names) > 8
    for (i, j), value in np.ndenumerate(matrix):
        is_dark = is_low[i, j] == (drawn.get_cmap().name == "viridis")
        text, shade = format(value, number).replace("-0.00", "0.00"), "white" if is_dark else "black"
        text = text.replace("0.", ".") if small else text
        ax.text(j, i, text, ha="center", va="center", fontsize=6.5 if small else 9, color=shade)
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=9)
    ax.set_yticks(range(len(names)), names, fontsize=9)
    ax.tick_params(length=0)
    return drawn
