"""The non-saturating loss (Goodfellow et al., NeurIPS 2014, §3), on logits."""

from torch import Tensor
from torch.nn import functional as F

from facefactory.objectives.critics import Critic, Seen


class Component(Critic):
    """-log σ(D(x)) - log(1 - σ(D(G(z)))) against -log σ(D(G(z)))."""

    def discriminator(self, seen: Seen) -> Tensor:
        """[b]."""
        return F.softplus(-seen.real_logits) + F.softplus(seen.fake_logits)

    def generator(self, seen: Seen) -> Tensor:
        """[b]."""
        return F.softplus(-seen.fake_logits)
