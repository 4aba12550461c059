"""Networks, and what the rest of the project asks of them. This file is torch-free.

A model file defines `class Component(nn.Module)`: its one positional argument are the `Facts` of the data, its
keyword-only arguments are its options. Sub-modules that a phase trains are attributes with the field's names
(`generator`, `discriminator`, `encoder`, `decoder`, `classifier`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Facts:
    """What the data fix: side of the images [pixels], their channels, classes per label."""

    resolution: int
    channels: int
    classes: dict[str, int] = field(default_factory=dict)


class Generative(Protocol):
    """A model that draws images."""

    z_dim: int

    def sample(self, z: Tensor) -> Tensor: ...  # [N, z_dim] standard normal -> images [N, C, H, W] in -1…1


class GAN(Generative, Protocol):
    """A generator and its discriminator."""

    generator: Any  # [N, z_dim] -> [N, C, H, W] in -1…1
    discriminator: Any  # [N, C, H, W] -> logits [N]


class VAE(Generative, Protocol):
    """A variational autoencoder with a diagonal normal posterior."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]: ...  # [N, C, H, W] -> mu, logvar [N, z_dim]

    def decode(self, z: Tensor) -> Tensor: ...  # [N, z_dim] -> images [N, C, H, W] in -1…1


class Classifier(Protocol):
    """A classifier with one head a label."""

    def features(self, images: Tensor) -> Tensor: ...  # [N, C, H, W] -> [N, D]

    def logits(self, images: Tensor) -> dict[str, Tensor]: ...  # [N, C, H, W] -> label -> [N, classes]
