"""Least squares (Mao et al., "Least squares generative adversarial networks", ICCV 2017, eq. 9: a = 0, b = c = 1)."""

from torch import Tensor

from facefactory.objectives.critics import Critic, Seen


class Component(Critic):
    """½ (D(x) - 1)² + ½ D(G(z))² against ½ (D(G(z)) - 1)²."""

    def discriminator(self, seen: Seen) -> Tensor:
        """[b]."""
        return (seen.real_logits - 1).square() / 2 + seen.fake_logits.square() / 2

    def generator(self, seen: Seen) -> Tensor:
        """[b]."""
        return (seen.fake_logits - 1).square() / 2
