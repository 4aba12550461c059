"""Every random draw is a pure function of (seed, clock, purpose, position in the global batch).

A rank draws for the whole global batch on the CPU and keeps its slice, so neither the number of
ranks nor the device changes a draw, and no generator state is ever saved.
"""

import hashlib
from dataclasses import dataclass

import torch


def generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded by what the draw is for."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def normal(seed: int, clock: int, purpose: str, rows: int, columns: int) -> torch.Tensor:
    """[rows, columns] standard normal, float32."""
    return torch.randn(rows, columns, generator=generator(seed, clock, purpose))


@dataclass(frozen=True)
class Draws:
    """The draws of positions lo:hi of the global batch at a clock [images]."""

    seed: int
    clock: int
    batch_size: int
    lo: int
    hi: int
    device: torch.device
    dtype: torch.dtype = torch.float32

    def normal(self, purpose: str, columns: int) -> torch.Tensor:
        """[hi - lo, columns] standard normal."""
        drawn = normal(self.seed, self.clock, purpose, self.batch_size, columns)
        return drawn[self.lo : self.hi].to(self.device, self.dtype)

    def uniform(self, purpose: str, columns: int) -> torch.Tensor:
        """[hi - lo, columns] uniform in 0…1."""
        source = generator(self.seed, self.clock, purpose)
        drawn = torch.rand(self.batch_size, columns, generator=source)
        return drawn[self.lo : self.hi].to(self.device, self.dtype)
