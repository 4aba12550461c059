"""The relativistic pairing loss (Jolicoeur-Martineau 2018; as RpGAN in Huang et al., NeurIPS 2024, eq. 2)."""

from torch import Tensor
from torch.nn import functional as F

from facefactory.objectives.critics import Critic, Seen


class Component(Critic):
    """softplus(D(G(z)) - D(x)) against softplus(D(x) - D(G(z))): each real image with one generated."""

    pairs = True

    def discriminator(self, seen: Seen) -> Tensor:
        """[b]."""
        return F.softplus(seen.fake_logits - seen.real_logits)

    def generator(self, seen: Seen) -> Tensor:
        """[b]."""
        return F.softplus(seen.real_logits - seen.fake_logits)
