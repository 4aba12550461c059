"""DIP-VAE: codes whose covariance is the prior's (Kumar, Sattigeri & Balakrishnan, ICLR 2018, eq. 5 to 7)."""

from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from facefactory import UserError
from facefactory.facts import Facts
from facefactory.models import VAE
from facefactory.objectives import Batch
from facefactory.objectives._memory import Memory, Remembering
from facefactory.objectives._variational import Coded
from facefactory.registry import Nested

Kind = Literal["I", "II"]


def covariance(memory: Memory, kind: Kind) -> Tensor:
    """Covariance [z_dim, z_dim] of the posterior means (I), or of codes drawn from the posteriors (II)."""
    centred = memory.mu - memory.mu.mean(0)
    found = centred.T @ centred / len(centred)
    return found + torch.diag(memory.logvar.exp().mean(0)) if kind == "II" else found


class Component(Remembering):
    """-log p(x|z) + KL + λ_off Σ_{i≠j} C_ij² + λ_diagonal Σ_i (C_ii - 1)².

    C is the covariance over the last `memory` images of all ranks; an image moves it by its own share, with
    the mean of the memory as centre. See objectives/_memory.py.

    Args:
        facts: size and channels of the images.
        model: what is trained.
        kind: I (of posterior means) or II (of codes).
        off_diagonal: λ_off, what correlation costs.
        diagonal: λ_diagonal, what a variance other than 1 costs.
        memory: images whose codes are compared.
        likelihood: p(x|z): a name of objectives/likelihoods, or {name: …, its options}.
        distances: what else reconstructions are compared by, e.g. {perceptual: {weight: 10}}: names of objectives/distances.
    """

    def __init__(
        self,
        facts: Facts,
        model: VAE,
        *,
        kind: Kind = "II",
        off_diagonal: float = 10.0,
        diagonal: float = 10.0,
        memory: int = 256,
        likelihood: Annotated[Any, Nested("objectives.likelihoods")] = "gaussian",
        distances: Annotated[Any, Nested("objectives.distances", many=True)] = {},  # noqa: B006
    ) -> None:
        super().__init__(facts, model, likelihood, distances, memory)
        if min(off_diagonal, diagonal) < 0:
            raise UserError(
                f"dip: off_diagonal={off_diagonal}, diagonal={diagonal}; both must be at least 0."
            )
        self.kind: Kind = kind
        weights = torch.full((model.z_dim, model.z_dim), off_diagonal)
        self.register_buffer("weights", weights.fill_diagonal_(diagonal), persistent=False)

    weights: Tensor  # [z_dim, z_dim]

    def price(self, coded: Coded, kl: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """KL + the penalty, whose derivative is 2λ(C - 1) times that of the images' own covariance."""
        self.memory.add(coded, batch.draws)
        away = covariance(self.memory, self.kind) - torch.eye(
            len(self.weights), dtype=kl.dtype, device=kl.device
        )
        centred = coded.mu - self.memory.mu.mean(0)
        own = centred.T @ centred / len(centred)
        if self.kind == "II":
            own = own + torch.diag(coded.logvar.exp().mean(0))
        penalty = (self.weights * away.square()).sum()
        pull = (2 * self.weights * away * own).sum()
        return kl + pull, {"covariance_penalty": penalty}
