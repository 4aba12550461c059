"""Two fully connected layers against two: the first GAN that anybody writes, with labels or without."""

from torch import Tensor, nn

from facefactory import UserError
from facefactory.conditions import width as columns_of
from facefactory.facts import Facts
from facefactory.models._layers import Joined


class Component(nn.Module):
    """Generator (z [N, z_dim], c) -> images [N, C, H, W] in -1…1, discriminator (images, c) -> logits [N]; any H and W.

    Args:
        facts: size and channels of the images, and the set's labels.
        z_dim: length of z.
        width: units of the one hidden layer of each.
        conditions: labels that both see beside their input; [] = none.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        z_dim: int = 100,
        width: int = 128,
        conditions: list[str] = [],  # noqa: B006
    ) -> None:
        super().__init__()
        if min(z_dim, width) < 1:
            raise UserError(f"z_dim={z_dim}, width={width}; both must be at least 1.")
        self.z_dim = z_dim
        self.conditions = tuple(conditions)
        columns = columns_of(conditions, facts.labels)
        shape = (facts.channels, facts.height, facts.width)
        pixels = facts.channels * facts.height * facts.width

        self.generator = Joined(
            nn.Linear(z_dim + columns, width),
            nn.ReLU(),
            nn.Linear(width, pixels),
            nn.Tanh(),
            nn.Unflatten(1, shape),
        )
        self.discriminator = Joined(
            nn.Linear(pixels + columns, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
            nn.Flatten(0),
        )

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim], [N, columns] -> images [N, C, H, W] in -1…1."""
        return self.generator(z, c)
