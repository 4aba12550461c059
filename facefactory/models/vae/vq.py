"""VQ-VAE: codes are words of a codebook (van den Oord, Vinyals & Kavukcuoglu, NeurIPS 2017), with a prior over the words.

The prior is autoregressive: a recurrent network reads the words row by row, each with the one before it
and the one above it. Drawing is a function of z: the place of Φ(z_t) in the distribution of the t-th word.
"""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facefactory import UserError
from facefactory.conditions import width as columns_of
from facefactory.facts import Facts
from facefactory.models._residual import growing, shrinking, sizes, widths


class Prior(nn.Module):
    """p(word_t | words before it, c), in the order of rows.

    Args:
        codes: words there are.
        places: (height, width) of an image in words.
        told: columns of the condition.
        width: units of the network.
    """

    def __init__(self, codes: int, places: tuple[int, int], told: int, width: int) -> None:
        super().__init__()
        self.codes = codes
        self.row = places[1]
        self.left = nn.Embedding(codes + 1, width)  # the last one: there is none
        self.above = nn.Embedding(codes + 1, width)
        self.place = nn.Parameter(0.1 * torch.randn(places[0] * places[1], width))
        self.start = nn.Linear(told + 1, width, bias=False)
        self.memory = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, codes)

    def forward(self, words: Tensor, c: Tensor) -> Tensor:
        """Words [N, T], [N, columns] -> logits [N, T, codes] of each by those before it."""
        none = words.new_full((words.shape[0], self.row), self.codes)
        before = torch.cat([none, words], 1)
        left = self.left(before[:, self.row - 1 : -1])
        above = self.above(before[:, : words.shape[1]])
        seen, _ = self.memory(left + above + self.place, self.begin(c))
        return self.head(seen)

    def begin(self, c: Tensor) -> Tensor:
        """The memory [1, N, width] before the first word, by what is told."""
        return self.start(F.pad(c, (0, 1), value=1.0)).tanh()[None]

    def draw(self, u: Tensor, c: Tensor) -> Tensor:
        """Uniform numbers [N, T] in 0…1 -> words [N, T]."""
        words = torch.full((u.shape[0], self.row + u.shape[1]), self.codes, device=u.device)
        state = self.begin(c)
        for place in range(u.shape[1]):
            now = self.row + place  # in `words`, which begin with a row of none
            seen = self.left(words[:, now - 1]) + self.above(words[:, place]) + self.place[place]
            out, state = self.memory(seen[:, None], state)
            shares = self.head(out[:, 0]).softmax(1).cumsum(1)
            word = (shares < u[:, place : place + 1]).sum(1)
            words[:, now] = word.clamp(max=self.codes - 1)
        return words[:, self.row :]


class Component(nn.Module):
    """A VQ-VAE and the prior of its words; z [N, z_dim] has a dimension a place of the smallest maps.

    Args:
        facts: size, channels and labels of the images.
        codes: words of the codebook.
        code_dim: length of a word's vector.
        width: channels of the largest maps; doubled at each halving of the side, to at most four times.
        levels: how often the side is halved, rounded up.
        blocks: residual blocks a level.
        prior_width: units of the prior's network.
        conditions: labels that the prior is told.
    """

    codebook: Tensor  # [codes, code_dim], moved by the objective

    def __init__(
        self,
        facts: Facts,
        *,
        codes: int = 256,
        code_dim: int = 32,
        width: int = 16,
        levels: int = 3,
        blocks: int = 1,
        prior_width: int = 128,
        conditions: list[str] = [],  # noqa: B006
    ) -> None:
        super().__init__()
        if codes < 2:
            raise UserError(f"codes={codes}; a codebook has at least 2 words.")
        self.conditions = tuple(conditions)
        maps = sizes(
            facts, levels, width=width, blocks=blocks, code_dim=code_dim, prior_width=prior_width
        )
        channels = widths(width, levels)
        self.places = maps[-1]
        self.z_dim = self.places[0] * self.places[1]

        down = shrinking(facts.channels, channels, blocks)
        head = nn.Conv2d(channels[-1], code_dim, 1)
        self.encoder = nn.Sequential(OrderedDict(down=down, head=head))
        spread = nn.Conv2d(code_dim, channels[-1], 3, 1, 1)
        up = growing(facts.channels, channels, maps, blocks)
        self.decoder = nn.Sequential(OrderedDict(spread=spread, up=up))
        self.register_buffer("codebook", torch.randn(codes, code_dim))
        self.prior = Prior(codes, self.places, columns_of(conditions, facts.labels), prior_width)

    def vectors(self, images: Tensor) -> Tensor:
        """[N, C, H, W] in -1…1 -> what is encoded at each place [N, z_dim, code_dim], before it is a word."""
        return self.encoder(images).flatten(2).transpose(1, 2)

    def words(self, vectors: Tensor) -> Tensor:
        """[N, z_dim, code_dim] -> the nearest words [N, z_dim]."""
        flat = vectors.detach().flatten(0, 1)
        return torch.cdist(flat, self.codebook.to(flat)).argmin(1).view(vectors.shape[:2])

    def paint(self, vectors: Tensor) -> Tensor:
        """Words' vectors [N, z_dim, code_dim] -> images [N, C, H, W] in -1…1."""
        return self.decoder(vectors.transpose(1, 2).unflatten(2, self.places))

    def reconstruct(self, images: Tensor, c: Tensor) -> Tensor:
        """Images [N, C, H, W] in -1…1 -> what their words say of them."""
        return self.paint(F.embedding(self.words(self.vectors(images)), self.codebook))

    def code_nats(self, images: Tensor, c: Tensor) -> Tensor:
        """Images [N, C, H, W] in -1…1 -> -log p(their words | c) by the prior, [N] nats."""
        words = self.words(self.vectors(images))
        logits = self.prior(words, c)
        nats = F.cross_entropy(logits.flatten(0, 1), words.flatten(), reduction="none")
        return nats.view(words.shape).sum(1)

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        """[N, z_dim] standard normal, [N, columns] -> images [N, C, H, W] in -1…1."""
        u = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
        return self.paint(F.embedding(self.prior.draw(u, c), self.codebook))
