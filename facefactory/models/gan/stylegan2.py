"""StyleGAN2 (Karras et al., "Analyzing and improving the image quality of StyleGAN", CVPR 2020), in plain PyTorch.

z becomes w, w the styles of all layers; with labels as in "Training generative adversarial networks with limited
data" (Karras et al., NeurIPS 2020). From the papers; no layer is a kernel of its own. Modulation scales what goes
into a convolution and what comes out (see `Modulated`), and not its kernels, image by image. Measured on one core,
16 images, forward and backward, in shares of a grouped convolution's time: 0.2 for 64 channels at 4 x 4, 0.4 at 8 x 8,
0.9 for 32 channels at 16 x 16; larger maps cost more this way, 1.2 times at 32 x 32, 1.1 (32 channels) and 1.7 (16) at
64 x 64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from facefactory import UserError
from facefactory.conditions import width as columns_of
from facefactory.draws import Draws
from facefactory.facts import Facts, Size
from facefactory.models import Rule
from facefactory.models._equalised import MinibatchDeviation, PixelNorm
from facefactory.models._layers import smallest
from facefactory.models._style import (
    Convolution,
    Linear,
    Modulated,
    Shrink,
    Smooth,
    Styled,
    activated,
)

Output = Literal["skip", "residual"]
MEAN_DECAY = 0.998  # of the mean of w, an iteration


@dataclass(frozen=True)
class Plan:
    """What both networks are built from."""

    facts: Facts
    depth: int  # doublings of the side
    width: int  # channels of the largest maps, doubled with each halving
    widest: int  # and at most so many
    z_dim: int
    w_dim: int
    columns: int  # of the condition vector

    @property
    def start(self) -> Size:
        """Of the smallest maps."""
        return Size(self.facts.height >> self.depth, self.facts.width >> self.depth)

    @property
    def widths(self) -> list[int]:
        """Channels from the smallest maps to the images' size."""
        levels = reversed(range(self.depth + 1))
        return [min(self.width << level, self.widest) for level in levels]


class Mapping(nn.Module):
    """z [N, z_dim], c [N, columns] -> w [N, w_dim]: fully connected layers that learn at a share of the others' rate."""

    def __init__(self, plan: Plan, layers: int, speed: float) -> None:
        super().__init__()
        self.norm = PixelNorm()
        self.labels = Linear(plan.columns, plan.z_dim) if plan.columns else None
        into = plan.z_dim * (2 if plan.columns else 1)
        sizes = [into] + [plan.w_dim] * layers
        self.layers = nn.ModuleList(
            Linear(sizes[number], sizes[number + 1], speed=speed) for number in range(layers)
        )

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, w_dim]."""
        x: Tensor = self.norm(z)
        if self.labels is not None:
            x = torch.cat([x, self.norm(self.labels(c))], 1)
        for layer in self.layers:
            x = activated(layer(x))
        return x


class Level(nn.Module):
    """The layers of one size of maps: one at the start, then two, the first of which doubles the sides."""

    def __init__(self, plan: Plan, into: int, out: int, up: bool, output: Output) -> None:
        super().__init__()
        layers = [Styled(into, out, plan.w_dim, up)]
        if up:
            layers.append(Styled(out, out, plan.w_dim, up=False))
        self.layers = nn.ModuleList(layers)
        past = up and output == "residual"
        self.past = Convolution(into, out, 1, bias=False) if past else None
        self.smooth = Smooth()

    def forward(self, x: Tensor, w: Sequence[Tensor], noise: Sequence[Tensor]) -> Tensor:
        """[N, into, h, w] -> [N, out, …]; a w [N, w_dim] and noise [N or 1, 1, …] for each layer."""
        inner = x
        for layer, style, own in zip(self.layers, w, noise, strict=True):
            inner = layer(inner, style, own)
        if self.past is None:
            return inner
        return (inner + self.smooth.doubled(self.past(x))) * 0.5**0.5


class Generator(nn.Module):
    """z [N, z_dim], c [N, columns] -> [N, C, H, W]; the discriminator alone holds pixels in -1…1.

    With draws, as in training, each image has noise of its own, and some mix the styles of two z; without, noise is
    the one that was drawn when the network was built.
    """

    w_mean: Tensor  # [w_dim] of the w of training
    w_seen: Tensor  # [w_dim + 1] their sum in this iteration, and how many
    fixed_noise: Tensor  # [1, pixels of all layers]

    def __init__(
        self, plan: Plan, layers: int, speed: float, output: Output, mixing: float
    ) -> None:
        super().__init__()
        self.z_dim = plan.z_dim
        self.mixing = mixing
        self.mapping = Mapping(plan, layers, speed)
        widths = plan.widths
        self.start = nn.Parameter(torch.empty(1, widths[0], *plan.start).normal_())

        # one level a size, and what turns maps into images: at each, or at the last
        self.levels = nn.ModuleList()
        self.images = nn.ModuleList()
        self.counts: list[int] = []  # layers of a level
        self.sizes: list[Size] = []  # of each layer
        for number, width in enumerate(widths):
            level = Level(plan, widths[max(0, number - 1)], width, number > 0, output)
            self.levels.append(level)
            self.counts.append(len(level.layers))
            size = Size(plan.start.height << number, plan.start.width << number)
            self.sizes += [size] * self.counts[-1]
            if output == "skip" or number == plan.depth:
                seen = Modulated(width, plan.facts.channels, 1, plan.w_dim, demodulate=False)
                self.images.append(seen)
        self.bias = nn.Parameter(torch.zeros(plan.facts.channels, 1, 1))
        self.smooth = Smooth()

        # what is no weight
        pixels = sum(size.height * size.width for size in self.sizes)
        self.register_buffer("w_mean", torch.zeros(plan.w_dim))
        self.register_buffer("w_seen", torch.zeros(plan.w_dim + 1), persistent=False)
        self.register_buffer("fixed_noise", torch.empty(1, pixels).normal_())

    def forward(
        self, z: Tensor, c: Tensor, draws: Draws | None = None, purpose: str = ""
    ) -> Tensor:
        """[N, C, H, W]."""
        w = self.mapping(z, c)
        if draws is None:
            return self.synthesis(w)
        count = torch.ones_like(w[:, :1])
        self.w_seen += torch.cat([w, count], 1).detach().sum(0)
        styles = self._mixed(w, c, draws, purpose) if self.mixing else w
        return self.synthesis(styles, draws, purpose)

    def synthesis(self, w: Tensor, draws: Draws | None = None, purpose: str = "") -> Tensor:
        """[N, w_dim], or [N, layers + 1, w_dim] with a w for each, -> [N, C, H, W]."""
        noise = self._noise(draws, purpose)
        each = w if w.ndim == 3 else w[:, None].expand(-1, len(self.sizes) + 1, -1)
        styles = each.unbind(1)
        x = self.start.expand(w.shape[0], -1, -1, -1)
        image: Tensor | None = None
        place = 0
        for number, level in enumerate(self.levels):
            end = place + self.counts[number]
            x = level(x, styles[place:end], noise[place:end])
            place = end
            last = number - len(self.levels) + len(self.images)
            if last >= 0:  # it is seen by the style of the layer that follows
                seen = self.images[last](x, styles[place])
                image = seen if image is None else self.smooth.doubled(image) + seen
        assert image is not None
        return image + self.bias

    def after(self, total: Callable[[Tensor], Tensor]) -> None:
        """Move the mean of w by those of all ranks; `total` sums over ranks."""
        seen = total(self.w_seen)
        count = seen[-1]
        step = (1 - MEAN_DECAY) * (count > 0)
        self.w_mean.lerp_(seen[:-1] / count.clamp(min=1), step)
        self.w_seen.zero_()

    def _mixed(self, w: Tensor, c: Tensor, draws: Draws, purpose: str) -> Tensor:
        """[N, layers + 1, w_dim]: in a share of the images another w from a layer on, which is drawn."""
        other = self.mapping(draws.normal(f"z_mixing_{purpose}", self.z_dim), c)
        u = draws.uniform(f"mixing_{purpose}", 2)
        count = len(self.sizes) + 1
        layer = torch.arange(count, device=w.device)
        crossover = 1 + (u[:, 1:] * (count - 1)).floor()
        mixed = (u[:, :1] < self.mixing) & (layer >= crossover)
        return torch.where(mixed[:, :, None], other[:, None], w[:, None])

    def _noise(self, draws: Draws | None, purpose: str) -> list[Tensor]:
        """[N or 1, 1, h, w] for each layer."""
        lengths = [size.height * size.width for size in self.sizes]
        noise = self.fixed_noise
        if draws is not None:
            noise = draws.normal(f"noise_{purpose}", sum(lengths))
        parts = noise.split(lengths, 1)
        return [
            part.unflatten(1, (1, *size)) for part, size in zip(parts, self.sizes, strict=True)
        ]


class Discriminator(nn.Module):
    """Residual: images [N, C, H, W], c [N, columns] -> logits [N]; labels are projected on (Miyato & Koyama, ICLR 2018)."""

    def __init__(self, plan: Plan, deviation_group: int) -> None:
        super().__init__()
        widths = plan.widths[::-1]
        self.image = Convolution(plan.facts.channels, widths[0], 1)
        self.down = nn.Sequential(
            *(Shrink(widths[number], widths[number + 1]) for number in range(plan.depth))
        )
        top = widths[-1]
        self.deviation = MinibatchDeviation(deviation_group)
        self.last = Convolution(top + 1, top, 3)
        self.features = Linear(top * plan.start.height * plan.start.width, top)
        self.head = Linear(top, 1)
        self.labels = Linear(plan.columns, top) if plan.columns else None

    def forward(
        self, images: Tensor, c: Tensor, shows: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [N]; and, if it shows them, features [N, D]."""
        x = self.deviation(self.down(activated(self.image(images))))
        x = activated(self.last(x)).flatten(1)
        x = activated(self.features(x))
        logits: Tensor = self.head(x).flatten(0)
        if self.labels is not None:
            logits = logits + (x * self.labels(c)).sum(1) * x.shape[1] ** -0.5
        return (logits, x) if shows else logits


class Component(nn.Module):
    """StyleGAN2: generator (z [N, z_dim], c) -> images [N, C, H, W], discriminator (images, c) -> logits [N].

    Args:
        facts: size and channels of the images, and the set's labels.
        z_dim: length of z.
        w_dim: length of w.
        width: channels of the largest maps of both networks; doubled at each halving of the side.
        widest: the most channels of any map.
        depth: how many times the side is doubled (generator) and halved (discriminator); both sides must be multiples of 2^depth.
        mapping_layers: from z to w.
        mapping_speed: learning rate of these, as a share of the others'.
        output: skip = each size adds to the image; residual = maps are added, and the last ones are shown.
        mixing: share of the generated images, in training, that have the styles of two z.
        deviation_group: images whose differences the discriminator is told, deviation_group in the batch; 1 = none.
        conditions: labels that both networks are told; [] = none.
    """

    stochastic = True  # its generator takes draws

    @staticmethod
    def rules(facts: Facts, batch_size: int) -> list[Rule]:
        """R1's γ, where the loss is the paper's."""
        gamma = 0.0002 * facts.height * facts.width / batch_size
        words = f"0.0002 · {facts.height} · {facts.width} pixels / batch {batch_size} (Karras et al. 2020, ADA)"
        critic = {"objective.critic": "non_saturating"}
        return [Rule("objective.terms.r1.gamma", gamma, words, critic)]

    def __init__(
        self,
        facts: Facts,
        *,
        z_dim: int = 64,
        w_dim: int = 64,
        width: int = 16,
        widest: int = 512,
        depth: int = 3,
        mapping_layers: int = 2,
        mapping_speed: float = 0.01,
        output: Output = "skip",
        mixing: float = 0.0,
        deviation_group: int = 4,
        conditions: list[str] = [],  # noqa: B006
    ) -> None:
        super().__init__()
        smallest(facts, depth, z_dim=z_dim, width=width)
        counts = [w_dim, widest, mapping_layers, deviation_group]
        if min(counts) < 1 or not 0 <= mixing <= 1 or mapping_speed <= 0:
            raise UserError(
                f"w_dim={w_dim}, widest={widest}, mapping_layers={mapping_layers}, deviation_group={deviation_group}, "
                f"mapping_speed={mapping_speed}, mixing={mixing}; the counts are at least 1, "
                "the speed is above 0, mixing is 0 to 1."
            )
        times = 2**depth
        if facts.height % times or facts.width % times:
            raise UserError(
                f"depth={depth} for images of {facts.height}x{facts.width} pixels (height x width); allowed are "
                f"sides that are multiples of {times}. Give another depth, or pack.resolution."
            )

        # two networks of one plan
        self.z_dim = z_dim
        self.w_dim = w_dim
        self.conditions = tuple(conditions)
        plan = Plan(
            facts=facts,
            depth=depth,
            width=width,
            widest=widest,
            z_dim=z_dim,
            w_dim=w_dim,
            columns=columns_of(conditions, facts.labels),
        )
        self.generator = Generator(plan, mapping_layers, mapping_speed, output, mixing)
        self.discriminator = Discriminator(plan, deviation_group)
        self.feature_dim = plan.widths[0]

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim], [N, columns] -> images [N, C, H, W] in -1…1, with the noise that is the same for all."""
        return self.from_w(self.to_w(z, c))

    def to_w(self, z: Tensor, c: Tensor, psi: float = 1.0) -> Tensor:
        """[N, z_dim], [N, columns] -> w [N, w_dim], nearer to the mean of w for psi < 1."""
        w: Tensor = self.generator.mapping(z, c)
        return self.generator.w_mean.lerp(w, psi)  # 1 changes no bit

    def from_w(self, w: Tensor) -> Tensor:
        """[N, w_dim], or [N, layers + 1, w_dim], -> images [N, C, H, W] in -1…1."""
        return self.generator.synthesis(w).clamp(-1, 1)

    def after(self, kimg: float, total: Callable[[Tensor], Tensor]) -> None:
        """Once an iteration, on all ranks: the mean of w moves."""
        self.generator.after(total)
