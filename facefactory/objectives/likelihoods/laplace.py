"""A Laplace density around the decoder's output: the absolute error, in nats. Edges cost less than under a normal.

Pixels are counted in -1…1, so the nats are those of a density on that scale.
"""

import math

from torch import Tensor, nn

from facefactory import UserError
from facefactory.objectives.likelihoods import Likelihood


class Component(nn.Module, Likelihood):
    """|x - m| / b + log 2b.

    Args:
        scale: b, mean absolute distance of a pixel from its median, in units of -1…1.
    """

    def __init__(self, *, scale: float = 0.1) -> None:
        super().__init__()
        if scale <= 0:
            raise UserError(f"laplace: scale={scale}; it must be above 0.")
        self.scale = scale

    def nats(self, decoded: Tensor, images: Tensor) -> Tensor:
        """[b, C, H, W]."""
        return (decoded - images).abs() / self.scale + math.log(2 * self.scale)
