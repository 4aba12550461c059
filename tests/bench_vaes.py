"""What the bench of presets measures of VAEs: nats, reconstructions, samples under each prior, and what codes mean."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pareto
from pareto import Axis, Value

import facefactory
from facefactory import rundir
from facefactory.data.sources import drawn
from facefactory.interpret import Context, Interpret, claims
from facefactory.interpret.spaces import mu
from facefactory.rundir import RunDir
from facefactory.stages._sets import index_of

PRIORS = ("normal", "gaussian_mixture", "second_stage", "own")
# factors that say something of their own: an attribute stands for the number that it was made of
FACTORS = (*drawn.COLORED, *drawn.ATTRIBUTES, *drawn.FREE, "background")
CODES = ("mig", "disentanglement", "tad_nashae", "tad_infodiffusion")
SCORES = ("nats", "psnr", *(f"kd_{name}" for name in PRIORS), *CODES)
AXES = (
    Axis("PSNR of faces never seen [dB]", "higher"),
    Axis("kernel distance of samples, best prior", "lower"),
    Axis("MIG of codes", "higher"),
)
Scores = dict[str, float]


def measure(folder: RunDir) -> Scores:
    """By name, of a run that was evaluated; what a model has not, is left out."""
    evaluated = rundir.read_json(folder.path / "evaluate" / "results.json")
    held_out = evaluated["reconstructions"][-1]
    found = {
        "nats": held_out["nats"]["neg_elbo_nats"],
        "psnr": held_out["scores"]["psnr"],
    }
    for prior in evaluated["priors"]:
        (kd,) = (one["value"] for one in prior["scores"] if one["name"] == "kd_lite0")
        found[f"kd_{prior['prior']}"] = kd
    return {**found, **meaning(folder)}


def meaning(folder: RunDir) -> Scores:
    """The scores of the means of all faces of the set; none of a model without such."""
    model = facefactory.load(folder.path).model
    if not mu.fits(model):
        return {}
    context = Context(
        index=index_of(folder),
        judge=None,
        options=Interpret(),
        seed=0,
        labels=[],
        factors=list(FACTORS),
    )
    scores: Scores = claims.whole(mu.of(model, context), context.factors)["scores"]
    return {name: scores[name] for name in CODES}


def picture(rows: Mapping[str, Sequence[Any]]) -> str:
    """An SVG of reconstruction, samples and meaning; `rows`: preset -> its runs, with their `scores`."""
    points = {}
    for preset, runs in rows.items():
        scores = [run.scores for run in runs]
        points[preset.removesuffix("-drawn64")] = [
            _value(scores, "psnr"),
            _best_prior(scores),
            _value(scores, "mig"),
        ]
    return pareto.picture(points, AXES)


def _value(scores: Sequence[Scores], name: str) -> Value | None:
    values = [one[name] for one in scores if name in one]
    if not values:
        return None
    return Value(statistics.mean(values), statistics.stdev(values))


def _best_prior(scores: Sequence[Scores]) -> Value | None:
    """Of the prior whose samples are best on average."""
    values = [_value(scores, f"kd_{name}") for name in PRIORS]
    there = [value for value in values if value is not None]
    return min(there, key=lambda value: value.mean)
