"""What stages write and reports read, as records: the one place that knows the keys. This file is torch-free."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from facefactory import config

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Protocol:
    """How images were compared; scores of unlike protocols are never ranked together."""

    features: str  # the network, e.g. lite0, inception, judge
    weights: str  # first 8 hex digits of the SHA-256 of its weights
    resize: str  # the rule in words, e.g. "to 96x96, antialiased bilinear"
    rounding: str  # of generated images, e.g. "uint8"
    dataset: str  # first 12 hex digits of the images' digest
    split: str
    crop: str
    reals: int
    fakes: int
    seed: int
    average: str  # half-life of the averaged weights [kimg], as the checkpoint names it
    truncation: float  # psi; 1 = none

    def id(self) -> str:
        """8 hex digits that name it."""
        return config.digest(dataclasses.asdict(self))[:8]

    def differs(self, other: Protocol) -> dict[str, tuple[Any, Any]]:
        """Field -> the two values, where two protocols are unlike."""
        pairs = {
            one.name: (getattr(self, one.name), getattr(other, one.name))
            for one in dataclasses.fields(self)
        }
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True)
class Score:
    """One number about one model."""

    name: str  # e.g. kd_lite0
    value: float
    better: Better
    protocol: str  # id
    low: float | None = None  # 95 % interval
    high: float | None = None
    scale: dict[str, float] = field(
        default_factory=dict
    )  # mark (floor, new_people, blur …) -> value
    verdicts: tuple[str, ...] = ()  # what stands beside it, e.g. "blind to blur", "too few images"


@dataclass(frozen=True)
class Goal:
    """What a search looks for."""

    metric: str
    better: Better

    def best(self, values: list[float]) -> float:
        """The best of some values."""
        return min(values) if self.better == "lower" else max(values)


@dataclass(frozen=True)
class Effect:
    """How far the codes of a dimension tell the two classes of a label apart."""

    effect: float  # Cliff's δ, -1…1
    low: float  # 95 % interval
    high: float
    q: float  # Benjamini-Hochberg over all dimensions and labels


@dataclass(frozen=True)
class Dimension:
    """What is known of a latent dimension; no prose: that is made in the report."""

    dimension: int
    kl_nats: float | None  # None: the model has no posterior
    effects: dict[str, Effect]
    verdict: Literal["goes with", "unnamed", "inactive"]
    labels: tuple[str, ...]  # those that it goes with
