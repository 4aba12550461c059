"""Ways to spoil real faces, one a file: what a score does with them says what it sees. This file is torch-free.

A file has

    AMOUNTS      six severities, the gentlest first; the docstring says in what
    MARK         (name, amount) of a mark on the scales of scores, or None
    COPIES       True where it makes copies of the reference: only then tests of copying are asked
    spoil(faces, amount) -> images [n, H, W, C] uint8; ValueError: these faces do not allow it

Severities are those of faults that models have: far beyond them a network's features saturate, and a score may fall again.
They were chosen on ORL at 32 pixels. On drawn faces of that size, which have no texture, noise and checkerboards are seen from
the gentlest on, and `kd` on lite0 is valid for the same ones; neighbourhood scores (density, recall …) are for fewer there.
Lengths are shares of the images' side, so that they mean the same at any resolution. All is a pure function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch


@dataclass(frozen=True)
class Faces:
    """Real faces to be spoilt, and those that they are compared with: other photographs of the same people."""

    images: torch.Tensor  # [n, H, W, C] uint8
    more: torch.Tensor  # [m, H, W, C] uint8, m >= n: these and others of their kind, by person
    people: npt.NDArray[np.int64]  # [m], whose they are
    known: bool  # whether anything says whose they are
    reference: torch.Tensor  # [r, H, W, C] uint8
