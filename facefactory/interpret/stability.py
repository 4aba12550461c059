"""Whether other trainings have a dimension like one of this, by the name that they give it.

Dimensions of two trainings are matched one to one, so that their effects on the contrasts that both know are as much alike as
can be, whatever their sign (Hungarian algorithm: Kuhn, Naval Research Logistics 1955).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.optimize

from facefactory.interpret.effects import Ids, Table
from facefactory.metrics import Array
from facefactory.results import Claim, Contrast

SHARE = 2 / 3  # of the trainings, that must have a name for it to be said


def matched(first: Array, second: Array) -> list[int | None]:
    """For each dimension of effects [D, C] the one of [E, C] that is most like it; None: it has no partner."""
    alike = np.abs(_unit(first) @ _unit(second).T)
    partners: list[int | None] = [None] * len(first)
    rows, columns = scipy.optimize.linear_sum_assignment(-alike)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if alike[row, column] > 0:
            partners[row] = column
    return partners


def _unit(rows: Array) -> Array:
    length = np.sqrt(np.square(rows).sum(1, keepdims=True))
    return rows / np.where(length > 0, length, 1)


def agreed(claims: Sequence[Claim], table: Table, others: Mapping[str, Any]) -> list[Claim]:
    """Claims with the number of trainings that have them; one that too few have loses its name.

    `others`: run -> its results.json; one without this space has none of its dimensions.
    """
    if not others:
        return list(claims)

    # how many have each
    votes = np.ones(len(claims), np.int64)
    for other in others.values():
        found = other["spaces"].get(claims[0].space) if claims else None
        if found is not None:
            votes += _votes(claims, table, found)

    # a name needs enough of them
    runs = len(others) + 1
    least = int(np.ceil(SHARE * runs - 1e-9))
    said = []
    for one, seeds in zip(claims, votes.tolist(), strict=True):
        if one.attribute and seeds < least:
            nameless = Claim(one.space, one.dimension, "unnamed", unstable=one.attribute)
            said.append(dataclasses.replace(nameless, seeds=seeds, runs=runs))
        elif one.attribute:
            said.append(dataclasses.replace(one, seeds=seeds, runs=runs))
        else:
            said.append(one)
    return said


def _votes(claims: Sequence[Claim], table: Table, other: Mapping[str, Any]) -> Ids:
    """1 for each claim whose partner in another training has its name."""
    theirs = {Contrast(**entry).name: Contrast(**entry) for entry in other["contrasts"]}
    both = [number for number, one in enumerate(table.contrasts) if one.name in theirs]
    own = [
        [table.contrasts[number].size(row[number].value) for number in both] for row in table.rows
    ]
    names = [table.contrasts[number].name for number in both]
    rows = [
        [theirs[name].size(row["effects"][name]["value"]) for name in names]
        for row in other["dimensions"]
    ]
    partners = matched(np.reshape(own, (-1, len(both))), np.reshape(rows, (-1, len(both))))
    given = [entry["attribute"] or entry["unstable"] for entry in other["claims"]]
    same = [
        partner is not None and bool(one.attribute) and given[partner] == one.attribute
        for one, partner in zip(claims, partners, strict=True)
    ]
    return np.array(same, np.int64)
