"""Principal directions (Härkönen et al., "GANSpace: discovering interpretable GAN controls", NeurIPS 2020).

Of w where there is one (§2.1). Of other generators those of the first layer's activations, carried over to z by linear
regression (§2.2). Regressed directions are no basis yet; they are made orthogonal in the order of the variance
(Gram-Schmidt, ours), so that the first keep theirs and a face is the sum of its coordinates.
"""

from typing import Any

import numpy as np
import torch

from facefactory.interpret import Context, Space, Unsuited
from facefactory.interpret.spaces import _directions, w
from facefactory.metrics import Array

CODES = 2048  # that the components are of
TINY = 1e-12
IN_W = "Directions: principal components of w (GANSpace)."
IN_Z = (
    "Directions: principal components of the first layer's activations, regressed to z (GANSpace)."
)

DIRECTIONS = True


def fits(model: Any) -> bool:
    """Whether the model only draws, and has a w or shows its layers."""
    return _directions.draws_only(model) and (w.fits(model) or _directions.has_layers(model))


def of(model: Any, context: Context) -> Space:
    """The coordinates along all components, the one with most variance first."""
    base = _directions.base_of(model, context)
    faces = _directions.drawn(model, context, "ganspace", CODES)
    codes = faces.codes.double().cpu().numpy()
    if w.fits(model):
        return _directions.along(base, components(codes), IN_W)

    # what the second layer sees of each z
    parts = [seen.activations for seen in _directions.inside(model, faces)]
    activations = [part for part in parts if part is not None]
    if len(activations) < len(parts):
        raise Unsuited(
            "interpret.spaces: no layer of this model takes the code itself and hands it on, as ganspace needs; "
            "leave it out, e.g. interpret.spaces=[z]."
        )
    return _directions.along(base, carried(codes, torch.cat(activations).numpy()), IN_Z)


def components(sample: Array, most: int | None = None) -> Array:
    """Unit vectors [min(N, D), D] along which rows [N, D] vary most, in that order; `most` of them."""
    centred = sample - sample.mean(0)
    if len(sample) >= sample.shape[1]:
        _, vectors = np.linalg.eigh(centred.T @ centred)
        return vectors.T[::-1][:most]

    # fewer rows than columns: their products are the smaller matrix
    powers, shares = np.linalg.eigh(centred @ centred.T)
    kept = powers > powers[-1] * TINY
    vectors = shares.T[kept] @ centred / np.sqrt(powers[kept])[:, None]
    return vectors[::-1][:most]


def carried(codes: Array, activations: Array) -> Array:
    """The components of activations [N, K] as orthogonal unit vectors [D, D] among codes [N, D].

    Component k is the vector u for which x_k u comes nearest to the codes, where x_k are the activations' coordinates.
    """
    width = codes.shape[1]
    x = (activations - activations.mean(0)) @ components(activations, width).T
    regressed = (codes - codes.mean(0)).T @ x / np.square(x).sum(0).clip(TINY)
    # fewer activations than codes: what they leave open comes last
    basis, triangle = np.linalg.qr(regressed, mode="complete")
    signs = np.ones(width)
    signs[: triangle.shape[1]] = np.where(np.diag(triangle) < 0, -1, 1)
    return (basis * signs).T
