"""Directions across the boundaries of the judge's labels (Shen et al., "Interpreting the latent space of GANs for semantic face editing", CVPR 2020).

A class has a linear boundary in z or w; its unit normal n gives a face's signed distance, which is the coordinate. Paths are
orthogonalised as in the paper's conditional manipulation (§2.3, equation 5), all at once: along coordinate k goes what is
left of n_k beside all other normals, so that the distances to their boundaries stay. Where the paper has support vectors there
is Fisher's discriminant here, of the halves of the faces with the higher and the lower logits. It is fitted to faces of its
own: the effects of a coordinate are measured on others. What no boundary takes is left as orthogonal coordinates behind them.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from facefactory.data.sets import pixels
from facefactory.evaluation import features
from facefactory.interpret import Context, Space, Unsuited
from facefactory.interpret.sharing import Item
from facefactory.interpret.spaces import _directions
from facefactory.metrics import Array

PLAIN = 0.8  # share of other faces on the right side, below which a class has no boundary
LONGEST = 2.0  # times its normal, of the path that leaves all other distances alone
METHOD = (
    "Directions across the boundaries of the judge's labels in other faces (InterFaceGAN): {given}. "
    "The coordinates behind them are orthogonal to these."
)


class Boundary(NamedTuple):
    """Of one class."""

    name: str
    normal: Array  # [D], of length 1, towards the class
    right: float  # share of faces, not of those it was fitted to, on the right side


DIRECTIONS = True


def fits(model: Any) -> bool:
    """Whether the model only draws."""
    return _directions.draws_only(model)


def of(model: Any, context: Context) -> Space:
    """Signed distances to the boundaries, the plainest first, and what is orthogonal to all of them; Unsuited: none is plain."""
    drawing = _directions.drawn(model, context, "boundary", context.options.samples)
    codes = drawing.codes.double().cpu().numpy()
    boundaries = independent(
        [boundary(codes, margin, name) for name, margin in margins(context, drawing).items()]
    )
    if not boundaries:
        raise Unsuited(
            f"interpret.spaces: no class of the judge has a boundary with {PLAIN:.0%} of other faces on the right side, as boundary "
            "needs; leave it out, e.g. interpret.spaces=[z]."
        )
    given = "; ".join(
        f"{number} {one.name} ({one.right:.0%} on the right side)"
        for number, one in enumerate(boundaries)
    )
    method = METHOD.format(given=given)
    return _directions.along(_directions.base_of(model, context), rows(boundaries, codes), method)


def margins(context: Context, drawing: _directions.Drawn) -> dict[str, Array]:
    """What the judge says of faces: class -> log odds against all others [n]; of two classes the second."""
    chunks = list(drawing.chunks())

    def look(number: int) -> Item:
        # the judge looks at what people would see: 8 bits
        with torch.inference_mode():
            faces = pixels.to_uint8(drawing.draw(*chunks[number]))
        verdicts = features.verdicts(context.judge, faces)
        return {name: logits.numpy() for name, logits in verdicts.items()}

    parts = list(context.sharing.items("boundary-judged", range(len(chunks)), look).values())
    found = {}
    for name, label in context.index.content.labels.items():
        if name not in parts[0] or label.kind == "identity":
            continue
        logits = torch.from_numpy(np.concatenate([part[name] for part in parts])).double()
        for code, word in enumerate(label.classes):
            others = torch.cat([logits[:, :code], logits[:, code + 1 :]], 1).logsumexp(1)
            if label.kind != "binary":
                found[f"{name} = {word}"] = (logits[:, code] - others).numpy()
            elif code == 1:
                found[name] = (logits[:, code] - others).numpy()
    return found


def boundary(codes: Array, margin: Array, name: str = "") -> Boundary:
    """Fisher's discriminant of the codes [n, D] with the higher and the lower half of the margins [n].

    It is fitted to the first half of the codes, and tried on the others.
    """
    half = len(codes) // 2
    upper = margin > np.median(margin)
    fitted = codes[:half]
    if margin.min() == margin.max() or len(np.unique(upper[:half])) < 2:
        return Boundary(name, np.zeros(codes.shape[1]), 0.0)

    # the difference of the means, whitened by what varies within the halves
    high = fitted[upper[:half]]
    low = fitted[~upper[:half]]
    within = np.cov(np.concatenate([high - high.mean(0), low - low.mean(0)]).T)
    ridge = 1e-6 * np.trace(np.atleast_2d(within)) / codes.shape[1]
    difference = high.mean(0) - low.mean(0)
    normal = np.linalg.solve(within + ridge * np.eye(codes.shape[1]), difference)
    normal /= np.linalg.norm(normal)

    middle = (high.mean(0) + low.mean(0)) @ normal / 2
    right = (codes[half:] @ normal > middle) == upper[half:]
    return Boundary(name, normal, float(right.mean()))


def independent(boundaries: list[Boundary]) -> list[Boundary]:
    """Those that are plain, the plainest first, without the ones that nearly lie in what the others span.

    Two names of one thing (and classes that exclude each other) have the same boundary, and no path crosses one alone.
    """
    kept: list[Boundary] = []
    for one in sorted(boundaries, key=lambda one: -one.right):
        if one.right < PLAIN:
            break
        normals = np.stack([other.normal for other in [*kept, one]])
        products = normals @ normals.T
        if np.linalg.cond(products) > 1e9:
            continue
        # of the path along one coordinate, squared
        lengths = np.linalg.inv(products).diagonal()
        if lengths.max() <= LONGEST**2:
            kept.append(one)
    return kept


def rows(boundaries: list[Boundary], codes: Array) -> Array:
    """The normals, and orthogonal unit vectors that no boundary's normal has a share in: [D, D]."""
    width = codes.shape[1]
    normals = np.stack([np.zeros(width), *(one.normal for one in boundaries)])[1:]
    basis = np.linalg.qr(normals.T, mode="complete").Q
    rest: Array = basis[:, len(boundaries) :].T
    return np.concatenate([normals, rest])
