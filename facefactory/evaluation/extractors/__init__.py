"""Feature networks: images become the vectors that scores compare. This file is torch-free.

A file has

    WEIGHTS      the published file that it needs (facefactory/weights.py); None: it has the judge's
    NEEDS        what has to be made before: ("judge",) or ()
    RANKS        whether its scores may be what a search looks for
    NAMES        names of scores that the field knows by their own (fd -> fid); others get the file's name (kd -> kd_lite0)
    ASKED        (may be left out) True: only a protocol that names it looks through it
    load(size, device, judge) -> `Extractor` for images of one size; what it does to those that are not square stands in its rule

Images are looked at in batches of one fixed size, so that an image's features do not depend on how many others there are.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from facefactory import registry
from facefactory.facts import Size

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Looked:
    """What a network makes of images."""

    features: torch.Tensor  # [n, D] float32, where the network computes
    logits: torch.Tensor | None = None  # [n, K], of a network with classes


class Extractor(Protocol):
    """A feature network, ready to look."""

    batch: int  # images at once, always so many
    weights: str  # first 8 hex digits of the SHA-256 of its weights
    resize: str  # the rule in words

    def __call__(self, images: torch.Tensor) -> Looked:
        """Images [batch, H, W, C] uint8 -> features."""


@dataclass(frozen=True)
class Judge:
    """The set's own classifier, and the digest of its weights."""

    network: Any
    digest: str


def file(name: str) -> ModuleType:
    """The file behind a name; UserError: there is no such network."""
    return registry.module("evaluation.extractors", name)


def missing(name: str) -> str | None:
    """What to do to have a network's weights; None: they are here. UserError: they are not the published ones."""
    wanted = file(name).WEIGHTS
    return wanted.how() if wanted is not None and wanted.find() is None else None


def require(name: str) -> None:
    """Missing: a network's weights are not here, with the command that brings them."""
    wanted = file(name).WEIGHTS
    if wanted is not None:
        wanted.need()


def usual() -> list[str]:
    """The networks that a protocol looks through which names none."""
    names = registry.names("evaluation.extractors")
    return [name for name in names if not getattr(file(name), "ASKED", False)]


def present() -> list[str]:
    """Those of them that could be loaded here, the ones that rank first."""
    found = [name for name in usual() if missing(name) is None]
    return sorted(found, key=lambda name: (not file(name).RANKS, name))


@functools.lru_cache(maxsize=4)
def load(name: str, size: Size, device: torch.device, judge: Judge | None) -> Extractor:
    """A feature network for images of one size.

    Raises:
        Missing: its weights are not here, with the command that brings them.
        UserError: it needs a judge and there is none.
    """
    require(name)
    found: Extractor = file(name).load(size, device, judge)
    return found
