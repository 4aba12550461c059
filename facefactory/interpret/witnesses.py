"""Who is asked what a face shows: the set's judge, and answers read off the features of another network.

Both answer every contrast, and what an answer is worth is measured on real faces that neither was fitted to: those of held-out people or,
where they are too few to tell, those that folds of the train split leave out, by person. For labels with
classes the judge gives the chance of the class, for those with an order the class that it expects. For labels that are numbers, and for all labels where the other network is
asked, the answer is a linear one of the features ("linear probe": Alain & Bengio 2016): ridge regression on at most 2,000
faces of the train split, of 0 / 1 or of the number.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facefactory.data.sets import pixels
from facefactory.data.sets.index import Index
from facefactory.data.sets.labels import LEAST_PEOPLE, people
from facefactory.data.sets.loader import Shards
from facefactory.evaluation import extractors, features
from facefactory.evaluation import judge as judging
from facefactory.evaluation.extractors import Extractor
from facefactory.facts import Label
from facefactory.metrics import Array, delong, intervals, spearman
from facefactory.results import Contrast, Estimate

FITTED = 2000  # real faces that linear answers are fitted to
TRIED = 1000  # held-out ones that answers are tried on
COMPONENTS = 256  # of the features, that linear answers see
RIDGES = np.logspace(-3, 4, 15)  # times the number of faces
FOLDS = 4  # of them, where too few people are held out
CLEAR = 0.4  # rank correlation (2 AUROC - 1) that a trusted answer has for sure with the truth


@dataclass(frozen=True)
class Witness:
    """Somebody who is asked K contrasts."""

    ask: Callable[[Tensor], Array]  # images [n, H, W, C] uint8 -> answers [n, K]
    trust: list[Estimate | None]  # AUROC or Spearman with the truth; None: too few tell
    middle: Array  # [K] of the answers, from which a face has the class, or more than most
    spread: Array  # [K] standard deviation of the answers among real faces


@dataclass(frozen=True)
class Witnesses:
    """Those who are asked, and what identity is read off."""

    contrasts: list[Contrast]
    judge: Witness
    network: Witness | None  # None: no weights of such a network are here
    features: Callable[[Tensor], Array]  # images [n, H, W, C] uint8 -> [n, D]

    def trusts(self, witness: Witness, number: int) -> bool:
        """Whether a witness's answer to a contrast is good on real faces, for sure."""
        worth = witness.trust[number]
        return worth is not None and self.contrasts[number].size(worth.low) >= CLEAR


def truth(contrast: Contrast, labels: Array, classes: Sequence[str]) -> Array:
    """A label's values as what a contrast asks: 0 / 1 or the number; NaN where it is missing.

    Args:
        contrast: of that label.
        labels: [N] class numbers (below 0 or NaN = missing), or numbers (NaN = missing).
        classes: of the label, none if it is numbers.
    """
    known = np.isfinite(labels) & ((labels >= 0) | (not classes))
    asked = labels
    if contrast.measure == "auroc":
        asked = labels == code_of(contrast, classes)
    return np.where(known, asked, np.nan)


def code_of(contrast: Contrast, classes: Sequence[str]) -> int:
    """The number of the class that a contrast holds against the rest; of two classes the second."""
    return list(classes).index(contrast.against) if contrast.against else len(classes) - 1


def network_here(index: Index, device: torch.device) -> Extractor | None:
    """The network that is asked beside the judge: the first whose weights are here; None: there is none."""
    for name in extractors.present():
        if extractors.file(name).WEIGHTS is not None:
            return extractors.load(name, index.size, device, None)
    return None


def out_of_fold(facts: Mapping[str, Any], schema: Mapping[str, Label]) -> dict[str, Estimate]:
    """AUROC of the judge's likes on people whom they never saw, of labels with two classes; `facts`: the stage judge's, by label."""
    return {
        name: Estimate(fact["auroc"], *fact["auroc_interval"])
        for name, fact in facts.items()
        if fact["scored"] and len(schema[name].classes) == 2
    }


def called(
    index: Index,
    judge: Any,
    contrasts: list[Contrast],
    network: Extractor | None,
    folded: Mapping[str, Estimate],
) -> Witnesses:
    """The judge, and a network whose features are not the judge's, tried on faces of all splits but train.

    `folded`: label -> what the judge is worth where held-out people are too few, as `out_of_fold`.
    """
    held_out = [name for name in index.content.splits if name != "train"]
    fitting = _Sample(Shards(index, "train"), contrasts, FITTED)
    trying = _Sample(Shards(index, held_out), contrasts, TRIED) if held_out else None

    own = Judging(index, judge, contrasts, fitting)
    alone = [folded.get(one.label) if one.measure == "auroc" else None for one in contrasts]
    of_judge = _instead(_tried(own, contrasts, trying), alone)
    if network is None:
        return Witnesses(contrasts, of_judge, None, own.features)

    # the network's answers, by all faces and, where that must do, by parts of them
    look = functools.partial(features.sample, network)
    seen = look(fitting.images)
    answers = fitted(seen, fitting.truths)
    of_network = _tried(lambda images: answers(look(images)), contrasts, trying)
    if None in of_network.trust:
        of_network = _instead(of_network, _crossed(seen, fitting, contrasts))
    return Witnesses(contrasts, of_judge, of_network, look)


def _instead(witness: Witness, others: Sequence[Estimate | None]) -> Witness:
    """With other estimates of what answers are worth, where there is none."""
    trust = [own or other for own, other in zip(witness.trust, others, strict=True)]
    return dataclasses.replace(witness, trust=trust)


class Judging:
    """The judge's answers: chances of classes, and numbers as they are read off its features."""

    def __init__(
        self, index: Index, judge: Any, contrasts: list[Contrast], fitting: "_Sample"
    ) -> None:
        self.judge = judge
        self.labels = index.content.labels
        self.contrasts = contrasts
        self.columns = [
            number
            for number, contrast in enumerate(contrasts)
            if not self.labels[contrast.label].classes
        ]
        self.numbers: Probe | None = None
        if self.columns:
            seen = self.features(fitting.images)
            self.numbers = fitted(seen, fitting.truths[:, self.columns])

    def features(self, images: Tensor) -> Array:
        """Images [n, H, W, C] uint8 -> [n, D]."""
        eye = extractors.file("judge").load(
            images.shape[1:3], pixels.like(self.judge).device, extractors.Judge(self.judge, "")
        )
        return features.sample(eye, images)

    def __call__(self, images: Tensor) -> Array:
        """Images [n, H, W, C] uint8 -> answers [n, K]."""
        logits = features.verdicts(self.judge, images)
        answers = np.zeros((len(images), len(self.contrasts)))
        for number, contrast in enumerate(self.contrasts):
            classes = self.labels[contrast.label].classes
            if not classes:
                continue
            chances = logits[contrast.label].double().softmax(1).numpy()
            if contrast.measure == "auroc":
                answers[:, number] = chances[:, code_of(contrast, classes)]
            else:  # of an order the expected class
                answers[:, number] = chances @ np.arange(len(classes))
        if self.numbers is not None:
            answers[:, self.columns] = self.numbers(self.features(images))
        return answers


class _Sample:
    """Some real faces, and what contrasts are of them."""

    def __init__(self, shards: Shards, contrasts: list[Contrast], most: int) -> None:
        rows = shards.chosen(most)
        content = shards.index.content
        table = shards.table.iloc[rows]
        self.images = shards.images(rows)
        self.people = people(table, content.group)
        columns = [
            truth(
                contrast,
                table[contrast.label].to_numpy(np.float64),
                content.labels[contrast.label].classes,
            )
            for contrast in contrasts
        ]
        self.truths = np.stack([np.empty(len(rows)), *columns], 1)[:, 1:]  # [n, K]


def _crossed(
    seen: Array, fitting: _Sample, contrasts: Sequence[Contrast]
) -> list[Estimate | None]:
    """What linear answers are worth on faces [N, D] of people whom they were not fitted to."""
    fold = judging.folds(fitting.people, min(FOLDS, len(np.unique(fitting.people))))
    answers = np.empty_like(fitting.truths)
    for number in np.unique(fold):
        out = fold == number
        answers[out] = fitted(seen[~out], fitting.truths[~out])(seen[out])
    return [
        trust(answers[:, number], fitting.truths[:, number], fitting.people, contrast.measure)
        for number, contrast in enumerate(contrasts)
    ]


def _tried(
    ask: Callable[[Tensor], Array],
    contrasts: list[Contrast],
    trying: _Sample | None,
) -> Witness:
    """A witness, and what the answers are worth on faces that are held out."""
    count = len(contrasts)
    if trying is None:
        return Witness(ask, [None] * count, np.full(count, 0.5), np.ones(count))
    answers = ask(trying.images)
    worth = [
        trust(answers[:, number], trying.truths[:, number], trying.people, contrast.measure)
        for number, contrast in enumerate(contrasts)
    ]
    by_number = [contrast.measure == "spearman" for contrast in contrasts]
    middle = np.where(by_number, np.median(answers, 0), 0.5)
    return Witness(ask, worth, middle, answers.std(0).clip(1e-9))


def trust(answers: Array, truths: Array, groups: Any, measure: str) -> Estimate | None:
    """AUROC or Spearman's correlation of answers with truths [n], NaN = not known; None: too few people tell.

    The interval is by person.
    """
    kept = np.flatnonzero(np.isfinite(truths))
    whose = np.unique(groups[kept], return_inverse=True)[1]
    seen = answers[kept]
    asked = truths[kept]

    # enough people, on either side of a class
    if measure == "auroc":
        sides = [len(np.unique(whose[asked == side])) for side in (0, 1)]
    else:
        sides = [len(np.unique(whose)) // 2] * 2
    if min(sides) < LEAST_PEOPLE:
        return None

    if measure == "auroc":
        compared = delong.compare(delong.order(seen), asked, whose)
        value = compared.auroc
        variance = compared.variance
    else:
        value, variance = spearman.compare(spearman.ranks(seen), spearman.ranks(asked), whose)
    if not np.isfinite(value):
        return None
    reach = intervals.quantile(min(sides) - 1) * variance**0.5
    least = 0.0 if measure == "auroc" else -1.0
    return Estimate(value, max(least, value - reach), min(1.0, value + reach))


# -- linear answers --------------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    """A linear function of features."""

    middle: Array  # [D]
    weights: Array  # [D, K]
    constant: Array  # [K]

    def __call__(self, seen: Array) -> Array:
        """Features [n, D] -> answers [n, K]."""
        return (seen - self.middle) @ self.weights + self.constant


def fitted(seen: Array, truths: Array) -> Probe:
    """Ridge regression of each column of truths [N, K] on features [N, D], of whose principal components it sees the first.

    Its strength is that with the least generalised cross-validation (Golub, Heath & Wahba, Technometrics 1979). NaN are left
    out; a column that is known of fewer than three faces is answered by a constant.
    """
    middle = seen.mean(0)
    deviation = seen.std(0).clip(1e-6)
    standard = (seen - middle) / deviation
    if len(standard) < standard.shape[1]:
        _, lengths, across = np.linalg.svd(standard, full_matrices=False)
        powers = np.square(lengths[::-1]) / len(standard)
        vectors = across[::-1].T
    else:
        powers, vectors = np.linalg.eigh(standard.T @ standard / len(standard))
    kept = np.flatnonzero(powers > powers[-1] * 1e-6)[::-1][:COMPONENTS]
    components = standard @ vectors[:, kept]

    weights = np.zeros((len(kept), truths.shape[1]))
    constant = np.zeros(truths.shape[1])
    known = np.isfinite(truths)
    patterns, which = np.unique(known, axis=1, return_inverse=True)
    for number, pattern in enumerate(patterns.T):
        columns = np.flatnonzero(which.ravel() == number)
        wanted = truths[pattern][:, columns]
        if len(wanted) < 3:
            continue
        given = components[pattern]
        solved = _ridge(given - given.mean(0), wanted - wanted.mean(0))
        weights[:, columns] = solved
        constant[columns] = wanted.mean(0) - given.mean(0) @ solved
    return Probe(middle, vectors[:, kept] @ weights / deviation[:, None], constant)


def _ridge(x: Array, y: Array) -> Array:
    """Weights [P, K] of centred columns y [n, K] by centred columns x [n, P]."""
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    shares = u.T @ y  # [P, K]
    rest = np.square(y).sum(0) - np.square(shares).sum(0)
    best = np.full(y.shape[1], np.inf)
    weights = np.zeros((x.shape[1], y.shape[1]))
    for ridge in RIDGES * len(x):
        shrunk = s**2 / (s**2 + ridge)
        freedom = len(x) - 1 - shrunk.sum()
        if freedom < 1:
            continue
        left = rest + np.square((1 - shrunk)[:, None] * shares).sum(0)
        score = left / freedom**2
        better = score < best
        best[better] = score[better]
        solved = vt.T @ ((s / (s**2 + ridge))[:, None] * shares)
        weights[:, better] = solved[:, better]
    return weights
