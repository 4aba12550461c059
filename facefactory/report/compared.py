"""Two runs' claims side by side: which attributes both have a dimension for, and where their intervals lie apart."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from facefactory.report.claims import ORDER, Latent, shown_of
from facefactory.results import Claim


@dataclass(frozen=True)
class Pair:
    """The strongest claims about one attribute."""

    attribute: str
    here: str  # in words; "": none
    there: str
    apart: (
        bool | None
    )  # whether their intervals have nothing in common; None: they are not of one measure


def claims(here: Latent, there: Latent) -> dict[str, Any]:
    """Attributes with the claims about them, how many dimensions have which verdict, scores of whole codes.

    Labels that only one of the two was held against say nothing about the other: they are named.
    """
    ours = strongest(here)
    theirs = strongest(there)
    pairs = []
    for attribute in dict.fromkeys([*ours, *theirs]):
        one = ours.get(attribute)
        other = theirs.get(attribute)
        here_words = here.said(one) if one else ""
        there_words = there.said(other) if other else ""
        pairs.append(Pair(attribute, here_words, there_words, _apart(one, other)))

    # all dimensions together
    rows = []
    counts = [Counter(claim.verdict for claim in latent.claims) for latent in (here, there)]
    for verdict in ORDER:
        rows.append((f"dimensions: {verdict}", *(count[verdict] for count in counts)))
    codes = [latent.spaces[latent.space].codes for latent in (here, there)]
    for name in dict.fromkeys([*codes[0].scores, *codes[1].scores]):
        rows.append((name, *(code.scores.get(name) for code in codes)))
    return {
        "pairs": pairs,
        "rows": rows,
        "spaces": [here.space, there.space],
        "only_here": sorted(set(here.labels) - set(there.labels)),
        "only_there": sorted(set(there.labels) - set(here.labels)),
    }


def strongest(latent: Latent) -> dict[str, Claim]:
    """Attribute -> the claim about it that says most."""
    found: dict[str, Claim] = {}
    for claim in latent.claims:
        if claim.attribute:
            found.setdefault(claim.attribute, claim)
    return found


def _apart(one: Claim | None, other: Claim | None) -> bool | None:
    """Whether two intervals of the same measure do not meet, whichever way the dimensions run."""
    if one is None or other is None or one.contrast is None or other.contrast is None:
        return None
    if one.contrast.name != other.contrast.name:
        return None
    (low, high), (other_low, other_high) = _sizes(one), _sizes(other)
    return high < other_low or other_high < low


def _sizes(claim: Claim) -> tuple[float, float]:
    """The interval of how far the effect lies from nothing."""
    shown = shown_of(claim)
    assert shown is not None and claim.contrast is not None
    ends = [claim.contrast.size(value) for value in (shown.low, shown.high)]
    if claim.contrast.size(shown.value) < 0:
        ends = [-end for end in ends]
    return min(ends), max(ends)
