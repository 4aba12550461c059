"""Posteriors of the images seen last, and what is estimated from them: densities, covariances, distances of codes.

Such an estimate needs many images at once, and a loss must not depend on how a batch is cut into ranks
and parts. So each image is compared with codes of earlier iterations, of all ranks, that are constants;
only its own code is differentiated. Nothing is lost by that: of E_q[log q(z)] the derivative through the
density is 0 on average, what remains is the one through z (Roeder, Wu & Duvenaud, NeurIPS 2017, §3), and a
product of two estimates is unbiased if they come from different images. What it costs is that the
posteriors are as old as the memory is long: `size` images.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from facefactory import UserError, draws
from facefactory.draws import Draws
from facefactory.facts import Facts
from facefactory.models import VAE
from facefactory.objectives._variational import Coded, Variational
from facefactory.objectives.distances import Distance
from facefactory.objectives.likelihoods import Likelihood


class Memory(nn.Module):
    """The codes of the last `size` images; before there were any, standard normal ones."""

    mu: Tensor  # [size, z_dim]
    logvar: Tensor  # [size, z_dim]
    z: Tensor  # [size, z_dim] drawn from them

    def __init__(self, size: int, z_dim: int) -> None:
        super().__init__()
        if size < 2:
            raise UserError(f"memory={size}; it must hold at least 2 images.")
        self.register_buffer("mu", torch.zeros(size, z_dim))
        self.register_buffer("logvar", torch.zeros(size, z_dim))
        self.register_buffer("z", draws.normal(0, 0, "memory", size, z_dim))
        self._waiting: list[tuple[Draws, Tensor]] = []

    def add(self, coded: Coded, where: Draws) -> None:
        """Keep codes of a slice of the global batch until `turn`."""
        rows = torch.cat([coded.mu, coded.logvar, coded.z], 1).detach()
        self._waiting.append((where, rows))

    def turn(self, total: Callable[[Tensor], Tensor]) -> None:
        """Take in what waits, of all parts and ranks, in the order of the global batch."""
        first, rows = self._waiting[0]
        whole = rows.new_zeros(first.batch_size, rows.shape[1])
        for where, rows in self._waiting:
            whole[where.lo : where.hi] = rows
        self._waiting = []

        # each rank has filled its own rows
        parts = total(whole).chunk(3, dim=1)
        for buffer, new in zip((self.mu, self.logvar, self.z), parts, strict=True):
            buffer.copy_(torch.cat([buffer, new])[-len(buffer) :])


class Remembering(Variational):
    """An objective of VAEs whose price compares codes with those of other images."""

    def __init__(
        self,
        facts: Facts,
        model: VAE,
        likelihood: Likelihood,
        distances: dict[str, Distance],
        memory: int,
    ) -> None:
        super().__init__(facts, model, likelihood, distances)
        self.memory = Memory(memory, model.z_dim)

    def after(self, kimg: float, total: Callable[[Tensor], Tensor]) -> None:
        """Remember the codes of this iteration."""
        self.memory.turn(total)
