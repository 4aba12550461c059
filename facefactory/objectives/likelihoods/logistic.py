"""The discretised logistic (Salimans et al., "PixelCNN++", ICLR 2017, §2.1, with one component).

A pixel has 256 levels and each has a probability, so these nats are those of the 8-bit image itself and
bits a dimension of different models can be compared: nats / (ln 2 · H · W · C).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facefactory import UserError
from facefactory.objectives.likelihoods import Likelihood

HALF = 1 / 255  # of a level's width, where 0…255 is -1…1
LEAST = 1e-12  # of a probability: beyond it only the density at the level's middle can be told


class Component(nn.Module, Likelihood):
    """-log (σ((x + ½ level - m) / s) - σ((x - ½ level - m) / s)), the outermost levels reaching to infinity.

    Images are those of the set, as mirrored or shifted; augmented ones lie between the levels.

    Args:
        scale: s at the start, in units of -1…1; it is learned.
    """

    def __init__(self, *, scale: float = 0.05) -> None:
        super().__init__()
        if scale <= 0:
            raise UserError(f"logistic: scale={scale}; it must be above 0.")
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def nats(self, decoded: Tensor, images: Tensor) -> Tensor:
        """[b, C, H, W]."""
        narrow = (-self.log_scale).exp().to(images)
        upper = (images - decoded + HALF) * narrow
        lower = (images - decoded - HALF) * narrow

        # σ(a) - σ(b) loses its digits far from the middle, on either side by 1 - 1
        inside = torch.sigmoid(upper) - torch.sigmoid(lower)
        mirrored = torch.sigmoid(-lower) - torch.sigmoid(-upper)
        probability = torch.where(images > decoded, mirrored, inside)
        middle = (images - decoded) * narrow
        tail = middle.abs() + 2 * F.softplus(-middle.abs()) - (2 * HALF * narrow).log()
        between = torch.where(probability > LEAST, -probability.clamp(min=LEAST).log(), tail)

        # -log σ(upper), and -log(1 - σ(lower))
        darkest = images < -1 + HALF
        brightest = images > 1 - HALF
        ends = torch.where(darkest, F.softplus(-upper), F.softplus(lower))
        return torch.where(darkest | brightest, ends, between)

    def scalars(self) -> dict[str, Tensor]:
        """The scale."""
        return {"scale": self.log_scale.exp()}

    def health(self, scalars: dict[str, float]) -> list[str]:
        """Whether the scale ran away."""
        if scalars["scale"] <= 1:
            return []
        return [
            f"the logistic's scale ran up to {scalars['scale']:.3g} (images are -1…1): they explain nothing; "
            "give a smaller training.lr."
        ]
