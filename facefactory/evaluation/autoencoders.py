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
OWN = "own"  # a prior that was trained with the model, e.g. of words


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


@dataclasses.dataclass(frozen=True)
class Again:
    """Images of a set beside what a model makes of them, a chunk of them."""

    images: torch.Tensor  # [n, H, W, C] uint8
    made: torch.Tensor  # [n, C, H, W] from the best code of each, e.g. its posterior's mean
    drawn: torch.Tensor  # [n, C, H, W] from a code that is drawn, where codes are
    kl: torch.Tensor  # [n] nats of the codes


def reconstructs(model: Any) -> bool:
    """Whether a model makes something of images that it is given."""
    return hasattr(model, "encode") or hasattr(model, "reconstruct")


def again(model: Any, shards: Shards, positions: Ids, seed: int) -> Iterator[Again]:
    """The images at positions and their reconstructions, chunk by chunk."""
    if hasattr(model, "encode"):
        return _through_posteriors(model, shards, positions, seed)
    return _through_words(model, shards, positions)


def _through_posteriors(model: Any, shards: Shards, positions: Ids, seed: int) -> Iterator[Again]:
    for part in coded(model, shards, positions):
        mu = part.mu.double()
        logvar = part.logvar.double()
        kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar)
        noise = normal(seed, part.start, "nats", *mu.shape).to(part.mu)
        z = part.mu + (0.5 * part.logvar).exp() * noise
        with torch.inference_mode():
            made = model.decode(part.mu, part.c)
            drawn = model.decode(z, part.c)
        yield Again(part.images, made, drawn, kl.sum(1))


def _through_words(model: Any, shards: Shards, positions: Ids) -> Iterator[Again]:
    """A code of words is certain: its KL from the prior is -log p(words)."""
    like = pixels.like(model)
    start = 0
    for images in shards.chunks(positions):
        some = positions[start : start + len(images)]
        c = conditions.of_images(model, shards, some).to(like)
        shown = pixels.to_model(images).to(like)
        with torch.inference_mode():
            made = model.reconstruct(shown, c)
            yield Again(images, made, made, model.code_nats(shown, c).double())
        start += len(images)


def reconstruct(
    model: Any, likelihood: Any, shards: Shards, split: str, reals: int, seed: int
) -> Reconstruction:
    """Scores of reconstructions from the best codes, and nats per image as training counts them.

    Args:
        likelihood: p(x|z) that the model was trained with; None: there are no nats of pixels.
        reals: images of the split at most.
    """
    positions = shards.chosen(min(reals, MOST))
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    nats: dict[str, float] = {"reconstruction_nats": 0.0, "kl_nats": 0.0}
    for part in again(model, shards, positions, seed):
        pairs.append((part.images, pixels.to_uint8(part.made).cpu()))

        # the bound, with one code drawn for each image
        nats["kl_nats"] += float(part.kl.sum())
        if likelihood is not None:
            images = pixels.to_model(part.images).to(part.drawn)
            with torch.inference_mode():
                of_pixels = likelihood.nats(part.drawn, images)
            nats["reconstruction_nats"] += float(of_pixels.double().sum())

    # pictures one by one, then the means of the sums
    real, made = (torch.cat(stack).numpy() for stack in zip(*pairs, strict=True))
    scores: dict[str, float] = {}
    for name in registry.names("metrics.images"):
        try:
            scores |= registry.module("metrics.images", name).score(real, made)
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
    if not hasattr(model, "encode"):
        return {}, {}
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
    originals: list[torch.Tensor] = []
    made: list[torch.Tensor] = []
    for part in again(model, shards, positions, 0):
        originals.append(part.images)
        made.append(pixels.to_uint8(part.made).cpu())
    return torch.cat([*originals, *made])
