"""What models with an encoder are asked beside their samples: reconstructions, and samples under priors fitted to their codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from facefactory import conditions, registry
from facefactory.data.sets import pixels
from facefactory.data.sets.loader import Shards
from facefactory.data.sets.order import Ids
from facefactory.draws import normal
from facefactory.evaluation import priors
from facefactory.evaluation.priors import Prior
from facefactory.metrics import Array
from facefactory.results import Reconstruction

MOST = 1000  # images of a split that are reconstructed
CODED = 20_000  # training images whose codes priors are fitted to
TRAINED = "normal"  # the prior that samples come from unless another is asked for


@dataclasses.dataclass(frozen=True)
class Coded:
    """Images of a set with their codes, a chunk of them."""

    images: torch.Tensor  # [n, H, W, C] uint8
    c: torch.Tensor  # [n, columns] their conditions
    mu: torch.Tensor  # [n, z_dim]
    logvar: torch.Tensor  # [n, z_dim]
    start: int  # place of the first


def coded(model: Any, shards: Shards, positions: Ids) -> Iterator[Coded]:
    """The images at positions, encoded chunk by chunk."""
    start = 0
    for images in shards.chunks(positions):
        some = positions[start : start + len(images)]
        c = conditions.of_images(model, shards, some).to(pixels.like(model))
        with torch.inference_mode():
            mu, logvar = model.encode(pixels.to_model(images).to(pixels.like(model)), c)
        yield Coded(images, c, mu, logvar, start)
        start += len(images)


def reconstruct(
    model: Any, likelihood: Any, shards: Shards, split: str, reals: int, seed: int
) -> Reconstruction:
    """Scores of reconstructions from the posteriors' means, and nats per image as training counts them.

    Args:
        likelihood: p(x|z) that the model was trained with; None: there are no nats of pixels.
        reals: images of the split at most.
    """
    positions = shards.chosen(min(reals, MOST))
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    nats: dict[str, float] = {"reconstruction_nats": 0.0, "kl_nats": 0.0}
    with torch.inference_mode():
        for part in coded(model, shards, positions):
            made = pixels.to_uint8(model.decode(part.mu, part.c)).cpu()
            pairs.append((part.images, made))

            # the bound, with one code drawn for each image
            mu = part.mu.double()
            logvar = part.logvar.double()
            kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar)
            nats["kl_nats"] += float(kl.sum())
            if likelihood is not None:
                noise = normal(seed, part.start, "nats", *mu.shape).to(part.mu)
                z = part.mu + (0.5 * part.logvar).exp() * noise
                images = pixels.to_model(part.images).to(part.mu)
                nats["reconstruction_nats"] += float(
                    likelihood.nats(model.decode(z, part.c), images).double().sum()
                )

    # pictures one by one, then the means of the sums
    real, again = (torch.cat(stack).numpy() for stack in zip(*pairs, strict=True))
    scores: dict[str, float] = {}
    for name in registry.names("metrics.images"):
        try:
            scores |= registry.module("metrics.images", name).score(real, again)
        except ValueError:
            continue  # smaller than its window
    means = {name: total / len(positions) for name, total in nats.items()}
    if likelihood is None:
        del means["reconstruction_nats"]
    else:
        means["neg_elbo_nats"] = means["reconstruction_nats"] + means["kl_nats"]
    finite = {name: value for name, value in scores.items() if np.isfinite(value)}
    return Reconstruction(split, len(positions), finite, means)


def means(model: Any, shards: Shards) -> Array:
    """The posteriors' means of training images [N, z_dim]."""
    parts = [part.mu.double().cpu() for part in coded(model, shards, shards.chosen(CODED))]
    return torch.cat(parts).numpy()


class Under:
    """The model, drawing from another prior."""

    def __init__(self, model: Any, prior: Prior) -> None:
        self.model = model
        self.prior = prior
        self.z_dim = prior.width
        self.conditions = getattr(model, "conditions", ())

    def parameters(self) -> Iterator[Any]:
        """The model's."""
        return iter([pixels.like(self.model)])

    def sample(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """[n, z_dim] standard normal, c -> images [n, C, H, W] in -1…1."""
        images: torch.Tensor = self.model.decode(self.prior.codes(z), c)
        return images


def fitted(model: Any, shards: Shards, seed: int) -> tuple[dict[str, Prior], dict[str, str]]:
    """Name -> prior fitted to the codes of a split; and name -> why there is none."""
    mu = means(model, shards)
    found: dict[str, Prior] = {}
    absent: dict[str, str] = {}
    for name, file in priors.files().items():
        try:
            found[name] = file.fit(mu, seed)
        except ValueError as error:
            absent[name] = str(error)
    return found, absent


def shown(model: Any, shards: Shards, reals: int, count: int) -> torch.Tensor:
    """Images of a set above what the model makes of them [2 x count, H, W, C] uint8."""
    positions = shards.chosen(reals)
    positions = positions[np.linspace(0, len(positions) - 1, count).astype(int)]
    rows: list[torch.Tensor] = []
    with torch.inference_mode():
        for part in coded(model, shards, positions):
            rows += [part.images, pixels.to_uint8(model.decode(part.mu, part.c)).cpu()]
    return torch.cat(rows)
