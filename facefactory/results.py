"""What stages write and reports read, as records: the one place that knows the keys. This file is torch-free."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from facefactory import rundir

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
        return rundir.digest(dataclasses.asdict(self))[:8]

    def reference(self) -> Protocol:
        """What of it concerns the real images alone: whatever is compared with them, their statistics are the same."""
        return dataclasses.replace(self, rounding="", fakes=0, seed=0, average="", truncation=1.0)

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
    kind: str  # the same without the network, e.g. kd
    value: float
    better: Better
    protocol: str  # id
    low: float | None = None  # 95 % interval
    high: float | None = None
    scale: dict[str, float] = field(
        default_factory=dict
    )  # mark (floor, new_people, blur …) -> value
    valid: tuple[str, ...] = ()  # distortions that it sees
    blind: tuple[str, ...] = ()  # those that it does not
    verdicts: tuple[str, ...] = ()  # what else stands beside it, e.g. "too few images"


@dataclass(frozen=True)
class Goal:
    """What a search looks for."""

    metric: str
    better: Better

    def best(self, values: list[float]) -> float:
        """The best of some values."""
        return min(values) if self.better == "lower" else max(values)


@dataclass(frozen=True)
class Selection:
    """Which snapshot of a training scored best, and what it scores on noise that did not choose it."""

    metric: str
    better: Better
    scored: list[tuple[float, float]]  # kimg and score of each snapshot, on the noise that chose
    best_kimg: float
    again: float  # of the best, on fresh noise: the chosen one's own score flatters it
    last_kimg: float
    last: float  # of the last weights, on the same fresh noise

    def words(self) -> str:
        """A sentence that has all numbers."""
        chosen = dict(self.scored)[self.best_kimg]
        last = f"the last, of {self.last_kimg:g} kimg, has {self.last:.3g}"
        if self.best_kimg == self.last_kimg:
            last = "it is the last one"
        return (
            f"Snapshot of {self.best_kimg:g} kimg, the best of {len(self.scored)}, scored again on fresh noise: "
            f"{self.metric} {self.again:.3g} ({chosen:.3g} when it was chosen); {last}."
        )


@dataclass(frozen=True)
class Truncated:
    """What images are worth at one truncation."""

    psi: float
    precision: float  # share of them among the real ones, 0…1
    recall: float  # share of the real ones among them, 0…1

    def words(self) -> str:
        """As a picture has it."""
        return f"psi {self.psi:g}: precision {self.precision:.2f}, recall {self.recall:.2f}"


@dataclass(frozen=True)
class Truncations:
    """The same at several; `protocol`: all of it but the truncation."""

    protocol: dict[str, Any]
    rows: list[Truncated]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


Measure = Literal["auroc", "spearman"]


@dataclass(frozen=True)
class Contrast:
    """A column of the matrix of effects: what of a label the codes are held against."""

    label: str
    against: (
        str  # the class that is held against the rest; "": a label of two classes, or of numbers
    )
    measure: Measure
    prevalence: float  # share of the faces that are of the class; 1 for numbers
    faces: int  # whose label is known

    @property
    def name(self) -> str:
        """`Glasses`, `hair = blond`, `yaw`."""
        return f"{self.label} = {self.against}" if self.against else self.label

    def size(self, value: float) -> float:
        """A value of the measure as a rank correlation, -1…1: 2 AUROC - 1, or Spearman's as it is."""
        return 2 * value - 1 if self.measure == "auroc" else value


@dataclass(frozen=True)
class Effect:
    """How far the codes of a dimension go with a contrast, in the contrast's measure."""

    value: float  # AUROC 0…1, 0.5 = nothing; or Spearman's correlation
    low: float  # 95 % interval, by person
    high: float
    q: float  # Benjamini-Hochberg over all dimensions and contrasts
    nats: float  # mutual information
    given: Estimate | None = None  # the same among faces that are alike in the other labels
    given_q: float | None = None  # of that, Benjamini-Hochberg over the same matrix
    absent: str = ""  # why there is none
    explained_by: str = ""  # the label that takes the effect away, where faces are alike in it

    @property
    def estimate(self) -> Estimate:
        """Among all faces."""
        return Estimate(self.value, self.low, self.high)


@dataclass(frozen=True)
class Control:
    """What walking along a dimension does to the contrast that it goes with."""

    dimension: int
    contrast: str  # its name
    deviations: list[float]  # where on the walk the faces were looked at
    judged: list[float]  # the judge's mean answer there: chance of the class, or the number
    judged_low: list[float]  # 95 % interval over faces
    judged_high: list[float]
    slope: Estimate  # of the judge's answer, a deviation
    embedded: Estimate | None  # the same of an answer fitted to another network's features
    # the four of arXiv 2403.20287, as defined here
    composition: float  # mean difference of pixels, 0…1, of faces that are only coded and drawn
    effectiveness: float  # share of faces whose answer is what the walk went to, mean of its ends
    minimality: float  # largest side effect on another attribute, as a share of the effect on this
    identity: float  # of features at the walk's ends: 1 = as they were, 0 = as another face's
    others: dict[str, Estimate]  # slopes of the judge's answer to the other contrasts
    reliability: Estimate | None  # AUROC or Spearman of the judge on people that it never saw
    holds: bool  # whether that is control: monotone, clear of 0, and minimal
    absent: str = ""  # why it is not, or cannot be told


Verdict = Literal["controls", "goes with", "unnamed", "inactive"]


@dataclass(frozen=True)
class Claim:
    """What is said of a dimension, in fields; `words` makes the sentence of them."""

    space: str
    dimension: int
    verdict: Verdict
    attribute: str = ""  # synonyms have one; "" of a dimension without a name
    low: str = ""  # what small codes show, in a word; "": there is none
    high: str = ""  # what large codes show
    contrast: Contrast | None = None  # that the name rests on
    effect: Effect | None = None
    exclusive: bool = (
        False  # it goes with no other attribute, and no other dimension with this one
    )
    control: Control | None = None  # None: nothing was walked
    seeds: int = 0  # trainings in which a dimension like it has this name, this one among them
    runs: int = 0  # that were looked at; 0: this one alone
    unstable: str = ""  # the attribute that too few of them have

    @property
    def named(self) -> bool:
        """Whether it has a name."""
        return bool(self.attribute)

    def words(self) -> str:
        """By the fixed grammar: `dim 23 = hair colour (dark → blond), AUROC .91 [.90, .92] given the rest, …`."""
        if self.contrast is None or self.effect is None or not self.attribute:
            return f"dim {self.dimension}: {self._without_name()}"
        ends = f" ({self.low} → {self.high})" if self.low and self.high else ""
        parts = [f"dim {self.dimension} = {self.attribute}{ends}"]

        # what speaks for the name
        shown = self.effect.given or self.effect
        condition = " given the rest" if self.effect.given else ""
        measure = {"auroc": "AUROC", "spearman": "Spearman"}[self.contrast.measure]
        interval = f"[{_short(shown.low)}, {_short(shown.high)}]"
        parts.append(f"{measure} {_short(shown.value)} {interval}{condition}")
        q = self.effect.q if self.effect.given_q is None else self.effect.given_q
        parts.append("q < 1e-99" if q < 1e-99 else f"q = {q:.0e}")

        # what a walk does, who else has it, and which other trainings
        controlled = "does not control" if self.control else "control not tested"
        parts.append("controls" if self.verdict == "controls" else f"goes with, {controlled}")
        if self.exclusive:
            parts.append("exclusive")
        if self.runs:
            parts.append(f"in {self.seeds} of {self.runs} seeds")
        return ", ".join(parts)

    def _without_name(self) -> str:
        """What is said of one that has none, and of what it seemed to be."""
        if self.verdict == "inactive":
            return "inactive"
        if self.unstable:
            return f"unnamed, active; {self.unstable} in {self.seeds} of {self.runs} seeds only"
        if self.contrast is None or self.effect is None or not self.effect.explained_by:
            return "unnamed, active"
        explained = f"{self.contrast.name} is explained by {self.effect.explained_by}"
        return f"unnamed, active; {explained}"


def _short(value: float) -> str:
    """Two digits without the zero before the point."""
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.2f}"


@dataclass(frozen=True)
class Dimension:
    """What is known of a latent dimension; no prose: that is made in the report."""

    dimension: int
    kl_nats: float | None  # None: the model has no posterior
    variance: float  # of the codes
    levels: float  # root mean square that pixels move by, a standard deviation, of 255
    effects: dict[str, Effect]  # by their contrasts' names
    verdict: Verdict
    labels: tuple[str, ...]  # names of the contrasts that it goes with
    features: float | None = (
        None  # the same of a network's features, as a share of what two faces differ by
    )


@dataclass(frozen=True)
class Sheet:
    """A picture made of equal tiles: blocks from top to bottom, some lines of tiles a block."""

    file: str  # PNG beside results.json
    title: str  # what it shows, e.g. "walk", "difference", "lowest real faces"
    blocks: list[int | str]  # the dimension of each, or what it shows in words
    lines: int  # of tiles in a block: one a face that walks
    columns: list[str]  # what each tile of a line is, e.g. "-3 deviations"
    walks: bool  # whether a line is one face that changes from tile to tile


@dataclass(frozen=True)
class Share:
    """How many of the faces are of one class, or of one combination of classes; all shares 0…1."""

    classes: dict[str, str]  # label -> class
    drawn: Estimate | None  # of the faces that a model draws, the judge's errors taken out
    judged: float  # of the same, as the judge counts them
    trained: float  # of the training set, by its labels


@dataclass(frozen=True)
class Shares:
    """Who a model draws, by one label or several at once."""

    labels: list[str]
    faces: int  # drawn
    rows: list[Share]
    absent: str = ""  # why the judge's errors are not taken out


@dataclass(frozen=True)
class Sight:
    """What the scores on one network's features see of real faces that are spoilt; the gentlest severity comes first."""

    features: str
    weights: str
    images: int  # spoilt faces
    reference: int  # faces that they were compared with, of the same people
    better: dict[str, Better]  # score -> which way
    floor: dict[str, float]  # score -> the same faces, unspoilt
    marks: dict[str, dict[str, float]]  # score that does not depend on counts -> mark -> value
    curves: dict[str, dict[str, list[float]]]  # score -> distortion -> six values
    chance: dict[str, float] = field(default_factory=dict)  # score -> standard error of its floor
    left_out: dict[str, str] = field(
        default_factory=dict
    )  # score or distortion -> why it is not here

    def sees(self, score: str, distortion: str) -> bool:
        """Whether a score gets worse from the unspoilt faces on with each severity, and by more than chance.

        The rank correlation with the severity, 0 for the unspoilt faces, is 0.9 at least, and the heaviest lies
        beyond the unspoilt by three standard errors of their score.
        """
        sign = 1 if self.better[score] == "lower" else -1
        values = [self.floor[score], *self.curves[score][distortion]]
        worse = sign * (values[-1] - values[0])
        clearly = worse > CLEARLY * self.chance.get(score, 0.0)
        return clearly and rank_correlation([sign * value for value in values]) >= SEEN

    def valid(self, score: str) -> tuple[str, ...]:
        """The distortions that a score sees."""
        return tuple(name for name in self.curves.get(score, {}) if self.sees(score, name))

    def blind(self, score: str) -> tuple[str, ...]:
        """Those that it does not see."""
        return tuple(name for name in self.curves.get(score, {}) if not self.sees(score, name))


@dataclass(frozen=True)
class Reconstruction:
    """What a model with an encoder makes of images that it is given."""

    split: str
    images: int
    scores: dict[str, float]  # e.g. psnr [dB], ssim, of reconstructions from the posteriors' means
    nats: dict[str, float]  # per image: reconstruction_nats, kl_nats, neg_elbo_nats


@dataclass(frozen=True)
class Drawn:
    """Samples under a prior."""

    prior: str
    fitted: str  # in words
    picture: str
    scores: list[dict[str, Any]]  # `Score`s of the goal's kind, on each network


@dataclass(frozen=True)
class OfClass:
    """The scores of one class of a label."""

    label: str
    name: str  # the class
    by: str  # who says what class a generated image has: "asked", or "judge"
    reals: int
    fakes: int
    scores: tuple[Score, ...]
    verdict: str  # why there are none


@dataclass(frozen=True)
class Strip:
    """Generated images above the training images that are nearest to them."""

    features: str  # a network, or "pixels"
    picture: str
    distances: list[float]  # of each to its nearest one
    usual: float | None  # the median of held-out images' distances to theirs


SEEN = 0.9  # rank correlation
CLEARLY = 3.0  # standard errors


def rank_correlation(values: list[float]) -> float:
    """Spearman's correlation of values with their places; 0 where all are equal."""
    ranks = _ranks(values)
    places = _ranks([float(place) for place in range(len(values))])
    mean = (len(values) - 1) / 2
    products = sum((a - mean) * (b - mean) for a, b in zip(ranks, places, strict=True))
    spread = sum((a - mean) ** 2 for a in ranks) * sum((b - mean) ** 2 for b in places)
    return products / spread**0.5 if spread else 0.0


def kendall_tau(first: list[float], second: list[float]) -> float:
    """Kendall's tau of two scorings of the same things: share of pairs in the same order less that in the other.

    Pairs with equal values count for neither; 1 where there are no others.
    """
    signs = []
    for later in range(len(first)):
        for earlier in range(later):
            product = (first[later] - first[earlier]) * (second[later] - second[earlier])
            if product:
                signs.append(1 if product > 0 else -1)
    return sum(signs) / len(signs) if signs else 1.0


def _ranks(values: list[float]) -> list[float]:
    """Ranks from 0 on; equal values share the mean of theirs."""
    return [
        sum(other < value for other in values) + (values.count(value) - 1) / 2 for value in values
    ]
