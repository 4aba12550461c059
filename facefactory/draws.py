"""Every random draw is a pure function of (seed, clock, purpose, position in the global batch).

No generator state is ever saved, and the number of ranks changes no draw. Two algorithms: on the
`cpu` a rank draws for the whole global batch with torch's generator and keeps its slice; on the
`device` it draws its slice alone (philox.py), and the host hands nothing over.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import torch

from facefactory import philox

CPU_ALGORITHM = "torch-cpu-v1"


def algorithm(wanted: Literal["auto", "cpu", "device"], device: torch.device) -> str:
    """The name of an algorithm; `auto`: the device's own on CUDA, else the CPU's."""
    if wanted == "auto":
        wanted = "device" if device.type == "cuda" else "cpu"
    return philox.ALGORITHM if wanted == "device" else CPU_ALGORITHM


def generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded by what the draw is for."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def normal(seed: int, clock: int, purpose: str, rows: int, columns: int) -> torch.Tensor:
    """[rows, columns] standard normal, float32."""
    return torch.randn(rows, columns, generator=generator(seed, clock, purpose))


@dataclass(frozen=True)
class Draws:
    """The draws of positions lo:hi of the global batch at a clock [images].

    With a `sheet` they are the device's, else the CPU's.
    """

    seed: int
    clock: int
    batch_size: int
    lo: int
    hi: int
    device: torch.device
    dtype: torch.dtype = torch.float32
    sheet: philox.Sheet | None = None

    def normal(self, purpose: str, columns: int) -> torch.Tensor:
        """[hi - lo, columns] standard normal."""
        if self.sheet is not None:
            return self._from(self.sheet, "normal", purpose, columns)
        drawn = normal(self.seed, self.clock, purpose, self.batch_size, columns)
        return drawn[self.lo : self.hi].to(self.device, self.dtype)

    def uniform(self, purpose: str, columns: int) -> torch.Tensor:
        """[hi - lo, columns] uniform in 0…1."""
        if self.sheet is not None:
            return self._from(self.sheet, "uniform", purpose, columns)
        source = generator(self.seed, self.clock, purpose)
        drawn = torch.rand(self.batch_size, columns, generator=source)
        return drawn[self.lo : self.hi].to(self.device, self.dtype)

    def _from(
        self, sheet: philox.Sheet, kind: philox.Kind, purpose: str, columns: int
    ) -> torch.Tensor:
        rows = slice(self.lo - sheet.lo, self.hi - sheet.lo)
        return sheet.draw(kind, self.clock, purpose, columns)[rows].to(self.dtype)
