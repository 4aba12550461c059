"""What each latent dimension goes with: effects on labels, with intervals and correction for testing.

A file of this folder is a family of models (`gan`, `vae`): its `codes` gives latent codes and labels of the same faces.
This file is torch-free: it holds the section of the config tree.
"""

from __future__ import annotations

from dataclasses import dataclass

from facefactory.config import key


@dataclass(frozen=True)
class Interpret:
    """How latent dimensions are looked at."""

    samples: int = key(2000, "generated faces judged, for models without an encoder", low=50)
    traversed: int = key(8, "dimensions shown as traversals", low=1)
    least_effect: float = key(0.3, "size of Cliff's delta from which an association is named", low=0.0, high=1.0)
