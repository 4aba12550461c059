"""InfoVAE, with MMD as its distance (Zhao, Song & Ermon, AAAI 2019, eq. 6); α = 1 is a Wasserstein autoencoder's MMD
(Tolstikhin et al., ICLR 2018, algorithm 2) with an encoder that draws.
"""

from typing import Annotated, Any

import torch
from torch import Tensor

from facefactory import UserError
from facefactory.facts import Facts
from facefactory.models import VAE
from facefactory.objectives import Batch
from facefactory.objectives._memory import Remembering
from facefactory.objectives._variational import Coded
from facefactory.registry import Nested


def kernel_means(z: Tensor, others: Tensor) -> tuple[Tensor, Tensor, float]:
    """Means of k(z, z'), k(z, p) and k(p, p'), the first two [b], with p drawn from N(0, I).

    k = exp(-‖a - b‖² / 2h²), h² being the number of dimensions; where p is on one side or on both, the mean
    is known. `others` [m, d] are codes of other images, drawn from what z is drawn from.
    """
    d = z.shape[1]
    h2 = float(d)
    among = (-torch.cdist(z, others).square() / (2 * h2)).exp().mean(1)
    across = (h2 / (1 + h2)) ** (d / 2) * (-z.square().sum(1) / (2 * (1 + h2))).exp()
    prior = (h2 / (2 + h2)) ** (d / 2)
    return among, across, float(prior)


class Component(Remembering):
    """-log p(x|z) + (1 - α) KL + (α + λ - 1) MMD²(q(z), N(0, I)).

    Codes of the batch are held against those of the last `memory` images of all ranks, which are constants: so
    the derivative of the pairs of codes is counted twice, once for either side. See objectives/_memory.py.

    Args:
        facts: size and channels of the images.
        model: what is trained.
        alpha: α, 1 takes the KL of each image away, 0 leaves it.
        weight: λ.
        memory: images whose codes are compared.
        likelihood: p(x|z): a name of objectives/likelihoods, or {name: …, its options}.
        distances: what else reconstructions are compared by, e.g. {perceptual: {weight: 10}}: names of objectives/distances.
    """

    def __init__(
        self,
        facts: Facts,
        model: VAE,
        *,
        alpha: float = 1.0,
        weight: float = 1000.0,
        memory: int = 256,
        likelihood: Annotated[Any, Nested("objectives.likelihoods")] = "gaussian",
        distances: Annotated[Any, Nested("objectives.distances", many=True)] = {},  # noqa: B006
    ) -> None:
        super().__init__(facts, model, likelihood, distances, memory)
        if alpha > 1 or alpha + weight < 1:
            raise UserError(
                f"info: alpha={alpha}, weight={weight}; alpha is at most 1, and their sum at least 1."
            )
        self.alpha = alpha
        self.weight = weight

    def price(self, coded: Coded, kl: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(1 - α) KL + (α + λ - 1) MMD²."""
        self.memory.add(coded, batch.draws)
        among, across, prior = kernel_means(coded.z, self.memory.z)
        squared = (among - 2 * across).mean() + prior
        pull = 2 * (among - across).mean()
        price = (1 - self.alpha) * kl + (self.alpha + self.weight - 1) * pull
        return price, {"mmd_squared": squared}
