"""R3GAN's networks (Huang et al., "The GAN is dead; long live the GAN! A modern GAN baseline", NeurIPS 2024): residual, without norms.

Two mirrored trunks of grouped inverted bottlenecks; they take the relativistic critic with r1 and r2 in every iteration.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from facefactory import UserError
from facefactory.conditions import width as columns_of
from facefactory.facts import Facts, Size

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)

SLOPE = 0.2  # of the leaky ReLUs
EXPANSION = 2  # channels inside of a block, for one outside


def weighted(layer: Layer, gain: float = 1.0) -> Layer:
    """The layer with weights N(0, gain² / inputs) and biases of 0."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """x + 1 x 1, grouped 3 x 3 and 1 x 1 convolutions of it, [N, channels, h, w]; nothing is added at first.

    The gain is shared by all blocks of a network, as in Fixup (Zhang, Dauphin & Ma, ICLR 2019) for three convolutions each.
    """

    def __init__(self, channels: int, group: int, blocks: int) -> None:
        super().__init__()
        inside = EXPANSION * channels
        gain = math.sqrt(2 / (1 + SLOPE**2)) * blocks**-0.25
        spread = nn.Conv2d(inside, inside, 3, padding=1, groups=inside // group)
        last = nn.Conv2d(inside, channels, 1, bias=False)
        self.layers = nn.Sequential(
            weighted(nn.Conv2d(channels, inside, 1), gain),
            nn.LeakyReLU(SLOPE),
            weighted(spread, gain),
            nn.LeakyReLU(SLOPE),
            weighted(last, 0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, h, w]."""
        return x + self.layers(x)


def doubled(x: Tensor) -> Tensor:
    """[N, C, h, w] -> [N, C, 2h, 2w]: zeros between the pixels, smoothed by [1, 2, 1] / 2 along both sides."""
    for side in (2, 3):
        after = torch.cat([x.narrow(side, 1, x.shape[side] - 1), x.narrow(side, -1, 1)], side)
        between = (x + after) / 2
        x = torch.stack([x, between], side + 1).flatten(side, side + 1)
    return x


def halved(x: Tensor) -> Tensor:
    """[N, C, 2h, 2w] -> [N, C, h, w]: smoothed by [1, 2, 1] / 4 along both sides, every second pixel."""
    for side in (2, 3):
        even, odd = x.unflatten(side, (-1, 2)).unbind(side + 1)
        before = torch.cat(
            [even.narrow(side, 0, 1), odd.narrow(side, 0, odd.shape[side] - 1)], side
        )
        x = even / 2 + (odd + before) / 4
    return x


class Resample(nn.Module):
    """Another size, and other channels where `into` and `out` differ: they change where the maps are small."""

    def __init__(self, into: int, out: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.mix = nn.Identity() if into == out else weighted(nn.Conv2d(into, out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """[N, into, h, w] -> [N, out, 2h, 2w], or h/2 x w/2."""
        return doubled(self.mix(x)) if self.up else self.mix(halved(x))


@dataclass(frozen=True)
class Plan:
    """What both networks are built from."""

    channels: int  # of the images
    start: Size  # the smallest maps
    widths: Sequence[int]  # channels from the smallest maps to the images' size
    group: int  # channels that a 3 x 3 convolution sees together
    blocks: int  # for each width
    columns: int  # of the condition vector
    labels: int  # that it tells

    def trunk(self, widths: Sequence[int], up: bool) -> nn.Sequential:
        """Blocks from the first width to the last."""
        every = self.blocks * len(widths)
        layers: list[nn.Module] = []
        for number, width in enumerate(widths):
            if number:
                layers.append(Resample(widths[number - 1], width, up))
            layers += [Block(width, self.group, every) for _ in range(self.blocks)]
        return nn.Sequential(*layers)

    def code(self, size: int) -> nn.Linear | None:
        """The condition vector [N, columns] -> a code of it [N, size], of variance 1 at first; None without labels."""
        if not self.columns:
            return None
        layer = nn.Linear(self.columns, size, bias=False)
        nn.init.normal_(layer.weight, std=1 / math.sqrt(self.labels))
        return layer


class Generator(nn.Module):
    """A learned basis of the smallest maps, weighted by z and the labels' code, and a trunk up to the image."""

    def __init__(self, plan: Plan, z_dim: int) -> None:
        super().__init__()
        first = plan.widths[0]
        self.code = plan.code(z_dim)
        into = z_dim if self.code is None else 2 * z_dim
        self.weights = weighted(nn.Linear(into, first, bias=False))
        self.basis = nn.Parameter(torch.empty(first, *plan.start).normal_())
        self.trunk = plan.trunk(plan.widths, up=True)
        self.image = weighted(nn.Conv2d(plan.widths[-1], plan.channels, 1, bias=False))

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim], [N, columns] -> [N, C, H, W]; the discriminator alone holds pixels in -1…1."""
        if self.code is not None:
            z = torch.cat([z, self.code(c)], 1)
        maps = self.weights(z)[:, :, None, None] * self.basis
        images: Tensor = self.image(self.trunk(maps))
        return images


class Discriminator(nn.Module):
    """The generator's mirror: a basis weighs the smallest maps channel by channel, and labels' codes project the result."""

    def __init__(self, plan: Plan, code_dim: int) -> None:
        super().__init__()
        last = plan.widths[0]
        self.image = weighted(nn.Conv2d(plan.channels, plan.widths[-1], 1, bias=False))
        self.trunk = plan.trunk(plan.widths[::-1], up=False)
        size = (plan.start.height, plan.start.width)
        basis = nn.Conv2d(last, last, size, groups=last, bias=False)
        self.basis = weighted(basis)
        self.code = plan.code(code_dim)
        out = 1 if self.code is None else code_dim
        self.head = weighted(nn.Linear(last, out, bias=False))

    def forward(
        self, images: Tensor, c: Tensor, shows: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """[N, C, H, W], [N, columns] -> logits [N]; and, if it shows them, features [N, D]."""
        features = self.basis(self.trunk(self.image(images))).flatten(1)
        seen: Tensor = self.head(features)
        if self.code is None:
            logits = seen.flatten(0)
        else:
            code = self.code(c)
            logits = (seen * code).sum(1) / math.sqrt(code.shape[1])
        return (logits, features) if shows else logits


class Component(nn.Module):
    """Generator (z [N, z_dim], c) -> images [N, C, H, W], discriminator (images, c) -> logits [N].

    Args:
        facts: size and channels of the images, and the set's labels.
        z_dim: length of z, and of the labels' codes.
        widths: channels from the smallest maps to the images' own; each doubles the sides: 32 x 32 is 4 x 4 at the first of four.
        group: channels that a 3 x 3 convolution sees together; a divisor of twice each width.
        blocks: residual blocks for each width.
        conditions: labels that the generator sees beside z, and the discriminator projects on; [] = none.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        z_dim: int = 64,
        widths: list[int] = [128, 128, 96, 48],  # noqa: B006
        group: int = 8,
        blocks: int = 1,
        conditions: list[str] = [],  # noqa: B006
    ) -> None:
        super().__init__()
        if min([z_dim, group, blocks, len(widths), *widths]) < 1:
            raise UserError(
                f"z_dim={z_dim}, widths={widths}, group={group}, blocks={blocks}; "
                "each is at least 1, and there is one width at least."
            )
        if any(EXPANSION * width % group for width in widths):
            raise UserError(
                f"group={group} with widths={widths}; allowed are divisors of twice each width."
            )

        self.z_dim = z_dim
        self.conditions = tuple(conditions)
        plan = Plan(
            channels=facts.channels,
            start=smallest(facts, len(widths)),
            widths=widths,
            group=group,
            blocks=blocks,
            columns=columns_of(conditions, facts.labels),
            labels=len(conditions),
        )
        self.generator = Generator(plan, z_dim)
        self.discriminator = Discriminator(plan, z_dim)
        self.feature_dim = widths[0]

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim], [N, columns] -> images [N, C, H, W] in -1…1."""
        return self.generator(z, c).clamp(-1, 1)


def smallest(facts: Facts, count: int) -> Size:
    """Size of the first maps of so many, each half as high and wide as the next; UserError: the images' are not even enough."""
    times = 2 ** (count - 1)
    if facts.height % times or facts.width % times:
        raise UserError(
            f"{count} widths for images of {facts.height}x{facts.width} pixels (height x width); allowed are "
            f"sides that {times} divides. Give fewer widths, or another pack.resolution."
        )
    return Size(facts.height // times, facts.width // times)
