"""Matrices whose rows and columns are put beside those that they are like."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster import hierarchy
from scipy.spatial import distance

Matrix = npt.NDArray[np.float64]
Joint = tuple[list[float], list[float]]  # four places in rows, four heights in 0…1
MOST = 400  # rows of a tree that is drawn: scipy walks through it by recursion


@dataclass(frozen=True)
class Heatmap:
    """A matrix as a page draws it."""

    rows: list[str]
    columns: list[str]
    measures: list[str]  # what the values of each column are
    values: list[list[float | None]]  # -1…1 for colour; AUROC as 2 AUROC - 1
    row_tree: list[Joint]
    column_tree: list[Joint]
    views: list[int | None]  # for each row what is shown of it elsewhere in the page


def clustered(
    values: Matrix,
    rows: Sequence[str],
    columns: Sequence[str],
    measures: Sequence[str],
    views: Sequence[int | None],
) -> Heatmap:
    """Values [R, C] in -1…1 (NaN: not known), by average linkage of Euclidean distances, neighbours alike."""
    down, row_tree = _tree(values)
    across, column_tree = _tree(values.T)
    ordered = values[np.ix_(down, across)].round(3)
    cells = [[None if np.isnan(cell) else float(cell) for cell in row] for row in ordered]
    return Heatmap(
        rows=[rows[place] for place in down],
        columns=[columns[place] for place in across],
        measures=[measures[place] for place in across],
        values=cells,
        row_tree=row_tree,
        column_tree=column_tree,
        views=[views[place] for place in down],
    )


def _tree(vectors: Matrix) -> tuple[list[int], list[Joint]]:
    """The order of the vectors [N, C], and the joints of their tree."""
    if len(vectors) < 3 or not vectors.shape[1]:
        return list(range(len(vectors))), []
    apart = distance.pdist(np.nan_to_num(vectors))
    links = hierarchy.linkage(apart, "average", optimal_ordering=True)
    if len(vectors) > MOST or not links[-1, 2]:
        return hierarchy.leaves_list(links).tolist(), []
    drawn = hierarchy.dendrogram(links, no_plot=True)
    highest = links[-1, 2]

    # scipy's leaves lie at 5, 15, 25 …
    joints = []
    for places, heights in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        at = [(place - 5) / 10 for place in places]
        joints.append((at, [round(height / highest, 3) for height in heights]))
    return drawn["leaves"], joints
