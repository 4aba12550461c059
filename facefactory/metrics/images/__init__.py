"""Pictures compared one by one: reconstructions with what they are of, one score a file.

A file has SCORES as in `facefactory.metrics.features` and

    score(images, reconstructions) -> name -> value, of two stacks [N, H, W, C] uint8; it raises
                                      ValueError for unlike or empty stacks
"""

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]

AT_ONCE = 64  # images in float64


def pairs(images: Images, reconstructions: Images) -> list[tuple[Images, Images]]:
    """The two stacks in parts that fit in memory as float64.

    Raises:
        ValueError: they are not two stacks [N, H, W, C] uint8 of one shape, N > 0.
    """
    if images.shape != reconstructions.shape or images.ndim != 4 or not len(images):
        raise ValueError(
            f"images {images.shape} and reconstructions {reconstructions.shape} must be stacks "
            "[N, H, W, C] of one shape, N > 0"
        )
    if images.dtype != np.uint8 or reconstructions.dtype != np.uint8:
        raise ValueError(
            f"images must be uint8; they are {images.dtype} and {reconstructions.dtype}"
        )
    starts = range(0, len(images), AT_ONCE)
    return [(images[i : i + AT_ONCE], reconstructions[i : i + AT_ONCE]) for i in starts]
