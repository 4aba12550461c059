"""Pixels as probabilities (Kingma & Welling, ICLR 2014, §C.1), as most papers on β-VAEs score them.

Gray levels are no coin tosses: these nats are a cross-entropy, and no density of images.
"""

from torch import Tensor, nn

from facefactory.objectives.likelihoods import Likelihood

# float32 has no probability between 1 - 6e-8 and 1
CLOSEST = 1e-6


class Component(nn.Module, Likelihood):
    """-x log p - (1 - x) log(1 - p), with x and p in 0…1."""

    def nats(self, decoded: Tensor, images: Tensor) -> Tensor:
        """[b, C, H, W]."""
        p = ((decoded + 1) / 2).clamp(CLOSEST, 1 - CLOSEST)
        x = (images + 1) / 2
        return -(x * p.log() + (1 - x) * (1 - p).log())
