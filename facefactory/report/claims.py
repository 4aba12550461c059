"""What interpret found out about a run's latent dimensions, as its results.json has it, and sentences of it."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from facefactory.results import (
    Claim,
    Contrast,
    Dimension,
    Effect,
    Estimate,
    Shares,
    Sheet,
    Verdict,
)

ORDER: tuple[Verdict, ...] = ("controls", "goes with", "unnamed", "inactive")
SHOWN = 12  # claims that a report has as sentences


@dataclass(frozen=True)
class Codes:
    """Scores of whole codes."""

    faces: int
    factors: list[str]  # labels that they are held against
    scores: dict[str, float]
    absent: dict[str, str]  # score -> why there is none


@dataclass(frozen=True)
class Space:
    """What is known of the dimensions of a space."""

    method: str
    dimensions: list[Dimension]
    listed: list[int]
    codes: Codes
    contrasts: list[Contrast] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)
    among_labels: dict[str, dict[str, float]] = field(default_factory=dict)  # their correlations


@dataclass(frozen=True)
class Latent:
    """results.json of interpret."""

    space: str  # the one that fits the model best
    labels: list[str]
    not_scored: dict[str, str]  # label -> why
    spaces: dict[str, Space]
    shares: list[Shares] = field(default_factory=list)  # who is drawn
    absent_spaces: dict[str, str] = field(default_factory=dict)  # those it has not -> why

    @property
    def claims(self) -> list[Claim]:
        """Of all spaces: those with a verdict that says most first, then the largest effects."""
        found = [claim for space in self.spaces.values() for claim in space.claims]
        return sorted(found, key=lambda claim: (ORDER.index(claim.verdict), -strength(claim)))

    def said(self, claim: Claim) -> str:
        """A claim in words, with its space where there are several."""
        return f"{claim.space} {claim.words()}" if len(self.spaces) > 1 else claim.words()


@cache
def adapter() -> TypeAdapter[Latent]:
    """What reads results.json, and knows its schema."""
    return TypeAdapter(Latent)


def read(results: dict[str, Any]) -> Latent | None:
    """The record of interpret's results.json; None: it is empty, or an older version wrote it."""
    try:
        return adapter().validate_python(results)
    except ValidationError:
        return None


def shown_of(claim: Claim) -> Effect | Estimate | None:
    """The figure that speaks for a claim: given the other labels, where it is known."""
    return claim.effect and (claim.effect.given or claim.effect)


def strength(claim: Claim) -> float:
    """How far that lies from nothing, 0…1."""
    found = shown_of(claim)
    if claim.contrast is None or found is None:
        return 0.0
    return abs(claim.contrast.size(found.value))


SEVERAL: dict[Verdict, str] = {"controls": "control", "goes with": "go with"}


def said(verdict: Verdict, count: int) -> str:
    """What so many dimensions do."""
    return verdict if count == 1 else SEVERAL.get(verdict, verdict)


def sentences(latent: Latent) -> list[str]:
    """How many dimensions have which verdict, then the strongest claims."""
    counts = Counter(claim.verdict for claim in latent.claims)
    parts = [
        f"{counts[verdict]} {said(verdict, counts[verdict])}"
        for verdict in ORDER
        if counts[verdict]
    ]
    dimensions = (
        "1 latent dimension" if counts.total() == 1 else f"{counts.total()} latent dimensions"
    )
    named = [latent.said(claim) for claim in latent.claims if claim.attribute]
    total = (
        f"{dimensions}: {', '.join(parts)}." if parts else "Nothing is known of its dimensions."
    )
    if parts and not named:
        return [total, "None of them has a name: no effect is large, certain and its own."]
    return [total, *named[:SHOWN]]
