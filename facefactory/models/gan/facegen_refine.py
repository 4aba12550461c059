"""The small attribute DCGAN of `facegen`, with an encoder through which a given image can be refined towards attributes."""

from collections import OrderedDict

from torch import Tensor, nn

from facefactory.facts import Facts
from facefactory.models._layers import Norm, Unconditional, halving, smallest
from facefactory.models.gan.facegen import Component as Plain
from facefactory.models.gan.facegen import Place


class Component(Plain):
    """As gan/facegen, and encoder: images [N, C, H, W] -> z [N, z_dim].

    Args:
        facts: size and channels of the images, and the set's labels.
        z_dim: length of z.
        width: channels of the largest maps of all three; doubled at each halving of the side.
        depth: how many times the side is doubled (generator) and halved (the others).
        conditions: labels that the generator sees beside z, and the discriminator at its `attributes`; [] = none.
        attributes: where the discriminator sees them: head, input (as channels), both.
        g_norm, d_norm: normalisation of the generator, and of the others; batch norm mixes the images of a batch.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        z_dim: int = 100,
        width: int = 64,
        depth: int = 3,
        conditions: list[str] = [],  # noqa: B006
        attributes: Place = "both",
        g_norm: Norm = "batch",
        d_norm: Norm = "none",
    ) -> None:
        super().__init__(
            facts,
            z_dim=z_dim,
            width=width,
            depth=depth,
            conditions=conditions,
            attributes=attributes,
            g_norm=g_norm,
            d_norm=d_norm,
        )
        size = smallest(facts, depth)
        down = halving(facts.channels, width, depth, 4, d_norm)
        code = nn.Linear(width * 2 ** (depth - 1) * size[0] * size[1], z_dim)
        self.encoder = Unconditional(OrderedDict(down=down, flat=nn.Flatten(), code=code))

    def refine(self, images: Tensor, c: Tensor) -> Tensor:
        """Images [N, C, H, W], the attributes that they shall have [N, columns] -> images in -1…1."""
        return self.generator(self.encoder(images), c)
