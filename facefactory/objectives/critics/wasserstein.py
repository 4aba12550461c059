"""Wasserstein's distance (Arjovsky, Chintala & Bottou, ICML 2017), where a term keeps D close to 1-Lipschitz."""

from torch import Tensor

from facefactory.objectives.critics import Critic, Seen


class Component(Critic):
    """D(G(z)) - D(x) against -D(G(z)); logits have no bound of their own, so give `gradient_penalty` as a term."""

    def discriminator(self, seen: Seen) -> Tensor:
        """[b]."""
        return seen.fake_logits - seen.real_logits

    def generator(self, seen: Seen) -> Tensor:
        """[b]."""
        return -seen.fake_logits
