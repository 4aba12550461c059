"""Images that a model draws: of a seed and a purpose the same ones, however many are asked for."""

from collections.abc import Iterator
from typing import Any

import torch

from facefactory.data.sets import pixels
from facefactory.data.sets.loader import CHUNK
from facefactory.data.sets.transfer import send, to_host
from facefactory.draws import normal

SHOWN = 64  # faces in a grid


def truncated(z: torch.Tensor, psi: float) -> torch.Tensor:
    """z nearer to its mean: ψ z, as Glow's temperature (Kingma & Dhariwal, NeurIPS 2018, §5).

    Images become more typical and more alike towards ψ = 0; 1 changes no bit.
    """
    return z * psi


def draws(
    model: Any, c: torch.Tensor, seed: int, purpose: str, psi: float = 1.0
) -> Iterator[torch.Tensor]:
    """Chunks of generated images [n, H, W, C] uint8, one for each condition in `c` [count, columns].

    The first ones are the same for any count. `psi`: of `truncated`.
    """
    like = pixels.like(model)

    def chunks() -> Iterator[tuple[torch.Tensor, ...]]:
        for start in range(0, len(c), CHUNK):
            wanted = c[start : start + CHUNK]
            # sums in a layer may depend on how many there are
            full = wanted[torch.arange(CHUNK) % len(wanted)]
            z = truncated(normal(seed, start, purpose, CHUNK, model.z_dim), psi)
            with torch.inference_mode():
                images = model.sample(
                    send(z, like.device).to(like), send(full, like.device).to(like)
                )
            yield (pixels.to_uint8(images)[: len(wanted)],)

    for (images,) in to_host(chunks()):
        yield images


def draw(model: Any, c: torch.Tensor, seed: int, purpose: str, psi: float = 1.0) -> torch.Tensor:
    """Generated images [count, H, W, C] uint8, one for each condition in `c` [count, columns]."""
    return torch.cat(list(draws(model, c, seed, purpose, psi)))
