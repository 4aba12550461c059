"""What a dimension draws: faces walk along it, and others say what changes. Association is no control.

At least 64 faces walk; what varies is one coordinate, set to -3…3 standard deviations around its mean (Pearl's do), and all
faces see the same doses. The figures are those of "Benchmarking counterfactual image generation" (Melistas et al.,
arXiv 2403.20287), by the definitions of `Control`. A dimension that is connected to nothing draws the same pixels at every
dose: its slopes are 0 with an interval of no width, whatever its codes go with.

A cell is walked when its association has passed; the others cost nothing. A dimension's walk depends on no other, so parts
of the cells, computed anywhere, are the same bits as all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from facefactory.data.sets import pixels
from facefactory.data.sets.order import Ids, permute
from facefactory.interpret import Space
from facefactory.interpret.sharing import UNSHARED, Item, Sharing
from facefactory.interpret.witnesses import Witnesses
from facefactory.metrics import Array, intervals
from facefactory.results import SEEN, Contrast, Control, Effect, Estimate, rank_correlation

DOSES = np.linspace(-3, 3, 9)  # standard deviations
FACES = 64  # that walk
# From one end to the other, in standard deviations of the answers to real faces
LEAST_CHANGE = 0.5
CANNOT_TELL = "the judge cannot tell it on people whom it never saw"
MOST_BESIDE = 0.5  # of the change in the contrast, that others may show


class Cell(NamedTuple):
    """An association that has passed, to be walked."""

    dimension: int
    contrast: Contrast
    effect: Effect


def controls(
    space: Space,
    cells: Sequence[Cell],
    witnesses: Witnesses,
    attributes: Mapping[str, str],
    faces: int = FACES,
    name: str = "",
    sharing: Sharing = UNSHARED,
) -> list[Control]:
    """What walking does to each of these cells, in their order.

    Args:
        space: with the faces that codes are of.
        cells: dimensions and contrasts that go with each other.
        witnesses: who is asked; they answer the cells' contrasts.
        attributes: contrast -> attribute; side effects on synonyms are none.
        faces: how many walk, of as many people as there are.
        name: of the space, by which walks are shared.
        sharing: with whom.
    """
    if not cells:
        return []
    base = _Base(space, witnesses, walkers(space.groups, faces))
    dimensions = list(dict.fromkeys(cell.dimension for cell in cells))
    walked = sharing.items(f"{name}-walks", dimensions, lambda one: base.walked(one).item())
    walks = {dimension: Walk.of(item) for dimension, item in walked.items()}
    return [_control(cell, walks[cell.dimension], base, attributes) for cell in cells]


def walkers(groups: Ids, count: int) -> Ids:
    """Rows of faces that walk, in a fixed shuffle: each person once, then each once more."""
    order = permute(np.arange(len(groups)), len(groups), 4)
    shuffled = groups[order]
    ranks = np.zeros(len(groups), np.int64)  # how often the same person came before
    by_person = np.argsort(shuffled, kind="stable")
    starts = np.flatnonzero(np.diff(shuffled[by_person], prepend=shuffled[by_person[0]] - 1))
    lengths = np.diff(np.append(starts, len(groups)))
    ranks[by_person] = np.arange(len(groups)) - np.repeat(starts, lengths)
    return order[np.argsort(ranks, kind="stable")][:count]


# -- walks -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Walk:
    """What was answered along a dimension: [faces, doses, K] by the judge and the other network."""

    judge: Array
    network: Array | None
    identity: float

    @classmethod
    def of(cls, item: Item) -> Self:
        """As `item` gave it."""
        return cls(item["judge"], item.get("network"), float(item["identity"]))

    def item(self) -> Item:
        """As arrays."""
        found: Item = {"judge": self.judge, "identity": np.asarray(self.identity)}
        return found if self.network is None else found | {"network": self.network}


class _Base:
    """The faces that walk, as they are."""

    def __init__(self, space: Space, witnesses: Witnesses, rows: Ids) -> None:
        self.space = space
        self.witnesses = witnesses
        self.people = space.groups[rows]
        self.codes = torch.from_numpy(space.codes[rows])
        self.mean = space.codes.mean(0)

        # what is lost where a face is only coded and drawn
        images = self.draw(self.codes)
        difference = images.float() - space.faces(rows).float()
        self.composition = float(difference.abs().mean() / 255)
        self.features = witnesses.features(images)
        centred = self.features - self.features.mean(0)
        self.unlike = 2 * float(np.square(centred).sum(1).mean())  # of two faces, squared

    def draw(self, codes: Tensor) -> Tensor:
        """[n, H, W, C] uint8: what people would see."""
        with torch.inference_mode():
            return pixels.to_uint8(self.space.decode(codes.to(self.space.start))).cpu()

    def walked(self, dimension: int) -> Walk:
        """All faces go along a dimension; one batch a dose, so that equal codes are equal pixels."""
        judge = self.witnesses.judge
        network = self.witnesses.network
        judged = []
        embedded = []
        moved = []
        for dose in DOSES:
            codes = self.codes.clone()
            codes[:, dimension] = self.mean[dimension] + dose * float(self.space.scale[dimension])
            images = self.draw(codes)
            judged.append(judge.ask(images))
            if network is not None:
                embedded.append(network.ask(images))
            if dose in (DOSES[0], DOSES[-1]):
                seen = self.witnesses.features(images)
                moved.append(np.square(seen - self.features).sum(1).mean())

        kept = 1 - float(np.mean(moved)) / self.unlike if self.unlike else 1.0
        by_network = np.stack(embedded, 1) if embedded else None
        return Walk(np.stack(judged, 1), by_network, kept)


# -- figures ---------------------------------------------------------------------------


def by_person(values: Array, groups: Ids) -> Array:
    """Means over each person's faces: [faces, …] -> [people, …]."""
    names, which = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, which, values)
    counts = np.bincount(which).reshape(-1, *[1] * (values.ndim - 1))
    means: Array = sums / counts
    return means


def mean_of(values: Array) -> tuple[Array, Array, Array]:
    """Mean over people [people, …] and its 95 % interval, Student's t."""
    mean = values.mean(0)
    if len(values) < 2:
        return mean, np.full_like(mean, -np.inf), np.full_like(mean, np.inf)
    reach = intervals.quantile(len(values) - 1) * scipy.stats.sem(values, 0)
    return mean, mean - reach, mean + reach


def slopes(answers: Array, groups: Ids) -> list[Estimate]:
    """Of answers [faces, doses, K] a deviation, by least squares for each face; intervals over people."""
    # from the answer in the middle on: what does not move has a slope of exactly 0
    moved = answers - answers[:, [len(DOSES) // 2]]
    of_face = np.einsum("fdk,d->fk", moved, DOSES) / np.square(DOSES).sum()
    mean, low, high = mean_of(by_person(of_face, groups))
    return [Estimate(*map(float, row)) for row in zip(mean, low, high, strict=True)]


def changes(walk: Walk, witnesses: Witnesses, people: Ids) -> list[float]:
    """How much contrasts change a deviation, in standard deviations of the answers to real faces [K].

    Where both witnesses can be trusted it is the smaller of what the two see, and nothing where they see opposites: a judge
    that takes dark skin for a beard is found out by the other one.
    """
    judged = [one.value for one in slopes(walk.judge, people)] / witnesses.judge.spread
    network = witnesses.network
    if walk.network is None or network is None:
        return np.abs(judged).tolist()
    embedded = [one.value for one in slopes(walk.network, people)] / network.spread
    both = np.where(judged * embedded > 0, np.minimum(np.abs(judged), np.abs(embedded)), 0.0)
    trusted = [witnesses.trusts(network, place) for place in range(len(judged))]
    found: list[float] = np.where(trusted, both, np.abs(judged)).tolist()
    return found


def _clear(slope: Estimate) -> bool:
    return slope.low > 0 or slope.high < 0


def _control(cell: Cell, walk: Walk, base: _Base, attributes: Mapping[str, str]) -> Control:
    """The figures of one cell, and whether that is control."""
    witnesses = base.witnesses
    judge = witnesses.judge
    names = [contrast.name for contrast in witnesses.contrasts]
    number = names.index(cell.contrast.name)
    judged = slopes(walk.judge, base.people)
    slope = judged[number]
    curve, low, high = mean_of(by_person(walk.judge[:, :, number], base.people))
    embedded = None
    if walk.network is not None and witnesses.network is not None:
        embedded = slopes(walk.network, base.people)[number]

    # the largest change in any contrast of this attribute, and of others
    own = attributes.get(cell.contrast.name, cell.contrast.label)
    changed = changes(walk, witnesses, base.people)
    mine = [0.0]
    beside = {}
    for place, contrast in enumerate(witnesses.contrasts):
        if not witnesses.trusts(judge, place):
            continue
        if attributes.get(contrast.name, contrast.label) == own:
            mine.append(changed[place])
        else:
            beside[contrast.name] = changed[place]
    others = {name: judged[names.index(name)] for name in beside}
    change = max(mine)
    most = max(beside, key=lambda name: beside[name], default="")
    minimality = beside[most] / change if most and change else 0.0

    told = _Told(cell, slope, embedded, curve, change, bool(beside), most, minimality)
    absent = told.objection(witnesses, number)
    return Control(
        dimension=cell.dimension,
        contrast=cell.contrast.name,
        deviations=DOSES.tolist(),
        judged=curve.tolist(),
        judged_low=low.tolist(),
        judged_high=high.tolist(),
        slope=slope,
        embedded=embedded,
        composition=base.composition,
        effectiveness=effectiveness(walk.judge[:, :, number], slope.value, judge.middle[number]),
        minimality=float(minimality),
        identity=walk.identity,
        others=others,
        reliability=judge.trust[number],
        holds=not absent,
        absent=absent,
    )


def effectiveness(answers: Array, slope: float, middle: float) -> float:
    """Share of faces whose answer is what the walk went to, mean of its two ends; answers [faces, doses]."""
    low = answers[:, 0]
    high = answers[:, -1]
    if slope < 0:
        low, high = high, low
    return float(((high > middle).mean() + (low < middle).mean()) / 2)


class _Told(NamedTuple):
    """What speaks for or against control."""

    cell: Cell
    slope: Estimate
    embedded: Estimate | None
    curve: Array
    change: float  # a deviation, in deviations of the answers to real faces
    beside: bool  # whether side effects on any other attribute can be told
    most: str  # the contrast with the largest one
    minimality: float

    def objection(self, witnesses: Witnesses, number: int) -> str:
        """Why it is no control, in words; "" where it is."""
        judge = witnesses.judge
        network = witnesses.network
        effect = self.cell.contrast.size(self.cell.effect.value)

        # by the judge
        checks: list[tuple[bool, str]] = [
            (witnesses.trusts(judge, number), CANNOT_TELL),
            (_clear(self.slope), "the judge sees no change"),
            (
                abs(rank_correlation(self.curve.tolist())) >= SEEN,
                "the judge's answer goes up and down",
            ),
            (
                bool(np.sign(self.slope.value) == np.sign(effect)),
                "walking changes it the other way than the codes go with it",
            ),
        ]

        # by the other network: a judge that takes hair for glasses is found out by nobody else
        if self.embedded is None or network is None:
            checks.append((False, "no other network is here to be asked"))
        else:
            same = np.sign(self.embedded.value) == np.sign(self.slope.value)
            checks += [
                (witnesses.trusts(network, number), "the other network cannot tell it"),
                (_clear(self.embedded) and bool(same), "the other network does not see it"),
            ]

        # by enough, and little else
        checks += [
            (self.beside, "no other label can be told, and nobody knows what else changes"),
            (
                bool(self.change * np.ptp(DOSES) >= LEAST_CHANGE),
                f"answers move by less than {LEAST_CHANGE:g} deviations",
            ),
            (
                self.minimality < MOST_BESIDE,
                f"{self.most} changes {self.minimality:.0%} as much",
            ),
        ]
        return next((words for holds, words in checks if not holds), "")
