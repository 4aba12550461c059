"""A normal whose deviation is learned: the σ-VAE (Rybkin, Daniilidis & Levine, ICML 2021, §3).

The deviation that maximises the likelihood balances reconstruction and code without a β. It is kept
above `least`: pixels that are constant in the whole set would have an infinite density.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facefactory import UserError
from facefactory.facts import Facts
from facefactory.objectives.likelihoods import Likelihood

# a pixel's deviation, from a noise of a grey level to one that fills -1…1
RANGE = (0.01, 1.0)


class Component(nn.Module, Likelihood):
    """(x - m)² / 2σ² + log σ√(2π), with σ = least + softplus(a parameter).

    Args:
        facts: size and channels of the images.
        sigma: σ at the start, in units of -1…1.
        least: what σ stays above.
        per: one deviation for all pixels (`image`), or one for each (`pixel`).
    """

    def __init__(
        self,
        facts: Facts,
        *,
        sigma: float = 0.15,
        least: float = 0.002,
        per: Literal["image", "pixel"] = "image",
    ) -> None:
        super().__init__()
        if not 0 < least < sigma:
            raise UserError(
                f"gaussian_learned: sigma={sigma}, least={least}; it must be 0 < least < sigma."
            )
        shape = (facts.channels, facts.height, facts.width) if per == "pixel" else (1, 1, 1)
        start = math.log(math.expm1(sigma - least))  # softplus's inverse
        self.least = least
        self.raw = nn.Parameter(torch.full(shape, start))

    @property
    def sigma(self) -> Tensor:
        """[C, H, W] or [1, 1, 1]."""
        return self.least + F.softplus(self.raw)

    def nats(self, decoded: Tensor, images: Tensor) -> Tensor:
        """[b, C, H, W]."""
        sigma = self.sigma.to(images)
        scale = sigma.log() + 0.5 * math.log(2 * math.pi)
        return (decoded - images).square() / (2 * sigma.square()) + scale

    def scalars(self) -> dict[str, Tensor]:
        """The mean deviation."""
        return {"sigma": self.sigma.mean()}

    def health(self, scalars: dict[str, float]) -> list[str]:
        """Whether the deviation ran away."""
        low, high = RANGE
        sigma = scalars["sigma"]
        if low <= sigma <= high:
            return []
        where = "down: reconstructions are copies" if sigma < low else "up: images explain nothing"
        return [
            f"sigma ran {where} (it is {sigma:.3g}, in units of -1…1; {low} to {high} are usual); "
            "give objective.likelihood.least, or a likelihood of fixed sigma."
        ]
