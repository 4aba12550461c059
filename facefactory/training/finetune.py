"""Weights of another training as the start of this one, as far as they fit; and layers that stay as they are.

Another size, other channels or another label set change some layers: what is the same is copied,
what can be carried over is reshaped, the rest begins fresh.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from facefactory import UserError, checkpoint
from facefactory.facts import Facts, Label

COLORS = {1, 3}  # channels that images can have


@dataclass
class Fitted:
    """What became of the weights of one network, by names below it."""

    network: str
    copied: list[str] = field(default_factory=list)
    reshaped: dict[str, str] = field(default_factory=dict)  # name -> how
    fresh: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Columns:
    """What the columns of the condition vector said, and say: (label, class), or (label, "") of a binary one."""

    before: list[tuple[str, str]]
    now: list[tuple[str, str]]

    def carry(self, old: Tensor, new: Tensor, axis: int) -> str | None:
        """Fill a weight whose last inputs along an axis are these columns; how, or None: its other inputs differ."""
        source = old.movedim(axis, -1)
        target = new.movedim(axis, -1)
        plain = source.shape[-1] - len(self.before)
        if plain < 0 or plain != target.shape[-1] - len(self.now):
            return None
        if source.shape[:-1] != target.shape[:-1]:
            return None
        target[..., :plain] = source[..., :plain]
        kept = [column for column in self.now if column in self.before]
        for column in kept:
            here = plain + self.now.index(column)
            target[..., here] = source[..., plain + self.before.index(column)]
        return f"label columns {len(self.before)} -> {len(self.now)}, {len(kept)} of them kept"


def table(fitted: Sequence[Fitted]) -> str:
    """The same for the person who watches: counts, then the names of what is not a copy."""
    lines = [f"{'network':<16}{'copied':>8}{'reshaped':>10}{'fresh':>8}"]
    for one in fitted:
        counts = f"{len(one.copied):>8}{len(one.reshaped):>10}{len(one.fresh):>8}"
        lines.append(f"{one.network:<16}{counts}")
    for one in fitted:
        lines += [f"  reshaped: {one.network}.{name}: {how}" for name, how in one.reshaped.items()]
        lines += [f"  fresh: {one.network}.{name}" for name in one.fresh]
    return "\n".join(lines)


def start(
    model: nn.Module, spec: dict[str, Any], facts: Facts, found: checkpoint.Checkpoint
) -> list[Fitted]:
    """Fill a model, made of `spec`, with the weights of a checkpoint.

    UserError: for a network of the model, no matrix or kernel fits.
    """
    old_facts = checkpoint.facts_of(found)
    labels = Columns(
        _columns(found.model.get("conditions", ()), old_facts.labels),
        _columns(getattr(model, "conditions", ()), facts.labels),
    )
    told: set[str] = set()
    if labels.before != labels.now:
        told = _told(spec, facts, model) | _told(found.model, old_facts)
    channels = (old_facts.channels, facts.channels)

    fitted = []
    for name, network in model.named_children():
        new = network.state_dict()
        if not new:
            continue
        inside = f"{name}."
        old = {
            key.removeprefix(inside): value
            for key, value in found.networks.items()
            if key.startswith(inside)
        }
        asked = {key.removeprefix(inside) for key in told}
        one = _fill(name, old, new, _inputs(network), channels, labels, asked)
        fitted.append(one)
        if all(new[key].ndim < 2 for key in (*one.copied, *one.reshaped)):
            raise UserError(
                f"init_from: nothing of its {found.model['name']} fits {name} of this model; "
                "give a run with a similar model, e.g. the same name and widths."
            )
    return fitted


def _fill(
    name: str,
    old: dict[str, Tensor],
    new: dict[str, Tensor],
    inputs: dict[str, int],
    channels: tuple[int, int],
    labels: Columns,
    told: set[str],
) -> Fitted:
    """Fill the tensors of one network; `inputs`: axis of inputs of weights, `told`: those that take label columns."""
    one = Fitted(name)
    twins = dict(_twins(old, new))
    for key, tensor in new.items():
        how = None
        if key in told and key in old and key in inputs:
            how = labels.carry(old[key], tensor, inputs[key])
        elif key in twins:
            tensor.copy_(old[twins[key]])
            one.copied.append(key)
            continue
        elif key in old:
            how = _recolour(old[key], tensor, inputs.get(key), channels)
        if how is None:
            one.fresh.append(key)
        else:
            one.reshaped[key] = how
    return one


def _told(spec: dict[str, Any], facts: Facts, model: nn.Module | None = None) -> set[str]:
    """Names of the tensors of a model that have another shape, or are not there, where it is told no labels."""
    if not spec.get("conditions"):
        return set()
    with_labels = model if model is not None else checkpoint.build(spec, facts)
    bare = checkpoint.build({**spec, "conditions": []}, facts).state_dict()
    return {
        key
        for key, tensor in with_labels.state_dict().items()
        if key not in bare or bare[key].shape != tensor.shape
    }


def _twins(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """(new name, old name) of tensors of one shape in the same order.

    Networks that differ in depth share a beginning or an end, under other numbers.
    """

    def signs(state: Mapping[str, Tensor]) -> list[tuple[str, tuple[int, ...]]]:
        return [(key.rpartition(".")[2], tuple(value.shape)) for key, value in state.items()]

    names = (list(old), list(new))
    matcher = difflib.SequenceMatcher(None, signs(old), signs(new), autojunk=False)
    for block in matcher.get_matching_blocks():
        for offset in range(block.size):
            yield names[1][block.b + offset], names[0][block.a + offset]


def _columns(names: Sequence[str], labels: Mapping[str, Label]) -> list[tuple[str, str]]:
    """What each column of the condition vector says: (label, class), or (label, "") of a binary one."""
    columns = []
    for name in names:
        label = labels[name]
        words = ("",) if label.columns == 1 else label.classes
        columns += [(name, word) for word in words]
    return columns


def _inputs(network: nn.Module) -> dict[str, int]:
    """Name of a weight -> its axis of inputs."""
    axes = {}
    for name, layer in network.named_modules():
        transposed = isinstance(layer, nn.ConvTranspose2d)
        if transposed or isinstance(layer, nn.Linear | nn.Conv2d):
            axes[f"{name}.weight".removeprefix(".")] = 0 if transposed else 1
    return axes


def _recolour(
    old: Tensor, new: Tensor, inputs: int | None, channels: tuple[int, int]
) -> str | None:
    """Fill a tensor from one of another number of colours; how, or None: it differs otherwise.

    Gray answers as the mean of three colours did, and three share what gray had.
    """
    pairs = zip(old.shape, new.shape, strict=False)
    differing = [axis for axis, sides in enumerate(pairs) if sides[0] != sides[1]]
    if old.ndim != new.ndim or len(differing) != 1 or set(channels) != COLORS:
        return None
    axis = differing[0]
    if (old.shape[axis], new.shape[axis]) != channels:
        return None
    share = channels[0] / channels[1] if inputs == axis else 1.0  # inputs are summed
    new.copy_(old.mean(axis, keepdim=True) * share)
    return f"channels {channels[0]} -> {channels[1]}"


def layers(network: nn.Module) -> list[nn.Module]:
    """Its layers with a matrix or kernel of weights, in their order."""
    return [
        layer
        for layer in network.modules()
        if any(weights.ndim > 1 for weights in layer.parameters(recurse=False))
    ]


def freeze(network: nn.Module, count: int) -> set[nn.Parameter]:
    """The weights of the first layers, which are not to be trained (FreezeD: Mo, Cho & Shin, 2020).

    UserError: there are not so many, with one left to be trained.
    """
    all_layers = layers(network)
    if count >= len(all_layers):
        raise UserError(
            f"training.freeze_d={count}, but the discriminator has {len(all_layers)} layers with weights; "
            f"give at most {len(all_layers) - 1}."
        )
    frozen: set[nn.Parameter] = set()
    for layer in network.modules():
        if layer in all_layers[count:]:
            break
        frozen.update(layer.parameters(recurse=False))
    return frozen
