"""What is said of latent dimensions: effects on labels, a claim a dimension, and walks along single dimensions.

A dimension has a name when the interval of an effect given the other labels lies beyond `interpret.min_effect` (0.2 of
2 AUROC - 1 is an AUROC of 0.6), its q value over the whole matrix is 0.05 at most, and, where other trainings are given, two
thirds of all have a dimension like it with the same name.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facefactory import UserError, registry
from facefactory.data.sets import pixels
from facefactory.data.sets.index import Index
from facefactory.data.sets.labels import people
from facefactory.data.sets.loader import Shards
from facefactory.evaluation.extractors import Extractor
from facefactory.interpret import (
    Context,
    Interpret,
    Space,
    Unsuited,
    control,
    effects,
    factors_of,
    names,
    pictures,
    shares,
    stability,
    witnesses,
)
from facefactory.interpret.control import Cell
from facefactory.interpret.effects import MOST_Q, Table
from facefactory.interpret.names import Names
from facefactory.interpret.sharing import UNSHARED, Pending, Sharing
from facefactory.interpret.witnesses import Witnesses
from facefactory.metrics import Array
from facefactory.results import (
    Claim,
    Contrast,
    Control,
    Dimension,
    Effect,
    Estimate,
    Sheet,
    Verdict,
)

PACKAGE = "interpret.spaces"
METRICS = "metrics.codes"
ACTIVE_NATS = 0.05  # a dimension with less KL than this carries nothing
ACTIVE_LEVELS = 0.05  # and one that moves pixels by less than this, of 255 levels a deviation
MOVED = 16  # faces whose pixels are moved
FELT = 4  # of them, whose features are looked at
MOST_BESIDE = 0.5  # of an effect, that another may have beside one that is exclusive
TESTED = (
    "Effects: AUROC, of numbers Spearman's correlation; 95 % intervals and p by person (a generated face is one), "
    "DeLong's variances, Student's t; q: Benjamini-Hochberg over all cells; given the rest: among faces alike in all other "
    "labels, where an effect is large enough and no accident."
)
WALK = torch.linspace(-3, 3, 9)  # standard deviations


# -- what is active ------------------------------------------------------------------------


@dataclass(frozen=True)
class Activity:
    """What a dimension does, label or no label."""

    kl_nats: float | None  # None: the model has no posterior
    variance: float  # of the codes
    levels: float  # root mean square that pixels move by, a deviation, of 255
    features: (
        float | None
    )  # the same of a network's features, as a share of what two faces differ by

    @property
    def inactive(self) -> bool:
        """Whether nothing is coded in it, or nothing drawn of it."""
        silent = self.kl_nats is not None and self.kl_nats < ACTIVE_NATS
        return silent or self.levels < ACTIVE_LEVELS


def activities(
    space: Space, look: Callable[[torch.Tensor], Array] | None = None
) -> list[Activity]:
    """Of each dimension; pixels are those of a few faces, half a deviation to either side.

    `look`: images [n, H, W, C] uint8 -> features [n, K].
    """
    rows = np.linspace(0, len(space.codes) - 1, min(MOVED, len(space.codes))).astype(np.int64)
    codes = torch.from_numpy(space.codes[rows]).to(space.start)
    found = []
    shown = []
    with torch.inference_mode():
        for dimension, variance in enumerate(space.codes.var(0).tolist()):
            ends = []
            for side in (-0.5, 0.5):
                moved = codes.clone()
                moved[:, dimension] += side * float(space.scale[dimension])
                ends.append(space.decode(moved).double())
            levels = 127.5 * float((ends[1] - ends[0]).square().mean().sqrt())
            shown += [pixels.to_uint8(end[:FELT]).cpu() for end in ends]
            kl = space.activity[dimension] if space.activity else None
            found.append(Activity(kl, variance, levels, None))
    if look is None:
        return found

    # features of all of them at once
    apart = 2 * float(look(space.faces(rows)).var(0).sum())  # of two faces, squared
    if not apart:
        return found
    seen = look(torch.cat(shown))
    low, high = np.moveaxis(seen.reshape(len(found), 2, -1, seen.shape[1]), 1, 0)
    felt = np.sqrt(np.square(high - low).sum(2).mean(1) / apart).tolist()
    return [
        dataclasses.replace(one, features=share) for one, share in zip(found, felt, strict=True)
    ]


# -- what goes with what -------------------------------------------------------------------


def passes(contrast: Contrast, effect: Effect, min_effect: float) -> bool:
    """Whether an effect is large enough and no accident, also among faces that are alike in the other labels."""
    if effect.given is None:
        alone = effect.absent == effects.ALONE
        size = effects.beyond(effect.estimate, contrast)
        return alone and size >= min_effect and effect.q <= MOST_Q
    size = effects.beyond(effect.given, contrast)
    q = max(effect.q, effect.given_q or 0.0)
    return size >= min_effect and q <= MOST_Q


def claim(space: str, dimension: int, table: Table, known: Names, min_effect: float) -> Claim:
    """What is said of an active dimension by what it goes with."""
    cells = list(zip(table.contrasts, table.rows[dimension], strict=True))
    passing = [cell for cell in cells if passes(*cell, min_effect)]
    if not passing:
        explained = [cell for cell in cells if cell[1].explained_by]
        if not explained:
            return Claim(space, dimension, "unnamed")
        contrast, effect = max(explained, key=_strength)
        return Claim(space, dimension, "unnamed", contrast=contrast, effect=effect)

    # the strongest has the word; its synonyms may have one for the other end
    contrast, effect = max(passing, key=_strength)
    attribute = known.attribute(contrast.label)
    low, high = known.ends(contrast)
    opposite = [
        cell[0].against
        for cell in sorted(passing, key=_strength, reverse=True)
        if cell[0].label == contrast.label and _signed(*cell) * _signed(contrast, effect) < 0
    ]
    if contrast.against and opposite:
        low = opposite[0]
    if _signed(contrast, effect) < 0:
        low, high = high, low
    return Claim(
        space,
        dimension,
        "goes with",
        attribute,
        low,
        high,
        contrast,
        effect,
        exclusive=_exclusive(dimension, contrast, effect, passing, table, known),
    )


def _exclusive(
    dimension: int,
    contrast: Contrast,
    effect: Effect,
    passing: Sequence[tuple[Contrast, Effect]],
    table: Table,
    known: Names,
) -> bool:
    """Whether no other attribute, and no other dimension, has half as large an effect."""
    most = MOST_BESIDE * abs(_signed(contrast, effect))
    mine = known.attribute(contrast.label)
    column = table.contrasts.index(contrast)
    attributes = [cell for cell in passing if known.attribute(cell[0].label) != mine]
    dimensions = [
        (contrast, row[column]) for number, row in enumerate(table.rows) if number != dimension
    ]
    return all(_strength(cell) < most for cell in [*attributes, *dimensions])


def _signed(contrast: Contrast, effect: Effect) -> float:
    """An effect as a rank correlation, given the rest where that is known."""
    return contrast.size((effect.given or effect.estimate).value)


def _strength(cell: tuple[Contrast, Effect]) -> float:
    return abs(_signed(*cell))


def walked(
    claims: Sequence[Claim], space: Space, known: Names, asked: Witnesses | None, sharing: Sharing
) -> list[Claim]:
    """Claims with a name, each with what those who are asked say of walks along its dimension.

    Where labels are the judge's own answers, one that it cannot tell on held-out faces names nothing.
    """
    cells = [
        Cell(one.dimension, one.contrast, one.effect)
        for one in claims
        if one.attribute and one.contrast and one.effect
    ]
    if not cells or asked is None:
        return list(claims)
    attributes = {contrast.name: known.attribute(contrast.label) for contrast in asked.contrasts}
    walks = control.controls(
        space, cells, asked, attributes, name=claims[0].space, sharing=sharing
    )
    controls = {one.dimension: one for one in walks}
    found = []
    for one in claims:
        shown = controls.get(one.dimension)
        if shown is not None and space.judged and shown.absent == control.CANNOT_TELL:
            found.append(Claim(one.space, one.dimension, "unnamed"))
        else:
            found.append(controlled(one, shown))
    return found


def controlled(one: Claim, shown: Control | None) -> Claim:
    """A claim with what walks have shown."""
    verdict: Verdict = "controls" if shown and shown.holds else one.verdict
    return dataclasses.replace(one, control=shown, verdict=verdict)


def claims_of(
    space: str, table: Table, active: Sequence[Activity], known: Names, min_effect: float
) -> list[Claim]:
    """A claim a dimension, before anything is walked."""
    found = []
    for dimension, activity in enumerate(active):
        if activity.inactive:
            found.append(Claim(space, dimension, "inactive"))
        else:
            found.append(claim(space, dimension, table, known, min_effect))
    return found


def dimensions(
    table: Table, active: Sequence[Activity], claims: Sequence[Claim], min_effect: float
) -> list[Dimension]:
    """All that is known of each dimension."""
    found = []
    for row, activity, one in zip(table.rows, active, claims, strict=True):
        cells = zip(table.contrasts, row, strict=True)
        by_name = {contrast.name: effect for contrast, effect in cells}
        labels = [
            contrast.name
            for contrast, effect in zip(table.contrasts, row, strict=True)
            if one.attribute and passes(contrast, effect, min_effect)
        ]
        found.append(
            Dimension(
                dimension=one.dimension,
                kl_nats=activity.kl_nats,
                variance=activity.variance,
                levels=activity.levels,
                effects=by_name,
                verdict=one.verdict,
                labels=tuple(labels),
                features=activity.features,
            )
        )
    return found


def listed(rows: list[Dimension], options: Interpret) -> list[int]:
    """The dimensions that reports show, in their order."""
    shown = [row for row in rows if options.inactive or row.verdict != "inactive"]
    if options.order == "kl":
        shown.sort(key=lambda row: -(row.kl_nats or 0.0))
    return [row.dimension for row in shown]


def whole(space: Space, factors: list[str]) -> dict[str, Any]:
    """Scores of the whole code against these labels by every metric of metrics/codes, and why there is none."""
    present = [name for name in factors if name in space.labels]
    columns = [space.labels[name] for name in present]
    held = np.stack(columns, 1) if columns else np.empty((len(space.codes), 0))
    scores: dict[str, float] = {}
    absent: dict[str, str] = {}
    for name in registry.names(METRICS):
        try:
            scores |= registry.module(METRICS, name).score(space.codes, held)
        except ValueError as error:
            absent[name] = str(error)
    return {
        "faces": len(space.codes),
        "dimensions": space.codes.shape[1],
        "factors": present,
        "scores": scores,
        "absent": absent,
    }


def walks(space: Space, shown: list[int]) -> torch.Tensor:
    """A row a dimension, one face while that dimension goes from -3 to 3 deviations: [len(shown)·9, H, W, C] uint8."""
    codes = space.start.repeat(len(shown), len(WALK), 1)
    for row, dimension in enumerate(shown):
        codes[row, :, dimension] = WALK * float(space.scale[dimension])
    with torch.inference_mode():
        return pixels.to_uint8(space.decode(codes.flatten(0, 1))).cpu()


def spaces_of(model: Any, options: Interpret) -> list[str]:
    """Names of the spaces that are looked at.

    Raises:
        UserError: there is none, or one that is asked for does not fit.
    """
    known = registry.names(PACKAGE)
    for name in options.spaces:
        if name not in known:
            raise registry.unknown(f"interpret.spaces: no {name!r}", name, known)
    fitting = [name for name in known if registry.module(PACKAGE, name).fits(model)]
    if not fitting:
        raise UserError(
            "interpret: this model draws no faces to look at; give run=… of a GAN or a VAE."
        )
    # axes come before directions among them
    fitting.sort(key=lambda name: getattr(registry.module(PACKAGE, name), "DIRECTIONS", False))
    return options.spaces or fitting


@dataclass(frozen=True)
class Look:
    """What all spaces of a model are looked at with."""

    context: Context
    words: Names
    not_scored: dict[str, str]  # label -> why
    others: Mapping[str, Any]  # run -> its results.json, of other trainings
    folder: Path  # where pictures go

    def at(self, name: str, space: Space, suffix: str) -> dict[str, Any]:
        """All that is known of one space; file names of its pictures end in `suffix`."""
        options = self.context.options
        schema = self.context.index.content.labels
        present = [label for label in self.context.labels if label in space.labels]
        table = effects.table(
            space.codes,
            {label: space.labels[label] for label in present},
            schema,
            space.groups,
            attribute=self.words.attribute,
            min_effect=options.min_effect,
            min_prevalence=options.min_prevalence,
            threads=torch.get_num_threads(),
        )

        # what is said of each dimension
        sharing = self.context.sharing
        asked = self.context.witnesses
        active = activities(space, asked.features if asked else None)
        claims = claims_of(name, table, active, self.words, options.min_effect)
        claims = stability.agreed(claims, table, self.others)
        claims = walked(claims, space, self.words, asked, sharing)
        sharing.leave_the_rest()
        rows = dimensions(table, active, claims, options.min_effect)
        reported = listed(rows, options)
        shown = pictured(space, table, claims, reported)[: options.traversed]

        return {
            "method": f"{space.method} {TESTED}",
            "labels": [contrast.name for contrast in table.contrasts],
            "contrasts": [dataclasses.asdict(contrast) for contrast in table.contrasts],
            "not_scored": {**self.not_scored, **table.left_out},
            "among_labels": table.among_labels,
            "dimensions": [dataclasses.asdict(row) for row in rows],
            "claims": [dataclasses.asdict(one) for one in claims],
            "listed": reported,
            "traversed": shown,
            "sheets": [dataclasses.asdict(sheet) for sheet in self._drawn(space, shown, suffix)],
            "codes": whole(space, self.context.factors),
        }

    def _drawn(self, space: Space, shown: list[int], suffix: str) -> list[Sheet]:
        """Pictures of these dimensions, and of the ways between classes."""
        picture = self.folder / f"traversals{suffix}.png"
        pixels.write(pixels.grid(walks(space, shown), len(WALK)), picture)
        columns = [f"{deviations:+.2g} deviations" for deviations in WALK.tolist()]
        first = Sheet(picture.name, "walk", [*shown], 1, columns, walks=True)
        schema = self.context.index.content.labels
        between = {label: schema[label].classes for label in space.labels if schema[label].classes}
        return [first, *pictures.written(space, shown, between, self.folder, suffix)]


def pictured(
    space: Space, table: Table, claims: Sequence[Claim], reported: Sequence[int]
) -> list[int]:
    """Dimensions in the order in which they are shown: those with a name, then the strongest."""
    strength = space.activity or [
        max(map(_strength, zip(table.contrasts, row, strict=True)), default=0.0)
        for row in table.rows
    ]
    named = {one.dimension for one in claims if one.named}
    return sorted(reported, key=lambda number: (number not in named, -strength[number]))


def interpret(
    model: Any,
    judge: Any,
    index: Index,
    options: Interpret,
    seed: int,
    folder: Path,
    others: Mapping[str, Any] | None = None,
    network: Extractor | None = None,
    folded: Mapping[str, Estimate] | None = None,
    sharing: Sharing = UNSHARED,
) -> dict[str, Any]:
    """What the dimensions of each latent space go with; pictures of them in `folder`, `traversals.png` of the first space.

    `others`: run -> its results.json, of other trainings whose dimensions are looked for. `network`: who is asked beside the judge
    what walks change; None: nobody. `folded`: what the judge is worth where few people are held out, as `witnesses.out_of_fold`.

    Raises:
        UserError: the model has no latent space.
        Pending: `sharing` leaves something to other processes; this one has done its part.
    """
    chosen = spaces_of(model, options)
    schema = index.content.labels

    # labels that enough people have
    everyone = Shards(index, list(index.content.splits))
    groups = people(everyone.table, index.content.group)
    of_set = {
        name: _numbers(everyone.table[name].to_numpy(np.float64), bool(label.classes))
        for name, label in schema.items()
        if label.kind != "identity"
    }
    contrasts, not_scored = effects.columns(of_set, schema, groups, options.min_prevalence)
    labels = list(dict.fromkeys(column.contrast.label for column in contrasts))
    asked = None
    if contrasts:
        wanted = [column.contrast for column in contrasts]
        asked = witnesses.called(index, judge, wanted, network, folded or {})
    context = Context(
        index,
        judge,
        options,
        seed,
        labels,
        factors_of(schema, options),
        asked,
        sharing=sharing,
    )

    # space by space; axes come before directions among them
    look = Look(context, names.of(index.content.dataset), not_scored, others or {}, folder)
    found: dict[str, dict[str, Any]] = {}
    absent: dict[str, str] = {}
    pending: list[Pending] = []
    for name in chosen:
        suffix = "" if name == chosen[0] else f"-{name}"
        try:
            if name not in context.made:
                context.made[name] = registry.module(PACKAGE, name).of(model, context)
            found[name] = look.at(name, context.made[name], suffix)
        except Unsuited as error:
            if options.spaces:
                raise
            absent[name] = str(error)
        except Pending as error:
            pending.append(error)
    try:
        counted = shares.of(model, judge, index, options, seed, sharing)
    except Pending as error:
        pending.append(error)
    if pending:
        raise pending[0]
    return {
        "space": chosen[0],
        "spaces": found,
        "absent_spaces": absent,
        "shares": [dataclasses.asdict(one) for one in counted],
        **found[chosen[0]],
    }


def _numbers(column: Array, has_classes: bool) -> Array:
    """Of a table's column; NaN = missing."""
    return np.where(column < 0, np.nan, column) if has_classes else column
