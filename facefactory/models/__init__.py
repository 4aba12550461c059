"""Networks, and what the rest of the project asks of them. This file is torch-free.

A model file defines `class Component(nn.Module)`: its one positional argument are the `Facts` of
the data, its keyword-only arguments are its options. Sub-modules that a phase trains are
attributes with the field's names (`generator`, `discriminator`, `encoder`, `decoder`,
`classifier`). A model that is conditioned on labels names them in `conditions`, and takes them as the
option of that name, so that a change of the labels trains it anew; `c` [N, columns] is then what
facefactory/conditions.py makes of them, and has no columns for the others. A layer with a buffer that follows its
weights moves it in `follow()`, which the training loop calls once an iteration; a forward leaves such buffers alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from facefactory.facts import Facts


class Generative(Protocol):
    """A model that draws images."""

    z_dim: int
    conditions: tuple[str, ...]

    # [N, z_dim] standard normal, c -> images [N, C, H, W] in -1…1
    def sample(self, z: Tensor, c: Tensor) -> Tensor: ...


class GAN(Generative, Protocol):
    """A generator and its discriminator."""

    generator: Any  # (z [N, z_dim], c) -> [N, C, H, W] in -1…1
    discriminator: Any  # ([N, C, H, W], c) -> logits [N]


class Shows(GAN, Protocol):
    """A GAN whose discriminator also gives what it makes of images before it judges them, or knows their labels."""

    feature_dim: int

    # (images, c, True) -> logits [N], features [N, feature_dim], which do not depend on c
    discriminator: Any


class Clocked(Protocol):
    """A model that changes with the clock, and by nothing else: no checkpoint holds it. One that is told no clock is finished."""

    # told before each batch, at its end, and where a checkpoint is rebuilt
    def at(self, kimg: float) -> None: ...

    # real images [N, C, H, W] -> as they are trained on at that clock
    def shown(self, images: Tensor) -> Tensor: ...


class Stochastic(GAN, Protocol):
    """A GAN whose generator draws more than z while it is trained: noise of its layers, a second z."""

    stochastic: bool

    # (z, c, draws, purpose) -> images; without draws, as anywhere else, of a z the same image
    generator: Any


class HasW(Generative, Protocol):
    """A generator that turns z into a w first: there walks are straighter, and truncation goes towards its mean."""

    w_dim: int

    # [N, z_dim], c -> w [N, w_dim]; psi: 0 = their mean, 1 = as they are
    def to_w(self, z: Tensor, c: Tensor, psi: float = 1.0) -> Tensor: ...

    def from_w(self, w: Tensor) -> Tensor: ...  # [N, w_dim] -> images [N, C, H, W] in -1…1


class Remembers(Protocol):
    """A model with buffers that move with what the networks saw."""

    # once an iteration, on all ranks: `total` sums over ranks
    def after(self, kimg: float, total: Callable[[Tensor], Tensor]) -> None: ...


@dataclass(frozen=True)
class Rule:
    """What a paper says an option of a training should be."""

    key: str  # of the config tree
    value: float
    words: str  # the formula and the paper
    where: dict[str, str]  # key -> name of the component there for which it was said


class Ruled(Protocol):
    """A model for which such rules are known. They are told when a training is planned, and nothing is set by them."""

    @staticmethod
    def rules(facts: Facts, batch_size: int) -> list[Rule]: ...


class Starts(Protocol):
    """A model that starts from published weights. Building it loads nothing: a checkpoint rebuilds it without them."""

    pretrained: tuple[str, ...]  # SHA-256 of the files; a training depends on them

    def start(self) -> None:
        """Load them, at clock 0 and never again; UserError: they are not here."""
        ...


class VAE(Generative, Protocol):
    """A variational autoencoder with a diagonal normal posterior."""

    # [N, C, H, W], c -> mu, logvar [N, z_dim]
    def encode(self, images: Tensor, c: Tensor) -> tuple[Tensor, Tensor]: ...

    def decode(self, z: Tensor, c: Tensor) -> Tensor: ...  # [N, z_dim], c -> images in -1…1


class Discrete(Generative, Protocol):
    """An autoencoder whose codes are not drawn: an image has one, and a prior of the model's own says how likely that is."""

    # [N, C, H, W], c -> images in -1…1, from their codes
    def reconstruct(self, images: Tensor, c: Tensor) -> Tensor: ...

    def code_nats(self, images: Tensor, c: Tensor) -> Tensor: ...  # -log p(code | c), [N]


class Classifier(Protocol):
    """A classifier with one head a label."""

    def features(self, images: Tensor) -> Tensor: ...  # [N, C, H, W] -> [N, D]

    # [N, C, H, W] -> label -> [N, classes]
    def logits(self, images: Tensor) -> dict[str, Tensor]: ...
