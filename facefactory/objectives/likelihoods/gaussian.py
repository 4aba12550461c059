"""A normal of fixed deviation around the decoder's output (Kingma & Welling, ICLR 2014, §C.2, with σ given).

Pixels are counted in -1…1, so the nats are those of a density on that scale.
"""

import math

from torch import Tensor, nn

from facefactory import UserError
from facefactory.objectives.likelihoods import Likelihood


class Component(nn.Module, Likelihood):
    """(x - m)² / 2σ² + log σ√(2π).

    Args:
        sigma: σ, standard deviation of a pixel around its mean, in units of -1…1.
    """

    def __init__(self, *, sigma: float = 0.15) -> None:
        super().__init__()
        if sigma <= 0:
            raise UserError(f"gaussian: sigma={sigma}; it must be above 0.")
        self.sigma = sigma

    def nats(self, decoded: Tensor, images: Tensor) -> Tensor:
        """[b, C, H, W]."""
        scale = math.log(self.sigma * math.sqrt(2 * math.pi))
        return (decoded - images).square() / (2 * self.sigma**2) + scale
