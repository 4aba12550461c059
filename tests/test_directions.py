"""Spaces of directions: planted axes of a generator are found, and walks along one leave the others alone."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facefactory import UserError
from facefactory.data.sets.index import Index
from facefactory.interpret import Context, Interpret
from facefactory.interpret.spaces import _directions, boundary, ganspace, sefa, w, z

SIDE = 16
DIMS = 6
TURN = np.linalg.qr(np.random.default_rng(3).normal(size=(DIMS, DIMS))).Q  # rows: planted axes


class Linear(nn.Module):
    """A code's share along planted axis k is the brightness of row k of the image; axis 0 is the strongest, the last draws nothing."""

    z_dim = DIMS
    conditions: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        strengths = torch.tensor([3.0, 2.5, 2.0, 1.5, 1.0, 0.0]).double()
        self.project = nn.Linear(DIMS, DIMS, bias=False)
        self.project.weight.data = (strengths[:, None] * torch.from_numpy(TURN)).float()
        self.spread = nn.Linear(DIMS, SIDE, bias=False)
        self.spread.weight.data = torch.eye(SIDE, DIMS)

    def sample(self, z: Tensor, c: Tensor) -> Tensor:
        rows = self.spread(torch.tanh(self.project(z) / 6))
        return rows[:, None, :, None].repeat(1, 1, 1, SIDE)


class Styled(Linear):
    """w is z, stretched along the planted axes; each of two layers has a style of its own."""

    w_dim = DIMS

    def to_w(self, z: Tensor, c: Tensor, psi: float = 1.0) -> Tensor:
        return z @ torch.from_numpy(TURN.T * [1, 9, 2, 6, 4, 0.5] @ TURN).float()

    def from_w(self, w: Tensor) -> Tensor:
        return self.sample(w, w[:, :0])


class RowJudge:
    """Sees glasses where row 0 of the image is bright, a beard where row 1 is."""

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        rows = images.mean((1, 3))
        zero = torch.zeros(len(images))
        return {
            "Glasses": torch.stack([zero, 9 * rows[:, 0]], 1),
            "Beard": torch.stack([zero, 9 * rows[:, 1]], 1),
        }


def context(index: Index, **options: Any) -> Context:
    return Context(
        index,
        RowJudge(),
        Interpret(**{"samples": 600, **options}),
        0,
        ["Glasses"],
        [],
    )


def along_axis(space: Any, dimension: int) -> Tensor:
    """What two deviations along a dimension change in the image, row by row [SIDE]."""
    codes = torch.from_numpy(np.zeros((2, len(space.scale))))
    codes[1, dimension] = 2 * space.scale[dimension]
    low, high = space.decode(codes)
    return (high - low).mean((0, 2))


@pytest.mark.parametrize("file", [sefa, ganspace], ids=["sefa", "ganspace"])
def test_the_first_layers_axes_are_found_the_strongest_first(index: Index, file: Any) -> None:
    space = file.of(Linear(), context(index))
    for dimension in range(DIMS - 1):
        changed = along_axis(space, dimension).abs()
        assert changed.argmax() == dimension
        assert changed.max() > 5 * changed.topk(2).values[1]
    assert along_axis(space, DIMS - 1).abs().max() < 0.1
    np.testing.assert_allclose(space.scale, 1, atol=0.1)  # z is standard normal along any axis


def test_principal_directions_of_w_are_its_own_not_the_layers(index: Index) -> None:
    space = ganspace.of(Styled(), context(index))
    order = [1, 3, 4, 2, 0, 5]  # by their deviation in w
    np.testing.assert_allclose(
        space.scale,
        [9, 6, 4, 2, 1, 0.5],
        rtol=0.1,
    )
    for dimension, axis in enumerate(order[:-1]):
        assert along_axis(space, dimension).abs().argmax() == axis
    assert along_axis(space, 5).abs().max() < 0.2


@pytest.mark.parametrize("file", [sefa, ganspace, boundary], ids=["sefa", "ganspace", "boundary"])
@pytest.mark.parametrize(("model", "base"), [(Linear, z), (Styled, w)], ids=["z", "w"])
def test_a_faces_coordinates_draw_that_face(
    index: Index, file: Any, model: Any, base: Any
) -> None:
    told = context(index)
    generator = model()
    space = file.of(generator, told)
    own = base.of(generator, told)
    codes = torch.from_numpy(space.codes[:20])
    torch.testing.assert_close(
        space.decode(codes), own.decode(torch.from_numpy(own.codes[:20]).float())
    )
    torch.testing.assert_close(space.decode(space.start[None]), own.decode(own.start[None]))


def test_boundaries_are_crossed_one_at_a_time(index: Index) -> None:
    space = boundary.of(Linear(), context(index))
    assert "Glasses (" in space.method and "Beard (" in space.method
    first = 0 if "0 Glasses" in space.method else 1
    for dimension in (0, 1):
        changed = along_axis(space, dimension)
        row = dimension if first == 0 else 1 - dimension
        assert changed[row] > 0.3  # towards the class
        assert changed[1 - row].abs() < 0.05 * changed[row]


def test_a_boundary_is_where_the_margin_says() -> None:
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(4000, 3)) * [1, 3, 1]
    plain = boundary.boundary(codes, codes @ [0.6, 0.0, 0.8], "it")
    np.testing.assert_allclose(
        plain.normal,
        [0.6, 0, 0.8],
        atol=0.05,
    )
    assert plain.right > 0.97
    assert boundary.boundary(codes, rng.normal(size=4000)).right < 0.55
    assert boundary.boundary(codes, np.zeros(4000)).right == 0


def test_two_names_of_one_thing_have_one_boundary() -> None:
    def of(name: str, normal: list[float], right: float) -> boundary.Boundary:
        return boundary.Boundary(name, np.array(normal), right)

    kept = boundary.independent(
        [
            of("weak", [0, 1, 0], 0.7),
            of("again", [0.995, 0, 0.0999], 0.9),
            of("first", [1, 0, 0], 0.95),
            of("slanted", [0.6, 0, 0.8], 0.85),
        ]
    )
    assert [one.name for one in kept] == ["first", "slanted"]
    rows = boundary.rows(kept, np.zeros((5, 3)))
    back = np.linalg.inv(rows)
    np.testing.assert_allclose(
        rows[0] @ back[:, 1], 0, atol=1e-12
    )  # along the second, the first stays
    np.testing.assert_allclose(
        np.abs(rows[2]),
        [0, 1, 0],
        atol=1e-12,
    )


def test_what_directions_can_be_looked_for_in() -> None:
    class Traced(nn.Module):
        z_dim = DIMS

        def __init__(self) -> None:
            super().__init__()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a form that newer ones shall replace
                self.module = torch.jit.trace(nn.Linear(DIMS, 4), torch.zeros(1, DIMS))

        def sample(self, z: Tensor, c: Tensor) -> Tensor:
            return self.module(z)

    class Encodes(Linear):
        def encode(self, images: Tensor, c: Tensor) -> None: ...

    fitting = {
        model: [file.fits(model()) for file in (sefa, ganspace, boundary)]
        for model in (Linear, Styled, Traced, Encodes)
    }
    assert fitting == {
        Linear: [True] * 3,
        Styled: [True] * 3,
        Traced: [False, False, True],
        Encodes: [False] * 3,
    }


def test_a_model_that_hands_no_layer_its_code_is_refused(index: Index) -> None:
    class Sorted(Linear):
        def sample(self, z: Tensor, c: Tensor) -> Tensor:
            return super().sample(z.sort().values, c)

    for file in (sefa, ganspace):
        with pytest.raises(UserError, match=r"takes the code itself.*interpret.spaces=\[z\]"):
            file.of(Sorted(), context(index))


def test_weights_of_kernels_are_rows_for_each_of_their_places() -> None:
    up = nn.ConvTranspose2d(DIMS, 5, 4)
    linear = _directions.weights(up, DIMS)
    assert linear.shape == (5 * 16, DIMS)
    code = torch.randn(1, DIMS)
    drawn = (up(code[:, :, None, None]) - up.bias[:, None, None]).flatten().detach()
    np.testing.assert_allclose(
        linear @ code[0].double().numpy(),
        drawn.numpy(),
        atol=1e-5,
    )
    told = nn.Linear(DIMS + 2, 4)
    np.testing.assert_array_equal(
        _directions.weights(told, DIMS), told.weight.detach()[:, :DIMS].double().numpy()
    )
