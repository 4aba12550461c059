"""β-TC-VAE: what dimensions know of each other costs more (Chen et al., NeurIPS 2018, eq. 2 and 4, with α = γ = 1)."""

import math
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
from facefactory.schedule import Scheduled, at, least

Sampling = Literal["stratified", "weighted"]


def log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """Log density of a diagonal normal in each dimension, broadcast."""
    return -0.5 * ((z - mu).square() / logvar.exp() + logvar + math.log(2 * math.pi))


def densities(
    coded: Coded, memory: Memory, set_size: int, sampling: Sampling
) -> tuple[Tensor, Tensor]:
    """Estimates of log q(z) and of log Π q(z_j), [b] each, q being the mean of the posteriors of all images of the set.

    `stratified`: an image's own posterior has the weight 1 / set_size that it has in the set, those of the
    memory share the rest (§C.2). `weighted`: all have the same, 1 / (set_size · their number) (eq. 4): that
    is a lower bound in expectation, with an offset of log set_size for each density.
    """
    count = len(memory.mu)
    if sampling == "stratified":
        own_weight = -math.log(set_size)
        other_weight = math.log((set_size - 1) / (set_size * count))
    else:
        own_weight = -math.log(set_size * (count + 1))
        other_weight = own_weight

    # dimension by dimension: [b, 1 + count, z_dim]
    own = log_normal(coded.z, coded.mu.detach(), coded.logvar.detach())
    others = log_normal(coded.z[:, None], memory.mu, memory.logvar)
    each = torch.cat([own[:, None], others], 1)
    weights = each.new_full((1 + count,), other_weight)
    weights[0] = own_weight

    joint = (each.sum(2) + weights).logsumexp(1)
    product = (each + weights[:, None]).logsumexp(1).sum(1)
    return joint, product


class Component(Remembering):
    """-log p(x|z) + KL + (β - 1) TC, where KL = mutual information + TC + the dimensions' own KL.

    TC = KL(q(z) ‖ Π q(z_j)) is estimated from the codes of the last `memory` images of all ranks; see
    objectives/_memory.py. A batch's own images are no longer than that apart, so `memory` has the part
    that the batch size has in the paper (2048).

    Args:
        facts: size and channels of the images.
        model: what is trained.
        beta: weight of the total correlation, a number or a schedule in kimg.
        sampling: how densities are estimated, stratified or weighted.
        memory: images whose posteriors stand for the whole set's.
        likelihood: p(x|z): a name of objectives/likelihoods, or {name: …, its options}.
        distances: what else reconstructions are compared by, e.g. {perceptual: {weight: 10}}: names of objectives/distances.
    """

    def __init__(
        self,
        facts: Facts,
        model: VAE,
        *,
        beta: Scheduled = 6.0,
        sampling: Sampling = "stratified",
        memory: int = 256,
        likelihood: Annotated[Any, Nested("objectives.likelihoods")] = "gaussian",
        distances: Annotated[Any, Nested("objectives.distances", many=True)] = {},  # noqa: B006
    ) -> None:
        super().__init__(facts, model, likelihood, distances, memory)
        if least(beta) < 0:
            raise UserError(f"beta_tc: beta={beta}; it must be at least 0.")
        self.beta = beta
        self.sampling: Sampling = sampling
        self.notes = (self.equivalent(beta),)

    def price(self, coded: Coded, kl: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """KL + (β - 1) TC."""
        self.memory.add(coded, batch.draws)
        joint, product = densities(coded, self.memory, max(2, batch.set_size), self.sampling)
        tc = (joint - product).mean()
        posterior = log_normal(coded.z, coded.mu, coded.logvar).sum(1)
        prior = log_normal(coded.z, torch.zeros_like(coded.z), torch.zeros_like(coded.z)).sum(1)
        shown = {
            "mutual_information_nats": (posterior - joint).mean(),
            "tc_nats": tc,
            "dimensions_kl_nats": (product - prior).mean(),
        }
        return kl + (at(self.beta, batch.kimg) - 1) * tc, shown
