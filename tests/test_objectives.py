"""Losses against values known by hand or from torch.distributions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from facefactory import UserError, registry
from facefactory.draws import Draws
from facefactory.facts import Facts, Label
from facefactory.objectives import Batch
from facefactory.objectives.critics import Seen
from facefactory.training import Training, trainer

LN2 = math.log(2)
TERMS = "objectives.terms"
WEIGHTS = [
    (name, option)
    for name in registry.names(TERMS)
    for option in ("weight", "gamma")
    if option in registry.options(TERMS, name)
]


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def objective(name: str, schema: dict[str, Label] | None = None, **options: Any) -> Any:
    facts = Facts(4, 4, 2, schema or {})
    model = SimpleNamespace(z_dim=3)
    return registry.build("objectives", {"name": name, **options}, facts, model)


def batch_of(
    images: Tensor,
    labels: dict[str, Tensor] | None = None,
    augment: Callable[[Tensor, str], Tensor] = lambda found, purpose: found,
    iteration: int = 1,  # no lazy term is due
) -> Batch:
    """A batch whose normal draws are standard normals of a fixed generator per purpose."""

    class Known:
        @staticmethod
        def normal(purpose: str, columns: int) -> Tensor:
            return torch.randn(
                len(images), columns, generator=torch.Generator().manual_seed(len(purpose))
            )

    none = torch.empty(len(images), 0)
    draws: Any = Known
    return Batch(
        images,
        labels or {},
        none,
        none,
        iteration,
        0.0,
        draws,
        augment,
    )


def test_images_with_the_labels_of_others_count_as_fakes() -> None:
    images = torch.randn(3, 2, 4, 4)
    batch = dataclasses.replace(
        batch_of(images), c=torch.tensor([[1.0], [-1.0], [1.0]]), wrong=torch.ones(3, 1)
    )
    model = SimpleNamespace(discriminator=lambda shown, c: shown.mean((1, 2, 3)) + 2 * c[:, 0])
    term = registry.build(TERMS, {"name": "mismatch", "weight": {"0": 0.5}})
    assert term.weight(3.0) == 0.5
    assert term.trains == "discriminator"
    wanted = F.softplus(images.mean((1, 2, 3)) + 2) * torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(term(None, model, batch), wanted)


def test_auxiliary_heads_read_labels_of_real_images_and_of_generated_ones() -> None:
    schema = {
        "Glasses": Label("binary", ("0", "1")),
        "Hair": Label("categorical", ("a", "b", "c")),
    }
    model = SimpleNamespace(
        z_dim=3,
        conditions=("Glasses", "Hair"),
        feature_dim=2,
    )
    spec = {"name": "auxiliary", "weight": 0.5}
    term = registry.build(
        TERMS,
        spec,
        Facts(4, 4, 2, schema),
        model,
    )
    assert (term.trains, term.weight(1.0)) == ("both", 0.5)

    # logits of the two labels: 2 | 1, 0, -1
    with torch.no_grad():
        term.heads.weight.copy_(torch.tensor([[2.0, 0], [1.0, 0], [0, 0], [-1.0, 0]]))
        term.heads.bias.zero_()
    seen = Seen(
        IMAGES,
        IMAGES,
        IMAGES,
        IMAGES,
        features=torch.tensor([[1.0, 7.0]] * 3),
    )
    told = torch.tensor(
        [
            [1.0, 0, 0, 1.0],  # with glasses, of the third hair
            [-1.0, 1.0, 0, 0],
            [0, 0, 1.0, 0],  # nobody knows about glasses
        ]
    )
    batch = dataclasses.replace(batch_of(IMAGES[:3]), c=told)
    total = math.log(math.exp(1) + 1 + math.exp(-1))
    wanted = [softplus(-2) + total + 1, softplus(2) + total - 1, total]
    torch.testing.assert_close(term(seen, model, batch), torch.tensor(wanted))


def test_what_a_term_learns_learns_with_the_discriminator_alone() -> None:
    facts = Facts(
        16,
        16,
        1,
        {"Glasses": Label("binary", ("0", "1"))},
    )
    spec = {"name": "gan/resnet", "width": 4, "depth": 2, "conditions": ["Glasses"]}
    model = registry.build("models", spec, facts)
    wanted = {"name": "adversarial", "terms": {"auxiliary": {}}}
    made = registry.build("objectives", wanted, facts, model)
    assert [phase.modules for phase in made.phases] == [
        ("discriminator", "objective.remembering.auxiliary.heads"),
        ("generator",),
    ]
    images = torch.rand(4, 1, 16, 16) * 2 - 1
    none = dataclasses.replace(batch_of(images, iteration=0), c=torch.zeros(4, 1))
    told = dataclasses.replace(none, c=torch.ones(4, 1))
    for phase in ("discriminator", "generator"):
        assert made.loss(phase, model, none)[1]["auxiliary"] == 0
        assert made.loss(phase, model, told)[1]["auxiliary"] > 0


def test_a_term_for_conditions_is_refused_where_there_are_none() -> None:
    facts = Facts(
        16,
        16,
        1,
        {"Glasses": Label("binary", ("0", "1"))},
    )
    spec = {"name": "adversarial", "terms": {"mismatch": {}}}
    with pytest.raises(UserError, match="gan/facegen as it is: that has no conditions"):
        trainer.check({"name": "gan/facegen"}, spec, Training(), facts)
    told = {"name": "gan/facegen", "conditions": ["Glasses"]}
    trainer.check(told, spec, Training(), facts)


@pytest.mark.parametrize("rounds", [1, 3])
def test_refinement_is_the_mean_error_of_images_that_are_refined_again_and_again(
    rounds: int,
) -> None:
    images = torch.randn(5, 2, 4, 4)
    model = LinearGAN()
    model.refine = lambda shown, c: shown / 2  # type: ignore[assignment]
    batch = batch_of(images)
    plain, _ = objective("adversarial", terms={}).loss("generator", model, batch)
    value, shown = objective("refinement", weight=3.0, rounds=rounds).loss(
        "generator", model, batch
    )
    power = images.square().mean()
    wanted = sum((1 - 0.5**r) ** 2 for r in range(1, rounds + 1)) / rounds * power
    torch.testing.assert_close(shown["refined"], wanted)
    torch.testing.assert_close(value, plain + 3 * wanted)


class LinearGAN(nn.Module):
    """A generator z -> image and a discriminator w · x + b."""

    z_dim = 3

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.project, self.head = nn.Linear(3, 2 * 4 * 4), nn.Linear(2 * 4 * 4, 1)
        nn.init.normal_(self.head.weight, generator=torch.Generator().manual_seed(0))
        self.head.weight.data.mul_(scale)
        self.head.bias.data.zero_()

    def generator(self, z: Tensor, c: Tensor) -> Tensor:
        return self.project(z).view(-1, 2, 4, 4)

    def discriminator(self, images: Tensor, c: Tensor) -> Tensor:
        return self.head(images.flatten(1)).squeeze(1)


IMAGES = torch.rand(5, 2, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1


# -- adversarial -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "d_value", "g_value"),
    [
        ("non_saturating", 2 * LN2, LN2),
        ("hinge", 2.0, 0.0),
        ("least_squares", 0.5, 0.5),
        ("wasserstein", 0.0, 0.0),
        ("relativistic", LN2, LN2),
    ],
)
def test_adversarial_losses_where_the_discriminator_knows_nothing(
    kind: str, d_value: float, g_value: float
) -> None:
    model = LinearGAN(scale=0.0)
    made = objective("adversarial", critic=kind)
    d_loss, shown = made.loss("discriminator", model, batch_of(IMAGES))
    g_loss, _ = made.loss("generator", model, batch_of(IMAGES))
    assert d_loss.item() == pytest.approx(d_value)
    assert g_loss.item() == pytest.approx(g_value)
    assert shown["logits_real"] == shown["logits_fake"] == 0


def test_adversarial_losses_of_a_discriminator_that_is_right_or_wrong() -> None:
    class Sure(LinearGAN):
        sign = 1.0

        def discriminator(self, images: Tensor, c: Tensor) -> Tensor:
            return torch.where(images.flatten(1)[:, 0] == 9, 3.0, -3.0) * self.sign

    real = torch.full((4, 2, 4, 4), 9.0)
    model = Sure()
    right = {
        kind: objective("adversarial", critic=kind).loss("discriminator", model, batch_of(real))[0]
        for kind in ("hinge", "non_saturating")
    }
    assert right["hinge"] == 0
    assert right["non_saturating"].item() == pytest.approx(2 * math.log1p(math.exp(-3)))
    model.sign = -1.0
    wrong = {
        kind: objective("adversarial", critic=kind).loss("discriminator", model, batch_of(real))[0]
        for kind in ("hinge", "non_saturating")
    }
    assert wrong["hinge"] == 8
    assert wrong["non_saturating"].item() == pytest.approx(2 * math.log1p(math.exp(3)))
    assert (
        objective("adversarial", critic="hinge").loss("generator", model, batch_of(real))[0] == -3
    )


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("name", ["r1", "r2"])
def test_r1_and_r2_of_a_linear_discriminator_are_the_norm_of_its_weight(
    name: str, size: int
) -> None:
    model = LinearGAN()
    made = objective("adversarial", terms={name: {"gamma": 3.0, "interval": 4}})
    plain, _ = made.loss("discriminator", model, batch_of(IMAGES[:size], iteration=5))
    loss, shown = made.loss("discriminator", model, batch_of(IMAGES[:size], iteration=4))
    norm = model.head.weight.square().sum().item()
    assert (loss - plain).item() == pytest.approx(3.0 / 2 * 4 * norm)  # γ/2 · interval · ‖w‖²
    assert shown[name].item() == pytest.approx(norm)
    (gradient,) = torch.autograd.grad(loss - plain, model.head.weight)
    assert torch.allclose(
        gradient, 3.0 * 4 * model.head.weight, atol=1e-5
    )  # it is differentiable, as the phase needs


def test_r1_goes_through_the_augmentation() -> None:
    model = LinearGAN()
    halved = batch_of(IMAGES, augment=lambda images, purpose: images / 2)
    _, shown = objective("adversarial", terms={"r1": {"interval": 1}}).loss(
        "discriminator", model, halved
    )
    assert shown["r1"].item() == pytest.approx(model.head.weight.square().sum().item() / 4)


def test_the_relativistic_critic_compares_each_real_image_with_one_generated() -> None:
    model = LinearGAN()
    made = objective(
        "adversarial",
        critic="relativistic",
        terms={},
    )
    batch = batch_of(IMAGES)
    c = torch.empty(5, 0)
    real = model.discriminator(IMAGES, c)
    fake = model.discriminator(model.generator(batch.draws.normal("z_discriminator", 3), c), c)
    d_loss, _ = made.loss("discriminator", model, batch)
    assert d_loss.item() == pytest.approx(F.softplus(fake - real).mean().item(), rel=1e-6)
    fake = model.discriminator(model.generator(batch.draws.normal("z_generator", 3), c), c)
    g_loss, _ = made.loss("generator", model, batch)
    assert g_loss.item() == pytest.approx(F.softplus(real - fake).mean().item(), rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "d_values", "g_values"),
    [
        ("least_squares", [1.0, 2.0], [2.0, 0.5]),
        ("wasserstein", [-3.0, 1.0], [1.0, -2.0]),
        ("hinge", [0.0, 3.0], [1.0, -2.0]),
        ("relativistic", [softplus(-3), softplus(1)], [softplus(3), softplus(-1)]),
    ],
)
def test_critics_of_two_pairs_of_logits(
    kind: str, d_values: list[float], g_values: list[float]
) -> None:
    """Real and generated images at 2 and -1, then at 1 and 2."""
    seen = Seen(
        IMAGES,
        IMAGES,
        torch.tensor([2.0, 1.0]),
        torch.tensor([-1.0, 2.0]),
    )
    critic = registry.build("objectives.critics", {"name": kind})
    torch.testing.assert_close(critic.discriminator(seen), torch.tensor(d_values))
    torch.testing.assert_close(critic.generator(seen), torch.tensor(g_values))


class QuadraticGAN(LinearGAN):
    """A discriminator ½ a ‖x‖²: its gradient at x is a x."""

    def discriminator(self, images: Tensor, c: Tensor) -> Tensor:
        return self.head.bias * images.square().sum((1, 2, 3)) / 2


@pytest.mark.parametrize("name", ["r1", "r2"])
def test_r1_and_r2_of_a_quadratic_discriminator_are_its_images(name: str) -> None:
    model = QuadraticGAN()
    model.head.bias.data.fill_(3.0)
    batch = batch_of(IMAGES, iteration=0)
    made = objective("adversarial", terms={name: {"gamma": 2.0, "interval": 1}})
    plain, _ = objective("adversarial", terms={}).loss("discriminator", model, batch)
    loss, shown = made.loss("discriminator", model, batch)
    fake = model.generator(batch.draws.normal("z_discriminator", 3), batch.c)
    images = IMAGES if name == "r1" else fake.detach()
    norm = images.square().sum((1, 2, 3)).mean()
    torch.testing.assert_close(shown[name], 9 * norm)
    (gradient,) = torch.autograd.grad(loss - plain, model.head.bias)
    torch.testing.assert_close(gradient, 2 / 2 * 2 * 3 * norm.view(1))  # of γ/2 a² ‖x‖²


def draws_of(size: int, device: str = "cpu") -> Draws:
    return Draws(
        seed=0,
        clock=0,
        batch_size=size,
        lo=0,
        hi=size,
        device=torch.device(device),
    )


@pytest.mark.parametrize(("name", "wanted"), [("gradient_penalty", 1.0), ("dragan", 0.5)])
def test_slopes_of_a_linear_discriminator_are_the_norm_of_its_weight(
    name: str, wanted: float
) -> None:
    model = LinearGAN()
    options = {"slope": wanted} if name == "dragan" else {}
    spec = {name: {"weight": 3.0, "interval": 4, **options}}
    made = objective(
        "adversarial",
        critic="wasserstein",
        terms=spec,
    )
    batch = dataclasses.replace(batch_of(IMAGES, iteration=4), draws=draws_of(5))
    plain, _ = made.loss("discriminator", model, dataclasses.replace(batch, iteration=5))
    loss, shown = made.loss("discriminator", model, batch)
    weight = model.head.weight
    norm = weight.norm()
    torch.testing.assert_close(shown[name], (norm - wanted).square())
    torch.testing.assert_close(loss - plain, 3 * 4 * (norm - wanted).square())
    (gradient,) = torch.autograd.grad(loss - plain, weight)
    torch.testing.assert_close(gradient, 3 * 4 * 2 * (norm - wanted) * weight / norm)


def test_slopes_are_taken_between_the_pairs_and_around_real_images() -> None:
    model = QuadraticGAN()
    model.head.bias.data.fill_(1.0)
    batch = dataclasses.replace(batch_of(IMAGES), draws=draws_of(5))
    seen = Seen(
        IMAGES,
        -IMAGES,
        torch.zeros(5),
        torch.zeros(5),
    )
    length = IMAGES.flatten(1).norm(dim=1)

    # between x and -x lies (2ε - 1) x
    penalty = registry.build(TERMS, {"name": "gradient_penalty"})
    share = batch.draws.uniform("gradient_penalty", 1)[:, 0]
    assert share.min() < 0.5 < share.max()
    between = ((2 * share - 1).abs() * length - 1).square()
    torch.testing.assert_close(penalty(seen, model, batch), between)

    # noise adds to the squares: E‖x + δ‖² = ‖x‖² + 32 noise²
    for noise in (0.0, 10.0):
        term = registry.build(TERMS, {"name": "dragan", "noise": noise, "slope": 0.0})
        squared = term(seen, model, batch).mean()
        wanted = length.square().mean() + 32 * noise**2
        torch.testing.assert_close(
            squared,
            wanted,
            rtol=0.2 if noise else 1e-6,
            atol=0.0,
        )


def test_lecam_holds_logits_near_the_average_of_the_other_kind() -> None:
    term = registry.build(TERMS, {"name": "lecam", "weight": 0.3, "decay": 0.75})
    assert term.weight(0.0) == 0.3
    batch = batch_of(IMAGES)
    real = torch.tensor([3.0, 1.0], requires_grad=True)
    seen = Seen(
        IMAGES,
        IMAGES,
        real,
        torch.tensor([-2.0, 0.0]),
    )
    first = term(seen, None, batch)  # both averages are 0
    assert first.tolist() == [9.0 + 4.0, 1.0 + 0.0]
    term.after(0.0, lambda values: values * 2)  # another rank saw the same
    assert term.averages.tolist() == [0.25 * 2, 0.25 * -1]
    second = term(seen, None, batch)
    assert second.tolist() == [3.25**2 + 2.5**2, 1.25**2 + 0.5**2]
    (gradient,) = torch.autograd.grad(second.sum(), real)
    assert gradient.tolist() == [2 * 3.25, 2 * 1.25]

    # what it remembers is the objective's
    made = objective("adversarial", terms={"lecam": {}, "r1": {}})
    assert [tuple(value.shape) for value in made.state_dict().values()] == [(2,)]
    made.loss("discriminator", LinearGAN(), batch)
    made.after(0.0, lambda values: values)
    assert bool((made.terms["lecam"].averages != 0).all())


def test_consistency_is_how_differently_mirror_images_are_judged() -> None:
    model = LinearGAN()
    c = torch.empty(5, 0)
    fake = IMAGES / 2
    seen = Seen(
        IMAGES,
        fake,
        model.discriminator(IMAGES, c),
        model.discriminator(fake, c),
    )
    term = registry.build(TERMS, {"name": "consistency"})
    change = model.discriminator(IMAGES.flip(3) - IMAGES, c)
    wanted = change.square() * (1 + 0.5**2)
    torch.testing.assert_close(term(seen, model, batch_of(IMAGES)), wanted)
    even = (IMAGES + IMAGES.flip(3)) / 2
    logits = model.discriminator(even, c)
    seen = Seen(even, even, logits, logits)
    assert term(seen, model, batch_of(even)).abs().max() < 1e-9
    doubled = batch_of(even, augment=lambda images, purpose: 2 * images)
    assert term(seen, model, doubled).min() > 0


class LinearInW(nn.Module):
    """A generator whose image is A w, w = 2 z: with orthonormal columns of A, ‖Aᵀy‖ is the norm of part of y."""

    z_dim = 3

    def __init__(self) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(2)
        self.weight = nn.Parameter(torch.randn(3, 2 * 4 * 4, generator=draws))
        self.generator = self

    def to_w(self, z: Tensor, c: Tensor) -> Tensor:
        return (2 * z).requires_grad_()

    mapping = to_w

    def synthesis(self, w: Tensor, draws: Any, purpose: str) -> Tensor:
        return (w @ self.weight).view(-1, 2, 4, 4)


def test_path_lengths_of_a_generator_that_is_linear_in_w_are_known() -> None:
    model = LinearInW()
    term = registry.build(TERMS, {"name": "path_length", "decay": 0.75, "interval": 8})
    assert term.trains == "generator"
    assert term.interval == 8
    assert term.weight(0.0) == 2.0
    batch = batch_of(IMAGES)
    y = batch.draws.normal("path_length", 32) / 4  # √(4 · 4)
    lengths = (y @ model.weight.T).norm(dim=1)

    # the average is 0, then a quarter of what all ranks saw
    torch.testing.assert_close(term(None, model, batch), lengths.square())
    term.after(0.0, lambda values: values * 2)
    torch.testing.assert_close(term.average, lengths.mean().detach() / 4)
    term.after(0.0, lambda values: values)  # an iteration in which it was not due
    torch.testing.assert_close(term.average, lengths.mean().detach() / 4)
    value = term(None, model, batch)
    torch.testing.assert_close(value, (lengths - term.average).square())

    # it is differentiable, as the phase needs
    known = (lengths - term.average).square()
    (found,) = torch.autograd.grad(value.sum(), model.weight)
    (wanted,) = torch.autograd.grad(known.sum(), model.weight)
    torch.testing.assert_close(found, wanted)


def test_path_length_is_refused_where_there_is_no_w() -> None:
    facts = Facts(16, 16, 1)
    spec = {"name": "adversarial", "terms": {"path_length": {}}}
    with pytest.raises(UserError, match="gan/dcgan as it is: that has no to_w"):
        trainer.check(
            {"name": "gan/dcgan", "depth": 2},
            spec,
            Training(),
            facts,
        )
    trainer.check(
        {"name": "gan/stylegan2", "depth": 2},
        spec,
        Training(),
        facts,
    )


@pytest.mark.parametrize(
    ("share", "wanted"),
    [
        (1.0, 0.4),
        (0.85, 0.4),
        (0.75, 0.0),
        (0.0, 0.0),
    ],
)
def test_adaptive_strength_moves_at_its_speed_towards_its_target(
    share: float, wanted: float
) -> None:
    """20 images an iteration, `share` of them called real: r = 2 share - 1; 400 of 1000 images are seen."""
    options = {"name": "adaptive", "rise_kimg": 1.0, "interval": 4}
    strength = registry.build("objectives.strengths", options)
    logits = torch.where(torch.arange(20) < 20 * share, 1.0, -1.0)
    course = []
    for _ in range(20):
        strength.see(logits[:10])
        strength.see(logits[10:])
        strength.after(0.0, lambda values: values)
        course.append(strength.p(0.0).item())
    assert course[-1] == pytest.approx(wanted)
    if wanted:
        assert course[:8] == pytest.approx([0, 0, 0, 0.08, 0.08, 0.08, 0.08, 0.16])

    # it goes back as fast, and no further than to 0
    for _ in range(24):
        strength.see(-logits.abs())
        strength.after(0.0, lambda values: values)
    assert strength.p(0.0) == 0


def test_ranks_move_the_strength_together_and_it_has_a_ceiling() -> None:
    options = {
        "name": "adaptive",
        "rise_kimg": 0.1,
        "interval": 2,
        "most": 0.5,
    }
    alone = registry.build("objectives.strengths", options)
    shared = registry.build("objectives.strengths", options)
    for number in range(5):
        alone.see(torch.ones(16))
        shared.see(torch.ones(8))
        alone.after(0.0, lambda values: values)
        shared.after(0.0, lambda values: values * 2)
        moves = (number + 1) // 2
        assert alone.p(0.0).item() == pytest.approx(min(0.5, 0.32 * moves))
        kept = alone.state_dict()
        assert kept.keys() == {"probability", "seen", "iterations"}
        for name, value in shared.state_dict().items():
            assert torch.equal(value, kept[name])


def test_the_strength_reaches_every_image_that_is_judged() -> None:
    shares: list[Any] = []

    def augment(images: Tensor, purpose: str, p: Any = 1.0) -> Tensor:
        shares.append(p)
        return images

    scheduled = {"name": "scheduled", "p": {"0": 0.25, "1": 0.75}}
    made = objective("adversarial", strength=scheduled)
    for phase in made.phases:
        _, shown = made.loss(phase.name, LinearGAN(), batch_of(IMAGES, augment=augment))
        assert shown["augment_p"] == 0.25
    assert shares == [0.25] * 3

    # D is sure of its real images: p rises
    adaptive = {"name": "adaptive", "rise_kimg": 0.01, "interval": 1}
    made = objective("adversarial", strength=adaptive)
    model = LinearGAN(scale=0.0)
    model.head.bias.data.fill_(1.0)
    for wanted in (0.0, 0.5, 1.0):
        _, shown = made.loss("discriminator", model, batch_of(IMAGES, augment=augment))
        made.after(0.0, lambda values: values)
        assert shown["augment_p"] == wanted
    assert made.state_dict()["strength.probability"] == 1

    with pytest.raises(UserError, match=r"scheduled: p=1\.5; allowed are 0 to 1"):
        objective("adversarial", strength={"name": "scheduled", "p": 1.5})


@pytest.mark.parametrize("value", [-1.0, {"0": 1.0, "5": -0.1}], ids=str)
@pytest.mark.parametrize(("name", "option"), WEIGHTS)
def test_a_term_refuses_a_weight_below_zero(name: str, option: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"{name}: .*{option}="):
        registry.build(
            TERMS,
            {"name": name, option: value},
            Facts(4, 4, 2, {}),
            LinearGAN(),
        )


def test_each_phase_trains_only_its_own_network() -> None:
    model = LinearGAN()
    made = objective("adversarial")
    made.loss("discriminator", model, batch_of(IMAGES))[0].backward()
    assert model.project.weight.grad is None
    assert model.head.weight.grad is not None
    made.loss("generator", model, batch_of(IMAGES))[0].backward()
    assert model.project.weight.grad.abs().sum() > 0


def test_real_and_fake_images_are_augmented_by_separate_draws() -> None:
    purposes: list[str] = []
    batch = batch_of(IMAGES, augment=lambda images, purpose: purposes.append(purpose) or images)
    made = objective("adversarial")
    for phase in made.phases:
        made.loss(phase.name, LinearGAN(), batch)
    assert len(purposes) == len(set(purposes)) == 3


def test_phases_say_what_is_trained_and_terms_when() -> None:
    made = objective("adversarial", terms={"r1": {"interval": 16}})
    assert {phase.name: phase.modules for phase in made.phases} == {
        "discriminator": ("discriminator",),
        "generator": ("generator",),
    }
    due = [
        "r1" in made.loss("discriminator", LinearGAN(), batch_of(IMAGES, iteration=number))[1]
        for number in range(33)
    ]
    assert [number for number, is_due in enumerate(due) if is_due] == [0, 16, 32]


# -- evidence lower bound --------------------------------------------------------------------------------------------


class KnownVAE(nn.Module):
    """A posterior and a decoder that are known."""

    def __init__(self, count: int, z_dim: int = 3) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(4)
        self.z_dim = z_dim
        self.mu, self.logvar = (torch.randn(count, z_dim, generator=draws) for _ in range(2))

    def encode(self, images: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return self.mu.to(images), self.logvar.to(images)

    def decode(self, z: Tensor, c: Any = None) -> Tensor:
        return torch.tanh(z).sum(dim=1).view(-1, 1, 1, 1) * torch.ones(1, 2, 4, 4, dtype=z.dtype)


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_elbo_is_that_of_torch_distributions(
    beta: float, dtype: torch.dtype, precision: float
) -> None:
    model = KnownVAE(5)
    batch = batch_of(IMAGES.to(dtype))
    loss, shown = objective("elbo", beta=beta, likelihood={"name": "gaussian", "sigma": 0.3}).loss(
        "vae", model, batch
    )
    posterior = Normal(model.mu.double(), (model.logvar.double() / 2).exp())
    kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum(dim=1).mean()
    z = posterior.mean + posterior.scale * batch.draws.normal("posterior", 3)
    nll = -Normal(model.decode(z), 0.3).log_prob(IMAGES.double()).sum(dim=(1, 2, 3)).mean()
    assert loss.dtype == dtype
    assert shown["kl_nats"].item() == pytest.approx(kl.item(), rel=precision)
    assert shown["reconstruction_nats"].item() == pytest.approx(nll.item(), rel=precision)
    assert shown["neg_elbo_nats"].item() == pytest.approx((nll + kl).item(), rel=precision)
    assert loss.item() == pytest.approx((nll + beta * kl).item(), rel=precision)


def test_kl_is_zero_where_the_posterior_is_the_prior() -> None:
    model = KnownVAE(5)
    model.mu, model.logvar = torch.zeros(5, 3), torch.zeros(5, 3)
    _, shown = objective("elbo").loss("vae", model, batch_of(IMAGES))
    assert shown["kl_nats"] == 0


# -- classification --------------------------------------------------------------------------------------------------

SCHEMA = {
    "Glasses": Label("binary", ("0", "1")),
    "Who": Label("identity", ("a", "b", "c")),
    "Score": Label("real"),
}
LABELS = {
    "Glasses": torch.tensor([1, -1, 0, 1]),
    "Who": torch.tensor([-1, -1, 2, -1]),
    "Score": torch.rand(4),
}


class KnownClassifier(nn.Module):
    """Logits that are known."""

    def __init__(self) -> None:
        super().__init__()
        self.glasses = nn.Parameter(torch.tensor([[0.0, 0.0], [5.0, 1.0], [1.0, 0.0], [0.0, 2.0]]))
        self.who = nn.Parameter(torch.zeros(4, 3))

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        return {"Glasses": self.glasses.to(images), "Who": self.who.to(images)}


def test_classification_is_the_cross_entropy_counted_by_hand() -> None:
    loss, shown = objective("classification", SCHEMA).loss(
        "classifier", KnownClassifier(), batch_of(IMAGES[:4], LABELS)
    )
    glasses = (
        LN2 + math.log1p(math.exp(-1)) + math.log1p(math.exp(-2))
    ) / 4  # three labelled of four images
    who = math.log(3) / 4  # one labelled of four
    assert shown["nats_Glasses"].item() == pytest.approx(glasses)
    assert shown["nats_Who"].item() == pytest.approx(who)
    assert loss.item() == pytest.approx((glasses + who) / 2)


def test_identity_has_its_own_weight() -> None:
    made = objective("classification", SCHEMA, identity_weight=0.5)
    loss, shown = made.loss("classifier", KnownClassifier(), batch_of(IMAGES[:4], LABELS))
    assert loss.item() == pytest.approx(
        ((shown["nats_Glasses"] + 0.5 * shown["nats_Who"]) / 1.5).item()
    )


def test_an_image_without_a_label_teaches_nothing_about_it() -> None:
    model = KnownClassifier()
    objective("classification", SCHEMA).loss("classifier", model, batch_of(IMAGES[:4], LABELS))[
        0
    ].backward()
    assert model.glasses.grad[1].abs().sum() == 0
    assert model.glasses.grad[0].abs().sum() > 0
    assert [row.abs().sum().item() > 0 for row in model.who.grad] == [False, False, True, False]


def test_a_label_nobody_has_costs_nothing_and_stays_finite() -> None:
    nobody = {name: torch.full((4,), -1) for name in ("Glasses", "Who")}
    loss, _ = objective("classification", SCHEMA).loss(
        "classifier", KnownClassifier(), batch_of(IMAGES[:4], nobody)
    )
    assert loss == 0


def test_parts_of_a_batch_average_to_the_whole_wherever_labels_are_missing() -> None:
    made = objective("classification", SCHEMA)
    model = KnownClassifier()
    whole = made.loss("classifier", model, batch_of(IMAGES[:4], LABELS))[0]

    class Half(KnownClassifier):
        rows = slice(0, 2)

        def logits(self, images: Tensor) -> dict[str, Tensor]:
            return {name: found[self.rows] for name, found in model.logits(images).items()}

    parts = []
    for rows in (slice(0, 2), slice(2, 4)):
        Half.rows = rows
        labels = {name: column[rows] for name, column in LABELS.items()}
        parts.append(made.loss("classifier", Half(), batch_of(IMAGES[rows], labels))[0])
    assert sum(parts).item() / 2 == pytest.approx(whole.item())


def test_classification_keeps_the_precision_it_is_given() -> None:
    loss, _ = objective("classification", SCHEMA).loss(
        "classifier", KnownClassifier(), batch_of(IMAGES[:4].double(), LABELS)
    )
    assert loss.dtype == torch.float64
    target = LABELS["Glasses"]
    expected = (
        F.cross_entropy(
            KnownClassifier().glasses.double(), target, ignore_index=-1, reduction="sum"
        )
        / 4
    )
    assert loss.item() == pytest.approx((expected.item() + math.log(3) / 4) / 2, rel=1e-12)


# -- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("objectives.terms/r1", "interval", 0),
        ("objectives.terms/r1", "gamma", -1.0),
        ("objectives.terms/r2", "gamma", -1.0),
        ("objectives.likelihoods/gaussian", "sigma", 0.0),
        ("objectives.likelihoods/gaussian_learned", "least", 0.0),
        ("objectives.likelihoods/laplace", "scale", 0.0),
        ("objectives.likelihoods/logistic", "scale", -1.0),
        ("objectives/elbo", "beta", -1.0),
    ],
)
def test_impossible_options_are_refused(name: str, option: str, value: float) -> None:
    package, _, component = name.partition("/")
    with pytest.raises(UserError, match=rf"{option}={value}"):
        registry.build(
            package, {"name": component, option: value}, Facts(4, 4, 2), SimpleNamespace(z_dim=3)
        )


def test_a_classifier_without_labels_is_refused() -> None:
    with pytest.raises(UserError, match="label"):
        objective("classification", {"Score": Label("real")})
