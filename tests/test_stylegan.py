"""StyleGAN2's layers and promises: styles, noise, mixing, the mean of w, groups of the minibatch's spread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import ALONE, make_task, newest, run_ranks, same, stop_after
from torch import Tensor
from torch.nn import functional as F

from facefactory import UserError, checkpoint, sampling
from facefactory.data.sets.index import Index
from facefactory.draws import Draws
from facefactory.facts import Facts, Label
from facefactory.models._style import Convolution, Linear, Modulated, Smooth
from facefactory.training.trainer import fit

FACTS = Facts(
    16,
    24,
    3,
    {"Mood": Label("categorical", ("calm", "glad", "sad"))},
)
NO_LABELS = torch.empty(6, 0)
KIND = "gan/stylegan2 adversarial"


def model(**options: Any) -> Any:
    small = {"width": 4, "z_dim": 8, "w_dim": 8, "depth": 2, **options}
    return checkpoint.build({"name": "gan/stylegan2", **small}, FACTS)


def draws(lo: int = 0, hi: int = 6, clock: int = 0) -> Draws:
    return Draws(0, clock, 6, lo, hi, torch.device("cpu"))


@pytest.mark.parametrize("up", [False, True])
def test_scaled_channels_are_a_kernel_of_its_own_for_each_image(up: bool) -> None:
    layer = Modulated(5, 7, 3, w_dim=4, up=up)
    x = torch.randn(3, 5, 6, 6)
    w = torch.randn(3, 4)
    found = layer(x, w)
    plain = Convolution(5, 7, 3, bias=False, up=up)
    for image, style, shown in zip(x, layer.style(w), found, strict=True):
        kernels = layer.mix.scaled() * style[:, None, None]  # equation 1
        power = kernels.square().sum((1, 2, 3), keepdim=True)
        norm = torch.rsqrt(power + 1e-8)
        plain.weight.data = kernels * norm / plain.gain
        torch.testing.assert_close(shown, plain(image[None])[0], atol=1e-5, rtol=1e-5)


def inner(x: Tensor) -> Tensor:
    """What no edge reaches."""
    return x[..., 1:-1, 1:-1]


def test_smoothed_sizes_keep_what_is_flat_and_follow_a_ramp() -> None:
    smooth = Smooth()
    ramp = torch.arange(8.0).expand(2, 3, 8, 8)
    bilinear = F.interpolate(
        ramp,
        scale_factor=2,
        mode="bilinear",
        align_corners=False,
    )
    twice = smooth.doubled(ramp)
    torch.testing.assert_close(inner(twice), inner(bilinear))
    half = smooth.halved(ramp)
    means = F.avg_pool2d(ramp, 2)
    torch.testing.assert_close(inner(half), inner(means))
    flat = smooth.spread(torch.ones(1, 2, 9, 9))
    assert inner(flat).allclose(torch.tensor(4.0))


def test_a_slow_layer_begins_like_another_and_learns_at_its_share() -> None:
    torch.manual_seed(0)
    slow = Linear(400, 300, speed=0.01)
    x = torch.randn(50, 400)
    before = slow(x)
    assert before.std().item() == pytest.approx(1, abs=0.05)
    slow.weight.data += 1.0  # what Adam changes does not know the share
    moved = slow(x) - before
    sums = x.sum(1, keepdim=True)
    wanted = 0.01 / 20 * sums
    torch.testing.assert_close(
        moved,
        wanted.expand(-1, 300),
        atol=1e-3,
        rtol=0,
    )


def test_noise_and_mixing_come_from_the_draws_of_each_position() -> None:
    made = model(mixing=0.5)
    for name, weights in made.generator.named_parameters():
        if "noise_strength" in name:
            weights.data.fill_(0.3)
    z = torch.randn(6, 8)
    whole = made.generator(z, NO_LABELS, draws(), "generator")
    assert torch.equal(whole, made.generator(z, NO_LABELS, draws(), "generator"))
    parts = []
    for lo in (0, 2, 4):
        own = draws(lo, lo + 2)
        c = NO_LABELS[:2]
        parts.append(made.generator(z[lo : lo + 2], c, own, "generator"))
    found = torch.cat(parts)
    torch.testing.assert_close(
        found,
        whole,
        atol=1e-5,
        rtol=1e-5,
    )

    # another purpose or another clock is another draw
    for other in (draws(), "discriminator"), (draws(clock=6), "generator"):
        found = made.generator(z, NO_LABELS, *other)
        assert not torch.equal(found, whole)

    # without draws it is the same image each time, whatever else is drawn
    again = made.sample(z, NO_LABELS)
    assert torch.equal(again, made.sample(z, NO_LABELS))
    two = made.sample(z[:2], NO_LABELS[:2])
    torch.testing.assert_close(
        two,
        again[:2],
        atol=1e-5,
        rtol=1e-5,
    )


def test_mixed_images_have_the_styles_of_two_z() -> None:
    made = model(mixing=0.5)
    w = made.to_w(torch.randn(200, 8), torch.empty(200, 0))
    many = Draws(
        0,
        0,
        200,
        0,
        200,
        torch.device("cpu"),
    )
    mixed = made.generator._mixed(
        w,
        torch.empty(200, 0),
        many,
        "generator",
    )
    own = (mixed == w[:, None]).all(2)
    counts = own.sum(1)
    layers = own.shape[1]

    # the first layer's is always the first's, and there is one crossover, at any layer
    assert own[:, 0].all()
    assert torch.equal(own, own.cummin(1).values)
    assert counts.unique().tolist() == list(range(1, layers + 1))
    assert 60 < (counts < layers).sum() < 140


def test_less_psi_is_nearer_to_the_mean_of_w() -> None:
    made = model()
    z = torch.randn(6, 8)
    made.generator.w_mean.copy_(torch.randn(8))
    w = made.to_w(z, NO_LABELS)
    wanted = made.generator.w_mean + 0.3 * (w - made.generator.w_mean)
    torch.testing.assert_close(made.to_w(z, NO_LABELS, 0.3), wanted)
    whole = sampling.images_of(made, z, NO_LABELS, 1.0)
    assert torch.equal(whole, made.sample(z, NO_LABELS))

    # and images become more alike
    spreads = []
    for psi in (0, 0.5, 1):
        images = sampling.images_of(made, z, NO_LABELS, psi)
        spreads.append(images.std(0).mean().item())
    assert spreads[0] < 1e-6
    assert spreads[0] < spreads[1] < spreads[2]


def test_the_mean_of_w_is_of_all_that_was_drawn_and_stays_where_nothing_was() -> None:
    made = model()
    z = torch.randn(6, 8)
    made.sample(z, NO_LABELS)
    made.after(0.0, lambda values: values)
    assert not made.generator.w_mean.any()
    made.generator(z, NO_LABELS, draws(), "generator")
    made.after(0.0, lambda values: values * 2)  # another rank drew the same
    mean = made.to_w(z, NO_LABELS).mean(0)
    torch.testing.assert_close(made.generator.w_mean, 0.002 * mean)


@pytest.mark.parametrize("output", ["skip", "residual"])
def test_both_outputs_reach_every_weight(output: str) -> None:
    made = model(
        output=output,
        mixing=0.9,
        conditions=["Mood"],
    )
    c = torch.eye(3).repeat(2, 1)
    images = made.generator(
        torch.randn(6, 8),
        c,
        draws(),
        "generator",
    )
    assert images.shape == (6, 3, 16, 24)
    logits = made.discriminator(images, c)
    logits.square().sum().backward()
    for name, weights in made.named_parameters():
        assert weights.grad.any(), name


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"depth": 1, "width": 0}, "width=0"),
        ({"mixing": 1.5}, r"mixing is 0 to 1"),
        ({"mapping_layers": 0}, "counts are at least 1"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        model(**options)


def adaptive(index: Index, folder: Path, toys: Any = None, kind: str = "", **changes: Any) -> Any:
    """A training with all that remembers: the mean of w, the length of paths, p."""
    kinds = [
        "x_flip",
        "rotation_90",
        "integer_translation",
        "scale",
        "rotation",
        "anisotropic",
    ]

    # each moves a buffer several times in six iterations
    task = make_task(
        index,
        folder,
        KIND,
        augment=kinds,
        **changes,
    )
    objective = {
        "name": "adversarial",
        "critic": {"name": "non_saturating"},
        "terms": {
            "r1": {
                "gamma": 1.0,
                "interval": 2,
            },
            "path_length": {
                "weight": 1.0,
                "decay": 0.5,
                "interval": 2,
            },
        },
        "strength": {
            "name": "adaptive",
            "rise_kimg": 0.1,
            "interval": 2,
            "target": -0.9,
        },
    }
    task.objective.update(objective)
    task.model.update(deviation_group=3)
    return task


def test_what_it_remembers_survives_a_break_and_is_that_of_any_ranks(
    index: Index, tmp_path: Path
) -> None:
    fit(adaptive(index, tmp_path / "one", precision="float64"), ALONE)
    fit(
        adaptive(index, tmp_path / "broken", precision="float64", should_stop=stop_after(3)), ALONE
    )
    fit(adaptive(index, tmp_path / "broken", precision="float64"), ALONE)
    one = newest(tmp_path / "one")
    assert same(vars(one), vars(newest(tmp_path / "broken")))
    assert one.own["strength.probability"] != 0
    assert one.own["remembering.path_length.average"] > 0
    assert one.networks["generator.w_mean"].any()

    run_ranks(
        2,
        tmp_path,
        index,
        [],
        False,
        (adaptive, None, ""),
    )
    two = newest(tmp_path / "two")
    assert same(vars(two), vars(newest(tmp_path / "parts")))
    alone = {**one.networks, **one.own}
    shared = {**two.networks, **two.own}
    for name, weights in alone.items():
        torch.testing.assert_close(
            shared[name],
            weights,
            rtol=0,
            atol=1e-9,
        )
