"""Bootstrap intervals over people: images of one person are no independent evidence."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def bootstrap(
    statistic: Callable[[npt.NDArray[np.int64]], Array | float], groups: npt.NDArray[np.int64], resamples: int = 300
) -> Array:
    """Values [resamples, …] of a statistic of image positions when whole groups are drawn with replacement (seed 0)."""
    rng = np.random.default_rng(0)
    names, inverse = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(inverse == number) for number in range(len(names))]
    drawn = (rng.integers(0, len(names), len(names)) for _ in range(resamples))
    return np.stack([statistic(np.concatenate([members[number] for number in choice])) for choice in drawn])


def interval(values: Array, level: float = 0.95) -> list[float]:
    """Percentile interval over the first axis; resamples without a value (NaN) are left out."""
    return [float(np.nanquantile(values, q, axis=0)) for q in ((1 - level) / 2, (1 + level) / 2)]
