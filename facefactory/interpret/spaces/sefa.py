"""Directions that change most what the first layer makes of a code (Shen & Zhou, "Closed-form factorization of latent semantics in GANs", CVPR 2021).

They are the eigenvectors of AᵀA, the largest eigenvalue first; A are the weights of all layers that a code goes
straight into (equations 5 to 7): of a style-based generator the styles of each layer, of others the first projection.
Nothing is sampled, and no label is used.
"""

from typing import Any

import numpy as np

from facefactory.interpret import Context, Space, Unsuited
from facefactory.interpret.spaces import _directions

METHOD = "Directions: eigenvectors of the weights of the layers that the code goes into (SeFa)."

DIRECTIONS = True


def fits(model: Any) -> bool:
    """Whether the model only draws, and shows its layers."""
    return _directions.draws_only(model) and _directions.has_layers(model)


def of(model: Any, context: Context) -> Space:
    """The coordinates along all of them; Unsuited: no layer takes the code as it is."""
    one = _directions.drawn(model, context, "sefa", 1)
    seen = next(_directions.inside(model, one))
    if not seen.projections:
        raise Unsuited(
            "interpret.spaces: no layer of this model takes the code itself, and sefa needs its weights; leave it out, "
            "e.g. interpret.spaces=[z]."
        )
    width = one.codes.shape[1]
    stacked = np.concatenate([_directions.weights(layer, width) for layer in seen.projections])
    _, vectors = np.linalg.eigh(stacked.T @ stacked)  # ascending
    base = _directions.base_of(model, context)
    return _directions.along(base, vectors.T[::-1], METHOD)
