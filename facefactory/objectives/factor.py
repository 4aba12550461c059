"""FactorVAE: a critic tells codes from shuffled ones (Kim & Mnih, ICML 2018, eq. 2 and 3)."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facefactory import UserError
from facefactory.facts import Facts
from facefactory.models import VAE
from facefactory.objectives import Batch, Phase
from facefactory.objectives._memory import Remembering
from facefactory.objectives._variational import Coded, code
from facefactory.registry import Nested
from facefactory.schedule import Scheduled, at, least


class Component(Remembering):
    """-log p(x|z) + KL + γ TC, where TC is the mean logit of the critic.

    The critic's phase comes second. Codes of the batch are held against codes each of whose dimensions
    is that of another of the last `memory` images of all ranks (the paper shuffles a second batch).

    Args:
        facts: size and channels of the images.
        model: what is trained.
        gamma: γ, weight of the total correlation, a number or a schedule in kimg.
        width: units of a layer of the critic; the paper has 1000.
        depth: its layers; the paper has 6.
        memory: images whose codes are shuffled.
        likelihood: p(x|z): a name of objectives/likelihoods, or {name: …, its options}.
        distances: what else reconstructions are compared by, e.g. {perceptual: {weight: 10}}: names of objectives/distances.
    """

    def __init__(
        self,
        facts: Facts,
        model: VAE,
        *,
        gamma: Scheduled = 10.0,
        width: int = 256,
        depth: int = 4,
        memory: int = 256,
        likelihood: Annotated[Any, Nested("objectives.likelihoods")] = "gaussian",
        distances: Annotated[Any, Nested("objectives.distances", many=True)] = {},  # noqa: B006
    ) -> None:
        super().__init__(facts, model, likelihood, distances, memory)
        if least(gamma) < 0 or width < 1 or depth < 1:
            raise UserError(
                f"factor: gamma={gamma}, width={width}, depth={depth}; "
                "gamma must be at least 0, width and depth at least 1."
            )
        self.gamma = gamma
        self.phases = (*self.phases, Phase("critic", ("objective.critic",)))

        layers: list[nn.Module] = []
        into = model.z_dim
        for _ in range(depth):
            layers += [nn.Linear(into, width), nn.LeakyReLU(0.2)]
            into = width
        self.critic = nn.Sequential(*layers, nn.Linear(into, 1), nn.Flatten(0))

    def loss(self, phase: str, model: VAE, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of `vae` or `critic`."""
        if phase == "vae":
            return super().loss(phase, model, batch)
        with torch.no_grad():
            z = code(model, batch.augment(batch.images, "real"), batch, "critic").z
        together = self.critic(z)
        apart = self.critic(self.shuffled(batch))
        loss = 0.5 * (F.softplus(-together) + F.softplus(apart)).mean()
        right = torch.cat([together > 0, apart <= 0]).to(z).mean()
        return loss, {"loss_critic": loss, "critic_right": right}

    def shuffled(self, batch: Batch) -> Tensor:
        """Codes [b, z_dim] each of whose dimensions is another image's: draws of Π q(z_j)."""
        known = self.memory.z
        rows = (batch.draws.uniform("shuffle", known.shape[1]) * len(known)).long()
        return known.gather(0, rows.clamp(max=len(known) - 1))

    def price(self, coded: Coded, kl: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """KL + γ TC."""
        self.memory.add(coded, batch.draws)
        tc = self.critic(coded.z).to(kl).mean()
        return kl + at(self.gamma, batch.kimg) * tc, {"tc_nats": tc}
