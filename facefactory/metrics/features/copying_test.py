"""The test of data copying C_T (Meehan, Chaudhuri & Dasgupta, AISTATS 2020, arXiv 2004.05675).

Are fakes nearer to the training set than new images are? Mann-Whitney's z of their distances to
the nearest training image, below 0 when fakes are nearer, in each cell of a partition; the mean
over cells by their share of held-out images. Distances are taken in the 64 main directions of the
training features (fewer if there are fewer), cells are k-means of the training set from evenly
spaced faces along the first direction, so nothing is drawn. Cells that hold fewer than 20 fakes,
or no held-out image, are left out.

About 0: no copying; below -3: copies; far above 0: the fakes are far from all faces (blur,
noise), which hides copies, so "higher" is no praise. Held-out images must be strangers to the
training set as fakes are: held-out *people* are farther from it than new photographs of the same
people, and then a model that draws the same people anew is below 0 as well. Not symmetric.
"""

import numpy as np
import scipy.linalg
from scipy.sparse.linalg import eigsh

from facefactory.metrics import Array
from facefactory.metrics.features._neighbours import finite, nearest, needs

STATISTICS = "sample"
SCORES = {"c_t": "higher"}
COPIES = {"c_t": -3.0}
THREE = True
DIRECTIONS = 64
MOST_CELLS = 10
IN_A_CELL = 100  # of each set on average, so that few images make few cells
FAKES_IN_A_CELL = 20
ROUNDS = 25  # of k-means


def _main_directions(train: Array) -> Array:
    """Unit vectors [D, k] along which the training features vary most, most first."""
    columns = train.shape[1]
    centred = train - train.mean(0)
    count = min(DIRECTIONS, columns, len(train) - 1)
    if count > min(columns, len(train)) // 2:
        vectors = scipy.linalg.svd(centred, full_matrices=False)[2][:count].T
    else:
        start = np.random.default_rng(0).normal(size=columns)
        vectors = eigsh(centred.T @ centred, k=count, v0=start, tol=1e-3)[1][:, ::-1]
    # a direction's sign means nothing: fix it
    largest = np.abs(vectors).argmax(0)
    return vectors * np.sign(vectors[largest, np.arange(count)])


def _centres(train: Array, cells: int) -> Array:
    """Means [cells, k] of k-means, fewer where one comes out empty.

    It starts from training images evenly spaced along the first direction.
    """
    along = train[np.argsort(train[:, 0], kind="stable")]
    centres = along[((np.arange(cells) + 0.5) * len(train) / cells).astype(int)]
    for _ in range(ROUNDS):
        places = nearest(train, centres, 1).rows[:, 0]
        filled = np.unique(places)
        centres = np.stack([train[places == cell].mean(0) for cell in filled])
    return centres


def z_score(held_out: Array, fake: Array) -> float:
    """Mann-Whitney's U less its mean, over its deviation; both are those of one distribution."""
    import scipy.stats  # only here: half a second of every start

    ranks = scipy.stats.rankdata(np.concatenate([fake, held_out]))
    fakes, others = len(fake), len(held_out)
    pairs_won = ranks[:fakes].sum() - fakes * (fakes + 1) / 2
    deviation = np.sqrt(fakes * others * (fakes + others + 1) / 12)
    return float((pairs_won - fakes * others / 2) / deviation)


def score(train: Array, held_out: Array, fake: Array) -> dict[str, float]:
    """c_t: in deviations of the test where nothing is copied.

    Raises:
        ValueError: fewer than 20 images in a set, one training image over and over, or no cell
            with 20 fakes and one of the others.
    """
    least = FAKES_IN_A_CELL
    needs(
        "copying_test",
        train=(len(train), least),
        held_out=(len(held_out), least),
        fake=(len(fake), least),
    )
    finite(train, held_out, fake)
    if (train == train[0]).all():
        raise ValueError("copying_test needs training images that differ; these are all one")
    directions = _main_directions(train)
    sets = [np.ascontiguousarray(features @ directions) for features in (train, held_out, fake)]
    fewest = min(len(points) for points in sets)
    centres = _centres(sets[0], int(np.clip(fewest // IN_A_CELL, 1, MOST_CELLS)))
    places_of = [nearest(points, centres, 1).rows[:, 0] for points in sets]

    def of_cell(cell: int) -> tuple[float, float] | None:
        """Weight and z."""
        members = [points[places == cell] for points, places in zip(sets, places_of, strict=True)]
        if not len(members[0]) or not len(members[1]) or len(members[2]) < FAKES_IN_A_CELL:
            return None
        distances = [nearest(points, members[0], 1).squared[:, 0] for points in members[1:]]
        return len(members[1]), z_score(*distances)

    found = [pair for pair in map(of_cell, range(len(centres))) if pair]
    if not found:
        raise ValueError(
            f"copying_test needs a cell with {FAKES_IN_A_CELL} fakes and a held-out image; "
            "these sets share none"
        )
    weights, scores = np.array(found).T
    return {"c_t": float(weights @ scores / weights.sum())}
