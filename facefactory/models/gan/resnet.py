"""Residual generator with conditional norms against a spectrally normalised residual discriminator with projection.

Networks as in SNGAN (Miyato et al., ICLR 2018, appendix B), conditions as in Miyato & Koyama, "cGANs with projection
discriminator", ICLR 2018; the hinge critic belongs to them.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from facefactory.conditions import width as columns_of
from facefactory.facts import Facts, Size
from facefactory.models import _spectral
from facefactory.models._layers import Norm, halves, norm2d, smallest

WIDEST = 4  # times the width of the largest maps
KERNEL = 3  # pixels; sides are halved rounded up


def glorot(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """The layer with weights of Glorot & Bengio (2010)."""
    nn.init.xavier_uniform_(layer.weight)
    return layer


class ConditionalNorm(nn.Module):
    """A norm whose scale and shift depend on the condition vector, where there is one."""

    def __init__(self, norm: Norm, channels: int, columns: int) -> None:
        super().__init__()
        self.norm = norm2d(norm, channels)
        self.told: nn.Linear | None = None
        if columns:
            self.told = nn.Linear(columns, 2 * channels, bias=False)
            nn.init.normal_(self.told.weight, std=0.02)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """[N, channels, h, w], [N, columns] -> [N, channels, h, w]."""
        x = self.norm(x)
        if self.told is None:
            return x
        scale, shift = self.told(c)[:, :, None, None].chunk(2, 1)
        return x * (1 + scale) + shift


class Up(nn.Module):
    """A residual block to the next larger size: [N, into, h, w] -> [N, out, *size]."""

    def __init__(self, into: int, out: int, size: Size, norm: Norm, columns: int) -> None:
        super().__init__()
        self.size = size
        self.first_norm = ConditionalNorm(norm, into, columns)
        self.first = glorot(nn.Conv2d(into, out, KERNEL, padding=1))
        self.second_norm = ConditionalNorm(norm, out, columns)
        self.second = glorot(nn.Conv2d(out, out, KERNEL, padding=1))
        self.short = glorot(nn.Conv2d(into, out, 1))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """[N, out, *size]."""
        grown = F.interpolate(F.relu(self.first_norm(x, c)), self.size, mode="nearest")
        inside = self.second(F.relu(self.second_norm(self.first(grown), c)))
        short = F.interpolate(self.short(x), self.size, mode="nearest")  # 1 x 1 may come first
        return inside + short


class Generator(nn.Module):
    """A linear layer to the smallest maps and a block for each doubling: (z [N, z_dim], c) -> [N, C, H, W] in -1…1."""

    def __init__(
        self,
        sizes: Sequence[Size],
        widths: Sequence[int],
        channels: int,
        z_dim: int,
        norm: Norm,
        columns: int,
    ) -> None:
        super().__init__()
        self.maps = (widths[-1], *sizes[-1])
        self.project = glorot(nn.Linear(z_dim, widths[-1] * sizes[-1].height * sizes[-1].width))
        self.blocks = nn.ModuleList()
        for level in reversed(range(len(widths) - 1)):
            block = Up(widths[level + 1], widths[level], sizes[level], norm, columns)
            self.blocks.append(block)
        self.norm = norm2d(norm, widths[0])
        self.image = glorot(nn.Conv2d(widths[0], channels, KERNEL, padding=1))

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim], [N, columns] -> [N, C, H, W] in -1…1."""
        x = self.project(z).view(-1, *self.maps)
        for block in self.blocks:
            x = block(x, c)
        images: Tensor = self.image(F.relu(self.norm(x)))
        return images.tanh()


class Down(nn.Module):
    """A residual block: [N, into, h, w] -> [N, out, h/2, w/2] rounded up, or of the same size."""

    def __init__(self, into: int, out: int, halve: bool, first: bool = False) -> None:
        super().__init__()
        self.halve = halve
        self.first = first  # images are not rectified
        self.inside = nn.Sequential(
            _spectral.Conv2d(into, out, KERNEL), nn.ReLU(), _spectral.Conv2d(out, out, KERNEL)
        )
        self.short = _spectral.Conv2d(into, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, out, …]."""
        inside = self.inside(x if self.first else F.relu(x))
        if not self.halve:
            return inside + self.short(x)
        return smaller(inside) + self.short(smaller(x))  # means first: less to compute


def smaller(x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels, of what there is at an odd edge."""
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


class Discriminator(nn.Module):
    """A block for each halving and one more, sums over what is left, and a projection: ([N, C, H, W], c) -> logits [N]."""

    def __init__(self, widths: Sequence[int], channels: int, columns: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [Down(channels, widths[0], halve=False, first=True)]
        for level in range(len(widths) - 1):
            blocks.append(Down(widths[level], widths[level + 1], halve=True))
        self.blocks = nn.Sequential(*blocks)
        self.head = _spectral.Linear(widths[-1], 1)
        self.told = _spectral.Linear(columns, widths[-1], bias=False) if columns else None

    def forward(
        self, images: Tensor, c: Tensor, shows: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [N]; and, if it shows them, features [N, D]."""
        features = F.relu(self.blocks(images)).sum((2, 3))
        logits: Tensor = self.head(features).flatten(0)
        if self.told is not None:
            logits = logits + (self.told(c) * features).sum(1)
        return (logits, features) if shows else logits


class Component(nn.Module):
    """Generator (z [N, z_dim], c) -> images [N, C, H, W] in -1…1, discriminator (images, c) -> logits [N].

    Args:
        facts: size and channels of the images, and the set's labels.
        z_dim: length of z.
        width: channels of the largest maps of the generator; doubled at each halving of the side, to four times it.
        d_width: the same for the discriminator; 0 = width.
        depth: how many times the side is doubled (generator) and halved (discriminator).
        conditions: labels that the generator's norms see, and that the discriminator projects on; [] = none.
        g_norm: normalisation of the generator; batch norm mixes the images of a batch.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        z_dim: int = 64,
        width: int = 32,
        d_width: int = 0,
        depth: int = 3,
        conditions: list[str] = [],  # noqa: B006
        g_norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.conditions = tuple(conditions)
        columns = columns_of(conditions, facts.labels)

        # maps and channels, from the images to the smallest
        d_width = d_width or width
        smallest(facts, depth, KERNEL, z_dim=z_dim, width=width, d_width=d_width)
        sizes = halves(facts, depth, KERNEL)
        widths = [width * min(2**level, WIDEST) for level in range(depth + 1)]
        d_widths = [d_width * min(2**level, WIDEST) for level in range(depth + 1)]

        self.generator = Generator(sizes, widths, facts.channels, z_dim, g_norm, columns)
        self.discriminator = Discriminator(d_widths, facts.channels, columns)
        self.feature_dim = d_widths[-1]

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim], [N, columns] -> images [N, C, H, W] in -1…1."""
        return self.generator(z, c)
