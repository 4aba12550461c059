"""A second VAE, of the codes: the two-stage VAE (Dai & Wipf, ICLR 2019, §4).

The first one's codes lie on what its encoder makes of images, and N(0, I) says little about that. The
second one has as many dimensions as they have, and a deviation that is learned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from facefactory.draws import generator
from facefactory.metrics import Array
from facefactory.metrics.features._neighbours import needs

LEAST = 10  # codes
WIDTH = 128  # units of a layer; the paper has 1024
STEPS = 600
BATCH = 128
LR = 3e-3
START = -2.0  # log of the deviation: from 1 on, a decoder learns to do without codes


def layers(into: int, out: int) -> nn.Sequential:
    """Two hidden layers and a way around them."""
    return nn.Sequential(
        nn.Linear(into, WIDTH),
        nn.SiLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.SiLU(),
        nn.Linear(WIDTH, out),
    )


class Codes(nn.Module):
    """A VAE of standardised codes [N, z_dim]."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.encoder = layers(z_dim, 2 * z_dim)
        self.decoder = layers(z_dim, z_dim)
        self.log_sigma = nn.Parameter(torch.tensor(START))

    def nats(self, codes: Tensor, noise: Tensor) -> Tensor:
        """Negative evidence lower bound, nats a code."""
        mu, logvar = self.encoder(codes).chunk(2, dim=1)
        logvar = logvar.clamp(-12, 12)
        error = codes - self.decoder(mu + (0.5 * logvar).exp() * noise)
        log_sigma = self.log_sigma.clamp(min=-5)
        nll = 0.5 * (error / log_sigma.exp()).square() + log_sigma + 0.5 * math.log(2 * math.pi)
        kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar)
        return (nll + kl).sum(1).mean()


@dataclass(frozen=True)
class SecondStage:
    """The VAE of the codes, and what they were standardised by [1, z_dim]; see `Prior`."""

    network: Codes
    mean: Tensor
    deviation: Tensor
    words: str

    @property
    def width(self) -> int:
        """Numbers for its own code, and as many for the noise around what it decodes."""
        return 2 * self.mean.shape[1]

    def codes(self, normal: Tensor) -> Tensor:
        """Decoded, with noise."""
        u, noise = normal.double().cpu().chunk(2, dim=1)
        sigma = self.network.log_sigma.clamp(min=-5).exp()
        return (self.mean + self.deviation * (self.network.decoder(u) + sigma * noise)).to(normal)


def fit(mu: Array, seed: int) -> SecondStage:
    """Train it; the same codes and seed give the same.

    Raises:
        ValueError: fewer than 10 codes.
    """
    needs("a second VAE", training=(len(mu), LEAST))
    codes = torch.from_numpy(mu)
    mean = codes.mean(0, keepdim=True)
    deviation = codes.std(0, keepdim=True).clamp(min=1e-8)
    codes = ((codes - mean) / deviation).float()

    # torch's own generator is left alone
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Codes(codes.shape[1])
    draws = generator(seed, "second_stage")
    with torch.enable_grad(), torch.inference_mode(False):
        nats = train(network, codes.clone(), draws)
    found = network.double().eval().requires_grad_(False)
    return SecondStage(
        found, mean, deviation, f"{STEPS} steps, {nats:.3g} nats a standardised code"
    )


def train(network: Codes, codes: Tensor, draws: torch.Generator) -> float:
    """Adam with a learning rate that falls to 0; the mean loss of the last tenth of the steps."""
    optimiser = torch.optim.Adam(network.parameters(), LR)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    last: list[Tensor] = []
    for step in range(STEPS):
        rows = torch.randint(len(codes), (BATCH,), generator=draws)
        loss = network.nats(codes[rows], torch.randn(BATCH, codes.shape[1], generator=draws))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        fall.step()
        if step >= 0.9 * STEPS:
            last.append(loss.detach())
    return float(torch.stack(last).mean())
