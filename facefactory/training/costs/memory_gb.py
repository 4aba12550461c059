"""Gigabytes (10^9 bytes) of one rank: weights, their gradients and averages, the optimisers' state, and what layers keep
for the way back, in the phase that keeps most. What libraries need beside is not in it.
"""

import dataclasses
import itertools
from typing import Any

import torch

from facefactory.training.costs import Planned
from facefactory.training.costs._trial_run import batch_of, kept_bytes, step_of
from facefactory.training.step import Step

QUICK = True
FEW = (4, 8)  # images, from which follows what more of them would keep
MOMENTS = {"adam": 2, "adamw": 2, "rmsprop": 1, "sgd": 0}  # numbers an optimiser keeps a weight


def estimate(planned: Planned) -> float:
    """From the first iteration, in which every regulariser takes part, on 4 and on 8 images: what is kept is linear in them."""
    images = planned.options.batch_per_rank() // planned.options.accumulate
    (few, state), (more, _) = (_kept(planned, count) for count in FEW)
    an_image = (more - few) / (FEW[1] - FEW[0])
    return (state + few + an_image * (images - FEW[0])) / 1e9


def _kept(planned: Planned, images: int) -> tuple[int, int]:
    """Bytes that layers keep for so many images at most, and of what lives through a whole training."""
    options = dataclasses.replace(planned.options, batch_size=images, ranks=1, accumulate=1)
    small = dataclasses.replace(planned, options=options)
    processor = torch.device("cpu")
    step = step_of(small, processor)
    parts = step.parts(batch_of(small, processor), 0)
    weights = [*step.model.parameters(), *step.objective.parameters()]
    most = 0
    for name in step.players:
        with kept_bytes(weights) as kept:
            step.backward(name, parts)
            most = max(most, kept())
    return most, _state(step)


def _state(step: Step) -> int:
    models: list[Any] = [step.model, step.objective, *(one.model for one in step.averages)]
    tensors = [itertools.chain(one.parameters(), one.buffers()) for one in models]
    total = sum(tensor.nbytes for tensor in itertools.chain(*tensors))
    for path, wanted in step.wanted.items():
        weights = sum(tensor.nbytes for tensor in step.network(path).parameters())
        total += weights * (1 + MOMENTS[wanted.kind])  # a gradient too
    return total
