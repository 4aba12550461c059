"""The hinge loss (Lim & Ye, "Geometric GAN", 2017, eq. 9 and 10)."""

from torch import Tensor
from torch.nn import functional as F

from facefactory.objectives.critics import Critic, Seen


class Component(Critic):
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))) against -D(G(z))."""

    def discriminator(self, seen: Seen) -> Tensor:
        """[b]."""
        return F.relu(1 - seen.real_logits) + F.relu(1 + seen.fake_logits)

    def generator(self, seen: Seen) -> Tensor:
        """[b]."""
        return -seen.fake_logits
