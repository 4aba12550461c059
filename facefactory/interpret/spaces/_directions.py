"""Spaces whose columns are directions of another one: the same faces, seen along other axes."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facefactory import conditions
from facefactory.data.sets import pixels
from facefactory.data.sets.loader import CHUNK, Shards
from facefactory.draws import normal
from facefactory.interpret import Context, Space
from facefactory.interpret.spaces import w, z
from facefactory.metrics import Array

ALIKE = 1e-3  # how far two unit vectors may differ that count as one


def draws_only(model: Any) -> bool:
    """Whether the model draws from a z, and does not encode."""
    discrete = hasattr(model, "code_nats")  # its codes are words
    return hasattr(model, "sample") and not hasattr(model, "encode") and not discrete


def base_of(model: Any, context: Context) -> Space:
    """The space that directions are looked for in: w where the model has one, else z."""
    name, file = ("w", w) if w.fits(model) else ("z", z)
    if name not in context.made:
        context.made[name] = file.of(model, context)
    return context.made[name]


def along(base: Space, rows: Array, method: str) -> Space:
    """The same faces with other coordinates.

    Args:
        base: a space of D dimensions.
        rows: [D, D], invertible; row k times what a code differs from the mean is its coordinate k.
        method: in words, how the directions were found.
    """
    middle = torch.from_numpy(base.codes.mean(0))
    there = torch.from_numpy(rows.T.copy())
    back = torch.from_numpy(np.linalg.inv(rows).T)
    codes = (torch.from_numpy(base.codes) - middle) @ there
    start = (base.start.double() - middle) @ there

    def decode(coordinates: Tensor) -> Tensor:
        return base.decode((middle + coordinates.double().cpu() @ back).to(base.start))

    return dataclasses.replace(
        base,
        codes=codes.numpy(),
        scale=codes.std(0).numpy(),
        start=start.to(base.start),
        method=f"{method} {base.method}",
        decode=decode,
    )


class Drawn(NamedTuple):
    """Codes drawn for one purpose, apart from those that effects are measured on."""

    codes: Tensor  # [n, D] z, or w
    asked: Tensor  # [n, columns] the conditions that they are drawn under
    draw: Callable[[Tensor, Tensor], Tensor]  # both -> images [n, C, H, W] in -1…1

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Codes and conditions, a few hundred rows at a time."""
        return zip(self.codes.split(CHUNK), self.asked.split(CHUNK), strict=True)


def drawn(model: Any, context: Context, purpose: str, count: int) -> Drawn:
    """z of that purpose, or the w that a model makes of it."""
    everyone = Shards(context.index, list(context.index.content.splits))
    like = pixels.like(model)
    asked = conditions.asked(model, everyone, count).to(like)
    codes = normal(context.seed, 0, purpose, count, model.z_dim).to(like)
    found = Drawn(codes, asked, model.sample)
    if not w.fits(model):
        return found
    with torch.inference_mode():
        styles = torch.cat([model.to_w(part, c) for part, c in found.chunks()])
    return Drawn(styles, asked, lambda part, c: model.from_w(part))


# -- what is inside --------------------------------------------------------------------


def has_layers(model: Any) -> bool:
    """Whether it can be seen which layers a code goes through: a traced network shows none."""
    if not isinstance(model, nn.Module):
        return False
    layers = list(model.modules())
    traced = any(isinstance(layer, torch.jit.ScriptModule) for layer in layers)
    return not traced and any(_has_weight(layer) for layer in layers)


@dataclasses.dataclass
class Inside:
    """What happens to codes at the bottom of a generator."""

    projections: list[nn.Module]  # layers that are given the code itself, but for its length
    activations: Tensor | None = None  # [n, …] what the next layer is given, float64


def inside(model: Any, drawing: Drawn) -> Iterator[Inside]:
    """Draw faces, and watch the layers; a few hundred codes at a time."""
    layers = [layer for layer in model.modules() if _has_weight(layer)]
    for codes, asked in drawing.chunks():
        seen = Inside([])

        def watch(
            layer: nn.Module,
            inputs: tuple[Any, ...],
            codes: Tensor = codes,
            asked: Tensor = asked,
            seen: Inside = seen,
        ) -> None:
            given: Tensor = inputs[0].flatten(1) if inputs[0].ndim > 1 else inputs[0][:, None]
            if _begins_with(given, codes):
                seen.projections.append(layer)
            elif seen.projections and seen.activations is None and given.shape != asked.shape:
                seen.activations = given.double().cpu()

        hooks = [layer.register_forward_pre_hook(watch) for layer in layers]
        try:
            with torch.inference_mode():
                drawing.draw(codes, asked)
        finally:
            for hook in hooks:
                hook.remove()
        yield seen


def weights(layer: nn.Module, width: int) -> Array:
    """By which a layer takes the first `width` numbers of its input: [outputs, width]."""
    kernels: Tensor = layer.weight.detach().double().cpu()  # type: ignore[operator]
    if isinstance(layer, nn.ConvTranspose2d):  # there, what goes in comes first
        kernels = kernels.transpose(0, 1)
    rows = kernels.movedim(1, -1).flatten(0, -2)
    return rows[:, :width].numpy()


def _begins_with(given: Tensor, codes: Tensor) -> bool:
    """Whether rows are codes, normalised or with something behind them."""
    if given.shape[0] != codes.shape[0] or given.shape[1] < codes.shape[1]:
        return False
    begin = F.normalize(given[:, : codes.shape[1]])
    return torch.allclose(begin, F.normalize(codes), atol=ALIKE)


def _has_weight(layer: nn.Module) -> bool:
    """Whether it is a linear layer or a convolution."""
    weight = getattr(layer, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim >= 2
