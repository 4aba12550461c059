"""What codes cost, against closed forms on normals; and that it costs the same however a batch is cut."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import test_training
import torch
from registered import FACTS, FIRST, TRAININGS
from test_training import ALONE, make_task, newest, run_ranks, same
from torch import Tensor, nn

from facefactory import UserError, registry
from facefactory.data.sets.index import Index
from facefactory.draws import Draws
from facefactory.facts import Facts
from facefactory.objectives import Batch
from facefactory.objectives import _memory as memories
from facefactory.objectives._variational import Coded
from facefactory.objectives.beta_tc import densities, log_normal
from facefactory.objectives.dip import covariance
from facefactory.objectives.info import kernel_means
from facefactory.training.trainer import fit

LN2 = math.log(2)
MIXED = torch.tensor([[0.9, 0.0, 0.0], [0.6, 0.5, 0.0], [-0.2, 0.3, 0.7]]).double()
NOISE = 0.4  # deviation of each posterior


def rand(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(
        *shape,
        generator=generator,
        dtype=torch.float64,
    )


def coded(mu: Tensor, deviation: float = NOISE, seed: int = 5) -> Coded:
    logvar = torch.full_like(mu, 2 * math.log(deviation))
    return Coded(mu, logvar, mu + deviation * rand(*mu.shape, seed=seed))


def draws(lo: int, hi: int, size: int) -> Draws:
    return Draws(
        0,
        0,
        size,
        lo,
        hi,
        torch.device("cpu"),
        torch.float64,
    )


def batch(images: Tensor, set_size: int = 100, where: Draws | None = None) -> Batch:
    none = torch.empty(
        len(images),
        0,
        dtype=images.dtype,
    )
    known = where or draws(0, len(images), len(images))
    return Batch(
        images,
        {},
        none,
        none,
        1,
        0.0,
        known,
        lambda found, purpose: found,
        set_size,
    )


def remembered(codes: Coded) -> memories.Memory:
    """A memory of just these codes."""
    count, z_dim = codes.mu.shape
    made = memories.Memory(count, z_dim).double()
    made.add(codes, draws(0, count, count))
    made.turn(lambda values: values)
    return made


def objective(name: str, z_dim: int = 3, **options: Any) -> Any:
    model = SimpleNamespace(z_dim=z_dim)
    return registry.build("objectives", {"name": name, **options}, Facts(4, 4, 2), model).double()


# -- memory ----------------------------------------------------------------------------------------


def test_a_memory_holds_the_newest_codes_in_the_order_of_the_global_batch() -> None:
    whole, parts = (memories.Memory(10, 2).double() for _ in range(2))
    for turn in range(3):
        codes = coded(rand(6, 2, seed=turn))
        whole.add(codes, draws(0, 6, 6))
        for lo, hi in ((4, 6), (0, 3), (3, 4)):
            part = Coded(codes.mu[lo:hi], codes.logvar[lo:hi], codes.z[lo:hi])
            parts.add(part, draws(lo, hi, 6))
        whole.turn(lambda values: values)
        parts.turn(lambda values: values)
    assert same(dict(whole.state_dict()), dict(parts.state_dict()))
    assert torch.equal(whole.mu[-6:], rand(6, 2, seed=2))
    assert torch.equal(whole.mu[:4], rand(6, 2, seed=1)[2:])


def test_before_there_were_codes_a_memory_holds_the_priors() -> None:
    fresh = memories.Memory(4000, 2)
    assert fresh.z.mean().abs() < 0.05
    assert abs(fresh.z.std() - 1) < 0.05
    with pytest.raises(UserError, match="memory=1; it must hold at least 2"):
        memories.Memory(1, 2)


# -- total correlation -----------------------------------------------------------------------------


def mixture(count: int) -> tuple[Tensor, dict[str, float]]:
    """Posterior means whose mixture is a normal, and its information, TC and KL of single dimensions."""
    total = MIXED @ MIXED.T + NOISE**2 * torch.eye(3).double()
    variances = total.diagonal()
    log_det = total.logdet()
    known = {
        "mutual_information_nats": 0.5 * (log_det - 3 * math.log(NOISE**2)),
        "tc_nats": 0.5 * (variances.log().sum() - log_det),
        "dimensions_kl_nats": 0.5 * (variances - 1 - variances.log()).sum(),
    }
    return rand(count, 3) @ MIXED.T, {name: float(value) for name, value in known.items()}


def test_the_decomposition_of_a_normal_is_the_one_in_closed_form() -> None:
    mu, known = mixture(6000)
    made = objective("beta_tc", memory=4000)
    made.memory = remembered(coded(mu[:4000]))
    codes = coded(mu[4000:], seed=6)
    _, shown = made.price(codes, codes.kl.sum(1).mean(), batch(rand(2000, 1), set_size=10**7))
    for name, value in known.items():
        assert shown[name].item() == pytest.approx(value, abs=0.06), name
    assert sum(known.values()) == pytest.approx(codes.kl.sum(1).mean().item(), rel=0.03)


@pytest.mark.parametrize("sampling", ["stratified", "weighted"])
def test_information_tc_and_single_dimensions_sum_to_the_kl_that_was_drawn(sampling: str) -> None:
    mu, _ = mixture(64)
    codes = coded(mu)
    made = objective(
        "beta_tc",
        sampling=sampling,
        memory=32,
    )
    _, shown = made.price(codes, codes.kl.sum(1).mean(), batch(rand(64, 1)))
    zero = torch.zeros_like(codes.z)
    drawn = log_normal(codes.z, codes.mu, codes.logvar) - log_normal(codes.z, zero, zero)
    parts = ("mutual_information_nats", "tc_nats", "dimensions_kl_nats")
    total = sum(shown[name] for name in parts)
    torch.testing.assert_close(total, drawn.sum(1).mean())


def test_weighted_densities_are_the_stratified_ones_less_the_log_of_the_sets_size() -> None:
    mu, _ = mixture(500)
    memory = remembered(coded(mu[:300]))
    codes = coded(mu[300:], seed=6)
    even = densities(codes, memory, 301, "weighted")
    uneven = densities(codes, memory, 301, "stratified")
    for weighted, stratified, times in zip(even, uneven, (1, 3), strict=True):
        torch.testing.assert_close(weighted, stratified - times * math.log(301))


def test_posteriors_that_do_not_overlap_share_the_log_of_the_sets_size() -> None:
    codes = coded(100 * rand(8, 3), deviation=0.01)
    joint, _ = densities(
        codes,
        remembered(coded(1e4 + rand(50, 3))),
        40,
        "stratified",
    )
    own = log_normal(codes.z, codes.mu, codes.logvar).sum(1)
    torch.testing.assert_close(joint, own - math.log(40))


def test_at_beta_1_total_correlation_costs_nothing_extra() -> None:
    codes = coded(rand(6, 3))
    kl = codes.kl.sum(1).mean()
    price, shown = objective("beta_tc", beta=1.0).price(codes, kl, batch(rand(6, 1)))
    more, _ = objective("beta_tc", beta=3.0).price(codes, kl, batch(rand(6, 1)))
    assert price == kl
    torch.testing.assert_close(more, kl + 2 * shown["tc_nats"])


def test_the_pull_of_total_correlation_is_that_of_its_closed_form() -> None:
    # z = (a, ρa + …): TC = -½ log(1 - r²), r the correlation
    rho = torch.tensor(
        0.8,
        dtype=torch.float64,
        requires_grad=True,
    )

    def means(count: int, seed: int, slope: Tensor) -> Tensor:
        first, second = rand(count, 2, seed=seed).unbind(1)
        return torch.stack([first, slope * first + 0.6 * second], 1)

    logvar = torch.full((4000, 2), 2 * math.log(NOISE)).double()
    mu = means(4000, 1, rho)
    codes = Coded(mu, logvar, mu + NOISE * rand(4000, 2, seed=2))
    memory = remembered(coded(means(4000, 3, rho.detach()), seed=4))
    joint, product = densities(codes, memory, 10**7, "stratified")
    (pull,) = torch.autograd.grad((joint - product).mean(), rho)

    slope = rho.detach().clone().requires_grad_(True)
    first = 1 + NOISE**2
    second = slope**2 + 0.36 + NOISE**2
    closed = -0.5 * (1 - slope**2 / (first * second)).log()
    (wanted,) = torch.autograd.grad(closed, slope)
    assert pull.item() == pytest.approx(wanted.item(), rel=0.1)


def test_a_critic_that_has_learned_says_the_total_correlation() -> None:
    made = objective(
        "factor",
        z_dim=2,
        width=64,
        depth=2,
        memory=500,
    )
    r = 0.8
    optimiser = torch.optim.Adam(made.critic.parameters(), lr=0.004)

    def correlated(seed: int) -> Tensor:
        first, second = rand(500, 2, seed=seed).unbind(1)
        return torch.stack([first, r * first + math.sqrt(1 - r * r) * second], 1)

    class Known(nn.Module):
        def encode(self, images: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            return images.flatten(1), torch.full((len(images), 2), -30.0).double()

    made.memory = remembered(coded(correlated(0), deviation=1e-6))
    for step in range(400):
        shown = replace(draws(0, 500, 500), clock=step)
        loss, _ = made.loss("critic", Known(), batch(correlated(step + 1), where=shown))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    codes = coded(torch.cat([correlated(seed) for seed in range(990, 999)]), deviation=1e-6)
    price, told = made.price(codes, torch.zeros(()).double(), batch(rand(4500, 1)))
    closed = -0.5 * math.log(1 - r * r)
    assert told["tc_nats"].item() == pytest.approx(closed, rel=0.2)
    assert price.item() == pytest.approx(10 * told["tc_nats"].item())


def test_shuffled_codes_keep_each_dimension_and_lose_what_they_share() -> None:
    made = objective(
        "factor",
        z_dim=2,
        memory=2000,
    )
    first = rand(2000)
    made.memory = remembered(coded(torch.stack([first, first], 1), deviation=1e-6))
    shuffled = made.shuffled(batch(rand(2000, 1)))
    assert abs(torch.corrcoef(shuffled.T)[0, 1]) < 0.08
    assert abs(shuffled.std(0) - first.std()).max() < 0.08


# -- covariance, MMD, capacity ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["I", "II"])
def test_the_covariance_is_that_of_means_or_of_codes(kind: Any) -> None:
    memory = remembered(coded(rand(20_000, 3) @ MIXED.T))
    wanted = MIXED @ MIXED.T + (NOISE**2 * torch.eye(3) if kind == "II" else 0)
    torch.testing.assert_close(
        covariance(memory, kind),
        wanted,
        atol=0.03,
        rtol=0,
    )


@pytest.mark.parametrize("kind", ["I", "II"])
def test_the_pull_of_dip_is_the_derivative_of_its_penalty(kind: str) -> None:
    mu = (rand(40, 3) @ MIXED.T).requires_grad_(True)
    logvar = (0.3 * rand(40, 3, seed=8)).requires_grad_(True)
    codes = Coded(mu, logvar, mu)
    made = objective(
        "dip",
        kind=kind,
        off_diagonal=3.0,
        diagonal=7.0,
    )
    made.memory = remembered(codes)
    price, shown = made.price(codes, torch.zeros(()).double(), batch(rand(40, 1)))
    found = torch.autograd.grad(
        price,
        (mu, logvar),
        allow_unused=True,
    )

    c = torch.cov(mu.T, correction=0)
    c = c + torch.diag(logvar.exp().mean(0)) if kind == "II" else c
    away = (c - torch.eye(3)).square()
    penalty = 3 * away.sum() + 4 * away.diagonal().sum()
    assert shown["covariance_penalty"].item() == pytest.approx(penalty.item())
    wanted = torch.autograd.grad(
        penalty,
        (mu, logvar),
        allow_unused=True,
    )
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def squared_mmd(shift: Tensor) -> Tensor:
    """MMD² between N(shift, I) and N(0, I) in closed form."""
    d = len(shift)
    same_side = (d / (d + 2)) ** (d / 2)
    return 2 * same_side * (1 - (-shift.square().sum() / (2 * (d + 2))).exp())


@pytest.mark.parametrize("far", [0.0, 0.5, 2.0])
def test_mmd_is_the_closed_form_and_0_on_one_distribution(far: float) -> None:
    shift = torch.tensor([far, 0.0, -far]).double().requires_grad_(True)
    z = shift + rand(4000, 3)
    among, across, prior = kernel_means(z, shift.detach() + rand(4000, 3, seed=1))
    squared = (among - 2 * across).mean() + prior
    assert squared.item() == pytest.approx(squared_mmd(shift).item(), abs=0.01)

    # what is differentiated pulls as the distance itself does
    codes = Coded(z, torch.zeros_like(z), z)
    made = objective(
        "info",
        alpha=1.0,
        weight=1.0,
    )
    made.memory = remembered(Coded(codes.mu, codes.logvar, shift.detach() + rand(4000, 3, seed=1)))
    price, shown = made.price(codes, torch.zeros(()).double(), batch(rand(4000, 1)))
    assert shown["mmd_squared"].item() == pytest.approx(squared.item())
    (pull,) = torch.autograd.grad(price, shift)
    (wanted,) = torch.autograd.grad(squared_mmd(shift), shift)
    torch.testing.assert_close(
        pull,
        wanted,
        atol=0.01,
        rtol=0.05,
    )


def test_info_weighs_kl_and_mmd_as_in_its_equation() -> None:
    codes = coded(rand(6, 3))
    kl = codes.kl.sum(1).mean()
    made = objective(
        "info",
        alpha=0.25,
        weight=2.0,
    )
    among, across, _ = kernel_means(codes.z, made.memory.z)
    price, _ = made.price(codes, kl, batch(rand(6, 1)))
    torch.testing.assert_close(price, 0.75 * kl + 1.25 * 2 * (among - across).mean())


def test_capacity_pulls_the_code_towards_its_size_from_either_side() -> None:
    made = objective(
        "capacity",
        gamma=10.0,
        nats=2.0,
    )
    kl = torch.tensor(5.0).double()
    codes = coded(rand(6, 3))
    assert made.price(codes, kl, batch(rand(6, 1)))[0].item() == pytest.approx(-10 * 3)
    made.after(0.0, lambda values: values)
    assert made.last_kl == 5
    price, shown = made.price(codes, kl, batch(rand(6, 1)))
    assert price.item() == pytest.approx(10 * 3)
    assert shown["capacity_nats"] == 2


# -- VAE-GAN ---------------------------------------------------------------------------------------


class Copying(nn.Module):
    """A VAE whose code is the image's first pixels and whose decoder says a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.5).double())

    def encode(self, images: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        mu = images.flatten(1)[:, :3]
        return mu, torch.zeros_like(mu)

    def decode(self, z: Tensor, c: Tensor) -> Tensor:
        return self.level * torch.ones(len(z), 2, 4, 4, dtype=z.dtype)


def test_a_vae_gan_whose_discriminator_knows_nothing() -> None:
    made = objective("vae_gan", gamma=0.5)
    nn.init.zeros_(made.discriminator.head.weight)
    nn.init.zeros_(made.discriminator.head.bias)
    shown = batch(torch.full((5, 2, 4, 4), 0.5).double())
    model = Copying()
    kl = Coded(torch.full((5, 3), 0.5), torch.zeros(5, 3), torch.zeros(5, 3)).kl.sum(1).mean()
    assert made.loss("discriminator", model, shown)[0].item() == pytest.approx(3 * LN2)
    assert made.loss("decoder", model, shown)[0].item() == pytest.approx(2 * LN2)
    assert made.loss("encoder", model, shown)[0].item() == pytest.approx(kl.item())

    # now it sees another image
    other = batch(rand(5, 2, 4, 4).tanh())
    maps = made.discriminator.maps
    unlike = (maps(other.images) - maps(model.decode(rand(5, 3), other.c))).square()
    wanted = 0.5 * unlike.flatten(1).sum(1).mean()
    found = made.loss("encoder", model, other)[1]["feature_nats"]
    torch.testing.assert_close(found, wanted)
    assert made.loss("decoder", model, other)[0].item() == pytest.approx(
        2 * LN2 + 0.5 * wanted.item()
    )


# -- however a batch is cut ------------------------------------------------------------------------


def has_state(kind: str) -> bool:
    """Whether an objective, as it is trained there, has buffers or networks of its own."""
    model, spec = TRAININGS[kind]
    network = registry.build("models", model, FACTS)
    return bool(registry.build("objectives", spec, FACTS, network).state_dict())


PLAIN = [kind for kind in TRAININGS if kind.count(" ") == 1 and has_state(kind)]
each = pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[] if kind in FIRST else [pytest.mark.slow]) for kind in PLAIN],
)


def training(index: Index, folder: Path, _: Any, kind: str, **options: Any) -> Any:
    return make_task(
        index,
        folder,
        kind,
        batch_norm=False,
        lr=0.001,
        **options,
    )


def assert_alike(one: Any, other: Any) -> None:
    for name, weights in {**one.networks, **one.own}.items():
        found = {**other.networks, **other.own}[name]
        torch.testing.assert_close(
            found,
            weights,
            rtol=0,
            atol=1e-7,
        )


@each
def test_parts_train_what_the_whole_batch_trains(index: Index, tmp_path: Path, kind: str) -> None:
    for folder, parts in (("one", 1), ("three", 3)):
        fit(
            training(index, tmp_path / folder, (), kind, precision="float64", accumulate=parts),
            ALONE,
        )
    assert_alike(newest(tmp_path / "one"), newest(tmp_path / "three"))
    assert newest(tmp_path / "one").own


@each
def test_two_ranks_train_what_one_trains(index: Index, tmp_path: Path, kind: str) -> None:
    fit(training(index, tmp_path / "one", (), kind, precision="float64"), ALONE)
    run_ranks(
        2,
        tmp_path,
        index,
        [],
        False,
        (training, (), kind),
    )
    assert same(vars(newest(tmp_path / "two")), vars(newest(tmp_path / "parts")))
    assert_alike(newest(tmp_path / "one"), newest(tmp_path / "two"))


def test_there_are_objectives_that_remember() -> None:
    assert len(PLAIN) >= 5
    assert test_training.VAE not in PLAIN
