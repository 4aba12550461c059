"""What each latent dimension goes with: effects on labels, with intervals and correction for testing.

This file is torch-free: it holds the section of the config tree.
"""

from dataclasses import dataclass

from facefactory.config import key


@dataclass(frozen=True)
class Interpret:
    """How latent dimensions are looked at."""

    samples: int = key(2000, "generated faces judged, for models without an encoder", low=50)
    traversed: int = key(8, "dimensions shown as traversals", low=1)
    min_effect: float = key(0.3, "size of Cliff's delta from which an association is named", low=0.0, high=1.0)
