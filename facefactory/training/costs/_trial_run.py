"""A training's networks and optimisers on images that nobody drew, for a few iterations."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from facefactory import checkpoint, registry
from facefactory.data.sets.loader import Batch
from facefactory.facts import Label
from facefactory.ranks import World
from facefactory.training import arithmetic
from facefactory.training.costs import Planned
from facefactory.training.step import Step

SET_SIZE = 1000  # images of a set that does not matter


class Silent:
    """A log that nothing is written to."""

    def add(self, shown: dict[str, Tensor]) -> None:
        """Forget it."""


def step_of(planned: Planned, device: torch.device) -> Step:
    """Freshly built, on a device; UserError: it cannot be."""
    options = planned.options
    torch.set_num_threads(options.threads)
    place: Any = (device, arithmetic.DTYPES[options.precision])
    laid = arithmetic.memory_format(options)
    with torch.random.fork_rng(devices=[]):
        model: Any = checkpoint.build(planned.model, planned.facts)
        model.to(*place, memory_format=laid)
        objective = registry.build("objectives", planned.objective, planned.facts, model)
    objective.to(*place, memory_format=laid)
    world = World(0, 1, device)
    return Step(model.train(), objective, planned.facts, options, planned.data, 0, world, SET_SIZE)


def batch_of(planned: Planned, device: torch.device) -> Batch:
    """Gray noise, and the first class of every label."""
    facts = planned.facts
    count = planned.options.batch_size
    shape = (count, facts.height, facts.width, facts.channels)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator())
    labels = {name: _column(label, count) for name, label in facts.labels.items()}
    labels = {name: column.to(device) for name, column in labels.items()}
    return Batch(images.to(device), labels, labels, torch.arange(count).numpy())


def _column(label: Label, count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.float32 if label.kind == "real" else torch.int64)


@contextlib.contextmanager
def kept_bytes(weights: list[nn.Parameter]) -> Iterator[Callable[[], int]]:
    """Counts what autograd keeps for the way back, each storage once, without these weights."""
    kept: dict[int, Any] = {}
    own = {id(one): one for one in (weight.untyped_storage() for weight in weights)}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in own:
            kept[id(storage)] = storage  # held, so that no other one gets its name
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: sum(storage.nbytes() for storage in kept.values())
