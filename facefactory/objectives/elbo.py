"""Evidence lower bound with β (Kingma & Welling 2014, eq. 10; Higgins et al. 2017, eq. 4), in nats per image."""

from typing import Annotated, Any

from torch import Tensor

from facefactory import UserError
from facefactory.facts import Facts
from facefactory.models import VAE
from facefactory.objectives import Batch
from facefactory.objectives._variational import Coded, Variational
from facefactory.registry import Nested
from facefactory.schedule import Scheduled, at, least


class Component(Variational):
    """-log p(x|z) + β KL(q(z|x) ‖ N(0, I)); β = 1 is the negative ELBO.

    Args:
        facts: size and channels of the images.
        model: what is trained.
        beta: weight of the KL divergence, a number or a schedule in kimg.
        likelihood: p(x|z): a name of objectives/likelihoods, or {name: …, its options}.
        distances: what else reconstructions are compared by, e.g. {perceptual: {weight: 10}}: names of objectives/distances.
    """

    def __init__(
        self,
        facts: Facts,
        model: VAE,
        *,
        beta: Scheduled = 1.0,
        likelihood: Annotated[Any, Nested("objectives.likelihoods")] = "gaussian",
        distances: Annotated[Any, Nested("objectives.distances", many=True)] = {},  # noqa: B006
    ) -> None:
        super().__init__(facts, model, likelihood, distances)
        if least(beta) < 0:
            raise UserError(f"elbo: beta={beta}; it must be at least 0.")
        self.beta = beta
        self.notes = (self.equivalent(beta),)

    def price(self, coded: Coded, kl: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """β KL."""
        return at(self.beta, batch.kimg) * kl, {}
