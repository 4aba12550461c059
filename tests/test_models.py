"""Networks: shapes, ranges, seeds — for every model file there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from registered import without_batch_norm

from facefactory import UserError, checkpoint, registry
from facefactory.facts import Facts, Label
from facefactory.models._layers import smallest

CLASSES = {"Glasses": 2, "Person": 7}
every_model = pytest.mark.parametrize("name", registry.names("models"))


def facts(
    side: int = 16, channels: int = 1, width: int = 0, classes: dict[str, int] = CLASSES
) -> Facts:
    labels = {
        name: Label("categorical", tuple(map(str, range(count))))
        for name, count in classes.items()
    }
    return Facts(side, width or side, channels, labels)


def conditions(model: Any, count: int) -> torch.Tensor:
    return torch.zeros(count, sum(CLASSES[name] for name in model.conditions))


def build(name: str, known: Facts, seed: int = 0, **wanted: Any) -> Any:
    """A small model; options it does not have are left out."""
    options = registry.options("models", name)
    given = {key: value for key, value in {"width": 8, **wanted}.items() if key in options}
    return checkpoint.build({"name": name, **given}, known, seed).eval()


def with_option(option: str) -> Any:
    return pytest.mark.parametrize(
        "name", [n for n in registry.names("models") if option in registry.options("models", n)]
    )


def check(model: Any, known: Facts) -> None:
    """Whatever a model offers has the shapes and ranges of its contract; it offers something."""
    images = torch.rand(3, known.channels, known.height, known.width) * 2 - 1
    offers = [hasattr(model, offer) for offer in ("sample", "discriminator", "encode", "logits")]
    assert any(offers)
    with torch.no_grad():
        if hasattr(model, "sample"):
            drawn = model.sample(torch.randn(3, model.z_dim), conditions(model, 3))
            assert drawn.shape == images.shape
            assert drawn.abs().max() <= 1
            assert not torch.equal(drawn[0], drawn[1])
        if hasattr(model, "discriminator"):
            assert model.discriminator(images, conditions(model, 3)).shape == (3,)
        if hasattr(model, "encode"):
            mu, logvar = model.encode(images, conditions(model, 3))
            assert mu.shape == logvar.shape == (3, model.z_dim)
            decoded = model.decode(mu, conditions(model, 3))
            assert decoded.shape == images.shape
            assert decoded.abs().max() <= 1
        if hasattr(model, "logits"):
            assert {label: found.shape for label, found in model.logits(images).items()} == {
                label: (3, count) for label, count in CLASSES.items()
            }
            features = model.features(images)
            assert features.ndim == 2
            assert len(features) == 3


@every_model
@pytest.mark.parametrize(
    ("side", "channels", "width"),
    [(16, 1, 16), (16, 3, 16), (32, 1, 32), (32, 3, 32), (48, 3, 32)],
)
def test_outputs_have_the_images_shape_and_range(
    name: str, side: int, channels: int, width: int
) -> None:
    known = facts(side, channels, width)
    check(build(name, known), known)


@with_option("conditions")
@pytest.mark.parametrize("chosen", [["Glasses"], ["Person", "Glasses"]])
def test_conditions_reach_every_output(name: str, chosen: list[str]) -> None:
    known = facts(16, 3, 32)
    model = build(name, known, conditions=chosen)
    check(model, known)
    z = torch.randn(32, model.z_dim)  # many: words of a codebook change at some z only
    c = conditions(model, 2)
    c[1, -1] = 1
    with torch.no_grad():
        drawn = model.sample(z, c[:1].expand(32, -1))
        assert not torch.allclose(drawn, model.sample(z, c[1:].expand(32, -1)))
        if hasattr(model, "discriminator"):
            logits = model.discriminator(drawn[:1].expand(2, -1, -1, -1), c)
            assert not torch.allclose(logits[0], logits[1])


@with_option("conditions")
def test_features_that_a_discriminator_shows_know_no_labels(name: str) -> None:
    model = build(
        name,
        facts(16, 3, 32),
        conditions=["Glasses"],
        attributes="head",
    )
    if not getattr(model, "feature_dim", ()):
        return
    images = torch.rand(2, 3, 16, 32) * 2 - 1
    c = conditions(model, 2)
    with torch.no_grad():
        logits, features = model.discriminator(images, c, True)
        assert features.shape == (2, model.feature_dim)
        assert torch.equal(features, model.discriminator(images, c + 1, True)[1])
        assert torch.equal(logits, model.discriminator(images, c))


@pytest.mark.parametrize(
    ("place", "pairs"),
    [
        ("head", False),
        ("input", True),
        ("both", True),
    ],
)
def test_attributes_at_the_last_layer_alone_judge_no_pairs(place: str, pairs: bool) -> None:
    model = build(
        "gan/facegen",
        facts(),
        conditions=["Glasses"],
        depth=2,
        attributes=place,
    )
    images = torch.rand(2, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        with_first, with_second = [
            model.discriminator(images, c.expand(2, -1)) for c in torch.eye(2)[:, None]
        ]
    gains = with_first - with_second  # of the same image, by another attribute
    assert torch.allclose(gains[0], gains[1], atol=1e-5) is not pairs


@with_option("kernel")
@pytest.mark.parametrize("kernel", [3, 4, 5, 6, 7])
def test_every_allowed_kernel_fits(name: str, kernel: int) -> None:
    for size in (16, 21):
        check(build(name, facts(size), kernel=kernel), facts(size))


@with_option("kernel")
@pytest.mark.parametrize("kernel", [2, 8])
def test_other_kernels_are_refused(name: str, kernel: int) -> None:
    with pytest.raises(UserError, match=rf"kernel={kernel}; allowed are 3 to 7 pixels"):
        build(name, facts(), kernel=kernel)


@with_option("depth")
@pytest.mark.parametrize(
    ("side", "depth", "most"),
    [
        (16, 0, 3),
        (16, 4, 3),
        (16, 9, 3),
        (4, 2, 1),
    ],
)
def test_an_impossible_depth_is_refused(name: str, side: int, depth: int, most: int) -> None:
    told = rf"{name}: depth={depth} for images of {side}x{side} pixels .* allowed are 1 to {most}"
    with pytest.raises(UserError, match=told):
        build(name, facts(side), depth=depth)


@with_option("depth")
@pytest.mark.parametrize(
    ("side", "depth"),
    [
        (16, 1),
        (16, 3),
        (20, 3),
        (23, 3),
    ],
)
def test_every_possible_depth_fits(name: str, side: int, depth: int) -> None:
    try:
        model = build(name, facts(side), depth=depth)
    except UserError as error:  # of networks that halve without a rest
        assert side % 2**depth and "sides that are multiples of 8" in str(error)
        return
    check(model, facts(side))


def test_stages_gives_the_smallest_side() -> None:
    assert [smallest(facts(32), depth) for depth in (1, 2, 3, 4)] == [
        (16, 16),
        (8, 8),
        (4, 4),
        (2, 2),
    ]
    assert smallest(facts(48, 1, 32), 3) == (6, 4)
    assert [smallest(facts(218, 3, 178), 3, kernel) for kernel in (4, 5)] == [(27, 22), (28, 23)]


@every_model
def test_the_seed_decides_the_weights_and_nothing_else_is_touched(name: str) -> None:
    before = torch.get_rng_state()
    first = build(name, facts(), seed=1).state_dict()
    torch.randn(5)
    again = build(name, facts(), seed=1).state_dict()
    other = build(name, facts(), seed=2).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    torch.set_rng_state(before)
    build(name, facts())
    assert torch.equal(torch.get_rng_state(), before)


@every_model
def test_without_batch_norm_an_image_does_not_see_its_batch(name: str) -> None:
    model = build(known=facts(), **without_batch_norm({"name": name})).train()
    images = torch.rand(4, 1, 16, 16)
    z = torch.randn(4, getattr(model, "z_dim", 1))
    for method, inputs in (
        ("sample", z),
        ("discriminator", images),
        ("decode", z),
        ("features", images),
    ):
        if hasattr(model, method):
            c = [conditions(model, 4)] if method != "features" else []
            whole = getattr(model, method)(inputs, *c)
            part = getattr(model, method)(inputs[:2], *(one[:2] for one in c))
            assert torch.allclose(whole[:2], part, atol=1e-5), method


@with_option("width")
@pytest.mark.parametrize("width", [0, -4])
def test_an_impossible_width_is_refused(name: str, width: int) -> None:
    with pytest.raises(UserError, match=rf"width={width}"):
        build(name, facts(), width=width)


@with_option("conditions")
def test_a_model_may_be_told_labels(name: str) -> None:
    model = build(
        name,
        facts(),
        conditions=["Person", "Glasses"],
    )
    assert model.conditions == ("Person", "Glasses")
    check(model, facts())
    z = torch.randn(16, model.z_dim)
    images = torch.rand(16, 1, 16, 16)
    for method, inputs in (("sample", z), ("decode", z), ("encode", images)):
        if hasattr(model, method):
            found = [getattr(model, method)(inputs, c + torch.zeros(16, 9)) for c in (0.0, 9.0)]
            pairs = zip(*found, strict=True) if method == "encode" else [found]
            assert not all(torch.equal(one, other) for one, other in pairs)
    with pytest.raises(UserError, match="the set has no label 'Hat'"):
        build(name, facts(), conditions=["Hat"])


NAMES = [
    "hair.color",
    "type",
    "training",
    "forward",
    "add_module",
    "keys",
    "_modules",
    "",
    ".",
    "a/b",
    "a\nb",
    "真",
    "label 1",
    "file",
]


@with_option("feature_dim")
def test_a_label_may_have_any_name(name: str) -> None:
    classes = {label: 2 + number for number, label in enumerate([*CLASSES, *NAMES])}
    model = build(name, facts(classes=classes))
    images = torch.rand(3, 1, 16, 16) * 2 - 1
    logits = model.logits(images)
    assert {label: found.shape[1] for label, found in logits.items()} == classes
    again = build(name, facts(classes=classes), seed=1)
    again.load_state_dict(model.state_dict())
    assert all(torch.equal(found, logits[label]) for label, found in again.logits(images).items())
    plain = build(
        name,
        facts(classes={f"label_{number}": count for number, count in enumerate(classes.values())}),
    )
    assert all(
        torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True)
    )


# -- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.names("models"))
def test_parameters_are_counted_without_building(name: str) -> None:
    built = checkpoint.build({"name": name}, facts())
    state = torch.get_rng_state()
    assert checkpoint.parameters({"name": name}, facts()) == sum(
        weights.numel() for weights in built.parameters()
    )
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("width", [10**9, 10**18])
def test_a_network_beyond_memory_is_refused_before_it_is_built(width: int) -> None:
    told = rf"gan/dcgan .* has more than 9e18 parameters .*; this machine has .* GB: width={width} is too large, width=\d+ would fit"
    with pytest.raises(UserError, match=told):
        checkpoint.build({"name": "gan/dcgan", "width": width}, facts())


def test_a_number_beyond_64_bits_is_refused() -> None:
    with pytest.raises(UserError, match=r"width is 1000.*is too large: whole numbers reach"):
        checkpoint.build({"name": "gan/dcgan", "width": 10**30}, facts())


def test_the_option_that_would_fit_is_the_greatest_power_of_two() -> None:
    def needed(width: int) -> float:
        count = checkpoint.parameters({"name": "gan/dcgan", "width": width}, facts())
        assert count is not None
        return 5 * 4 * count + 1000

    room = needed(64)
    told = (
        r"needs [0-9.]+ GB; the profile has [0-9.]+ GB: width=100 is too large, width=64 would fit"
    )
    with pytest.raises(UserError, match=told):
        checkpoint.require_memory(
            {"name": "gan/dcgan", "width": 100}, facts(), 5, 1000, room, "the profile"
        )
    checkpoint.require_memory(
        {"name": "gan/dcgan", "width": 64},
        facts(),
        5,
        1000,
        room,
    )


def test_a_model_whose_code_cannot_be_counted_is_built(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n\n\nclass Component(torch.nn.Module):\n    def __init__(self, facts, *, width: int = 3):\n        super().__init__()\n"
        "        self.scale = torch.nn.Parameter(torch.ones(int(torch.ones(1).sum().item()) * width))\n"
    )
    assert checkpoint.parameters({"name": str(path)}, facts()) is None
    assert checkpoint.build({"name": str(path)}, facts()).scale.shape == (3,)
