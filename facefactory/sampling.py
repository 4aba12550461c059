"""Images that a model draws: of a seed and a purpose the same ones, however many are asked for."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from facefactory.data.sets import pixels
from facefactory.data.sets.loader import CHUNK
from facefactory.data.sets.transfer import send, to_host
from facefactory.draws import normal

SHOWN = 64  # faces in a grid


def images_of(model: Any, z: torch.Tensor, c: torch.Tensor, psi: float = 1.0) -> torch.Tensor:
    """z [N, z_dim], c [N, columns] -> images [N, C, H, W] in -1…1; 1 changes no bit.

    Towards ψ = 0 they become more typical and more alike: w goes to its mean (Karras et al. 2019,
    §B) where a model has one, else z, as in Glow (Kingma & Dhariwal, NeurIPS 2018, §5).
    """
    if hasattr(model, "to_w"):
        images: torch.Tensor = model.from_w(model.to_w(z, c, psi))
    else:
        images = model.sample(z * psi, c)
    return images


def slerp(first: torch.Tensor, second: torch.Tensor, share: float) -> torch.Tensor:
    """A share of the way from one z [D] to another on a great circle (Shoemake, SIGGRAPH 1985, §3.3).

    On a straight line z would be shorter in the middle than any that training has seen.
    """
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=0).clamp(-1, 1)
    angle = float(torch.arccos(cosine))
    if math.sin(angle) < 1e-4:  # on one line: there is no circle, or any
        return torch.lerp(first, second, share)
    weights = (math.sin((1 - share) * angle), math.sin(share * angle))
    return (weights[0] * first + weights[1] * second) / math.sin(angle)


def walk(
    model: Any, c: torch.Tensor, seed: int, stops: int, frames: int, psi: float = 1.0
) -> torch.Tensor:
    """Frames [frames, H, W, C] uint8 of a walk through the first `stops` images of `draws`, and back.

    Straight in w, where a model has one, else on great circles in z. `c` [1, columns] is asked of all.
    """
    like = pixels.like(model)
    z = normal(seed, 0, "generate", CHUNK, model.z_dim)[:stops].to(like)
    asked = c.to(like)
    straight = hasattr(model, "to_w")
    with torch.inference_mode():
        corners = model.to_w(z, asked.expand(stops, -1), psi) if straight else z * psi
        between = torch.lerp if straight else slerp
        codes = []
        for frame in range(frames):
            corner, share = divmod(frame * stops / frames, 1)
            start = int(corner)
            codes.append(between(corners[start], corners[(start + 1) % stops], share))

        # some at a time
        parts = []
        for part in torch.stack(codes).split(CHUNK):
            drawn = (
                model.from_w(part) if straight else model.sample(part, asked.expand(len(part), -1))
            )
            parts.append(pixels.to_uint8(drawn).cpu())
    return torch.cat(parts)


def truncations(model: Any, c: torch.Tensor, seed: int, psis: Sequence[float]) -> torch.Tensor:
    """The first images of `draws`, one for each condition [count, columns], at every ψ: [ψ · count, H, W, C] uint8."""
    like = pixels.like(model)
    z = normal(seed, 0, "generate", max(CHUNK, len(c)), model.z_dim)[: len(c)].to(like)
    rows = []
    with torch.inference_mode():
        for psi in psis:
            rows.append(pixels.to_uint8(images_of(model, z, c.to(like), psi)).cpu())
    return torch.cat(rows)


def draws(
    model: Any, c: torch.Tensor, seed: int, purpose: str, psi: float = 1.0
) -> Iterator[torch.Tensor]:
    """Chunks of generated images [n, H, W, C] uint8, one for each condition in `c` [count, columns].

    The first ones are the same for any count. `psi`: of `images_of`.
    """
    like = pixels.like(model)

    def chunks() -> Iterator[tuple[torch.Tensor, ...]]:
        for start in range(0, len(c), CHUNK):
            wanted = c[start : start + CHUNK]
            # sums in a layer may depend on how many there are
            full = wanted[torch.arange(CHUNK) % len(wanted)]
            z = normal(seed, start, purpose, CHUNK, model.z_dim)
            with torch.inference_mode():
                images = images_of(
                    model, send(z, like.device).to(like), send(full, like.device).to(like), psi
                )
            yield (pixels.to_uint8(images)[: len(wanted)],)

    for (images,) in to_host(chunks()):
        yield images


def draw(model: Any, c: torch.Tensor, seed: int, purpose: str, psi: float = 1.0) -> torch.Tensor:
    """Generated images [count, H, W, C] uint8, one for each condition in `c` [count, columns]."""
    return torch.cat(list(draws(model, c, seed, purpose, psi)))
