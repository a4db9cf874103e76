"""Maps of image embeddings, and distributions of similarities.

Follows: Wang et al., EMNLP 2022, figure 4 (t-SNE of image embeddings by class) and figure 5 (distributions of
    similarity); van der Maaten and Hinton, JMLR 2008, in scikit-learn's form.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from medclip_keras.evaluation.arrays import Floats, Ints
from medclip_keras.evaluation.figures.canvas import colour, legend_below, legend_label, new_axes
from medclip_keras.evaluation.results import TRAINED, ZeroShotResult

MOST_POINTS = 1000  # images of a map; more are drawn at random
FEWEST_POINTS = 5
_RASTER_ABOVE = 400  # points that are one picture in an SVG
_KIND_COLOURS = {"matched": "#3c9f68", "unmatched": "#87919b", "contradicting": "#cf4a5c"}


def tsne(points: Floats, seed: int = 0) -> Floats:
    """Neighbours stay neighbours: points float (N, D) to the plane, float (N, 2), of zero mean.

    Raises:
        ValueError: fewer than `FEWEST_POINTS` points.
    """
    if not np.any(points - points[0]):  # equal points have no direction
        return np.zeros((len(points), 2))
    perplexity = min(30.0, (len(points) - 1) / 4)
    model = TSNE(perplexity=perplexity, init="pca", random_state=seed, max_iter=500, n_jobs=1)
    plane: Floats = model.fit_transform(points.astype(np.float32))
    plane -= plane.mean(axis=0)
    return plane


def chosen_points(num_points: int, seed: int = 0) -> Ints:
    """At most `MOST_POINTS` positions, ascending."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.permutation(num_points)[:MOST_POINTS])


def has_map(result: ZeroShotResult) -> bool:
    """Whether there are enough images for a map."""
    return len(result.task.rows) >= FEWEST_POINTS


def embedding_map(result: ZeroShotResult, who: str = TRAINED) -> Figure:
    """t-SNE of the image embeddings; colours are classes, gray has none or several."""
    rows = chosen_points(len(result.task.rows))
    plane = tsne(result.image_embeddings[who][rows])
    classes = [name for name in result.task.classes if name in result.prompts.classes]
    columns = [result.task.classes.index(name) for name in classes]
    labels = np.nan_to_num(result.task.labels[rows][:, columns])
    only = np.where(labels.sum(axis=1) == 1, labels.argmax(axis=1), -1)
    figure, ax = new_axes(height=3.0)
    options: dict[str, Any] = {"s": 11, "linewidths": 0, "rasterized": len(rows) > _RASTER_ABOVE}
    if (only < 0).any():
        ax.scatter(*plane[only < 0].T, color="#87919b", alpha=0.45, label="none or several", **options)
    for k, name in enumerate(classes):
        if (only == k).any():
            ax.scatter(*plane[only == k].T, color=colour(k), alpha=0.8, label=legend_label(name), **options)
    ax.set(xticks=[], yticks=[])
    legend_below(figure, ax, markerscale=2)
    return figure


def pair_distributions(pairs: Mapping[str, Floats]) -> Figure:
    """Densities of the cosines of each kind of pairs of an image and a sentence, with their medians."""
    figure, ax = new_axes(height=2.8)
    values = np.concatenate(list(pairs.values()))
    edges = np.linspace(values.min() - 1e-6, values.max() + 1e-6, 41)
    for kind, cosines in pairs.items():
        shade = _KIND_COLOURS[kind]
        label = f"{kind}, median {np.median(cosines):.2f}"
        ax.hist(cosines, edges, density=True, color=shade, alpha=0.45, label=label)
        ax.axvline(float(np.median(cosines)), color=shade, linewidth=1.6)
    ax.set(xlabel="cosine of image and sentence", yticks=[], ylabel="density")
    legend_below(figure, ax, columns=1)
    return figure
