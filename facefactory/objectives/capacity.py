"""A code of a wanted size: the annealed capacity (Burgess et al., "Understanding disentangling in β-VAE", 2018, eq. 8)."""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor

from facefactory import UserError
from facefactory.facts import Facts
from facefactory.models import VAE
from facefactory.objectives import Batch
from facefactory.objectives._variational import Coded, Variational
from facefactory.registry import Nested
from facefactory.schedule import Scheduled, at, least


class Component(Variational):
    """-log p(x|z) + γ |KL - C|, KL being the mean over images.

    On which side of C it is, is what the whole batch of the iteration before says, on all ranks: a part
    of a batch cannot know it.

    Args:
        facts: size and channels of the images.
        model: what is trained.
        gamma: γ.
        nats: C, the code's size in nats per image, a number or a schedule in kimg.
        likelihood: p(x|z): a name of objectives/likelihoods, or {name: …, its options}.
        distances: what else reconstructions are compared by, e.g. {perceptual: {weight: 10}}: names of objectives/distances.
    """

    last_kl: Tensor  # [] nats per image
    sums: Tensor  # [2] KL of the iteration's images, and how many there are

    def __init__(
        self,
        facts: Facts,
        model: VAE,
        *,
        gamma: float = 100.0,
        nats: Scheduled = {"0": 0.0, "50": 25.0},  # noqa: B006
        likelihood: Annotated[Any, Nested("objectives.likelihoods")] = "gaussian",
        distances: Annotated[Any, Nested("objectives.distances", many=True)] = {},  # noqa: B006
    ) -> None:
        super().__init__(facts, model, likelihood, distances)
        if gamma < 0 or least(nats) < 0:
            raise UserError(f"capacity: gamma={gamma}, nats={nats}; both must be at least 0.")
        self.gamma = gamma
        self.nats = nats
        self.register_buffer("last_kl", torch.zeros(()))
        self.register_buffer("sums", torch.zeros(2), persistent=False)

    def price(self, coded: Coded, kl: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """γ |KL - C|."""
        wanted = at(self.nats, batch.kimg)
        count = kl.new_full((), len(coded.mu))
        self.sums += torch.stack([kl.detach() * count, count])
        side = torch.where(self.last_kl >= wanted, 1.0, -1.0).to(kl)
        return self.gamma * side * (kl - wanted), {"capacity_nats": kl.new_full((), wanted)}

    def after(self, kimg: float, total: Callable[[Tensor], Tensor]) -> None:
        """Where KL is now."""
        nats, count = total(self.sums)
        self.last_kl.copy_(nats / count)
        self.sums = torch.zeros_like(self.sums)
