"""Models and objectives that only the contracts know: conditions, state in an objective, schedules, other optimisers.

They are files of a user's own, trained here, stopped, killed, and gone on with, on one rank and on two; one of them on
images that are not square.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import test_training
import torch
from conftest import Faces
from test_training import ALONE, BATCH, make_task, newest, run_ranks, same, stop_after

from facefactory import UserError, checkpoint, conditions, schedule
from facefactory.data import Pack
from facefactory.data.packing import pack, recipes
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Shards, batches
from facefactory.facts import Label
from facefactory.ranks import World
from facefactory.training import Optimiser, Training, ema, optimisers
from facefactory.training.trainer import Cadence, Trainer, fit

CONDITIONAL = '''
"""A generator and a discriminator that see labels as one vector."""
import torch
from torch import nn

from facefactory.conditions import width
from facefactory.facts import Facts


class Joined(nn.Module):
    def __init__(self, into, shape):
        super().__init__()
        self.layer, self.shape = nn.Linear(into, shape.numel()), shape

    def forward(self, x, c):
        return self.layer(torch.cat([x.flatten(1), c], 1)).view(len(x), *self.shape)


class Component(nn.Module):
    """Args: conditions: labels that both see."""

    def __init__(self, facts: Facts, *, conditions: list[str] = ["Glasses", "Person"]) -> None:
        super().__init__()
        self.z_dim, self.conditions = 4, tuple(conditions)
        shape = torch.Size([facts.channels, facts.height, facts.width])
        columns = width(conditions, facts.labels)
        self.generator = Joined(4 + columns, shape)
        self.discriminator = Joined(shape.numel() + columns, torch.Size([]))

    def sample(self, z, c):
        return self.generator(z, c).tanh()
'''
MISMATCHED = '''
"""D tells images with their own labels from images with the labels of others."""
from torch import nn
from torch.nn import functional as F

from facefactory.objectives import Objective, Phase


class Component(nn.Module, Objective):
    phases = (Phase("discriminator", ("discriminator",)), Phase("generator", ("generator",)))
    needs = ("generator", "discriminator")
    averaged = ("generator",)

    def loss(self, phase, model, batch):
        if phase == "generator":
            fake = model.generator(batch.draws.normal("z", model.z_dim), batch.c)
            return F.softplus(-model.discriminator(fake, batch.c)).mean(), {}
        right, wrong = (model.discriminator(batch.images, c) for c in (batch.c, batch.wrong))
        return (F.softplus(-right) + F.softplus(wrong)).mean(), {"right": right.mean()}
'''
STATEFUL = '''
"""A buffer that moves with what was seen on all ranks, and a network of the objective's own."""
import torch
from torch import nn

from facefactory.objectives import Objective, Phase
from facefactory.schedule import Scheduled, at


class Component(nn.Module, Objective):
    """Args: pull: weight of the buffer, a schedule."""

    phases = (Phase("vae", ("encoder", "decoder")), Phase("critic", ("objective.critic",), interval=2))
    needs = ("encode", "decode")

    def __init__(self, *, pull: Scheduled = 0.1) -> None:
        super().__init__()
        self.pull = pull
        self.critic = nn.Linear(4, 1)
        nn.init.constant_(self.critic.weight, 0.1)
        nn.init.zeros_(self.critic.bias)
        self.register_buffer("level", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def loss(self, phase, model, batch):
        mu, _ = model.encode(batch.images, batch.c)
        if phase == "critic":
            return (self.critic(mu.detach()).squeeze(1) - 1).square().mean(), {}
        self.seen += batch.images.detach().mean((1, 2, 3)).sum()
        error = (model.decode(mu, batch.c) - batch.images).square().mean()
        drift = (self.critic(mu) - self.level).square().mean()
        return error + at(self.pull, batch.kimg) * drift, {"error": error}

    def after(self, kimg, total):
        self.level += 0.01 * total(self.seen)
        self.seen = torch.zeros_like(self.seen)
'''
VAE = {"name": "vae/conv", "width": 4, "z_dim": 4, "depth": 2}
GAN = {"name": "gan/dcgan", "width": 4, "z_dim": 4, "depth": 2, "g_norm": "group"}
SCHEDULES: dict[str, Any] = {
    "lr": {"0": 0.01, "0.06": 0.001},
    "modules": {
        "decoder": {"lr": {"0": 0.0, "0.036": 0.02}, "kind": "rmsprop", "betas": [0.0, 0.9]},
        "encoder": {"betas": [0.0, {"0": 0.5, "0.06": 0.99, "shape": "cosine"}]},
    },
    "ema_half_lives_kimg": [0.001, {"0": 0.0, "0.06": 0.1}],
}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files."""
    folder = tmp_path_factory.mktemp("toys")
    texts = {"conditional": CONDITIONAL, "mismatched": MISMATCHED, "stateful": STATEFUL}
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    return {name: folder / f"{name}.py" for name in texts}


def changes(toys: dict[str, Path], kind: str) -> dict[str, Any]:
    """What a toy's training differs in."""
    if kind in ("conditional", "oblong"):
        model = {"name": str(toys["conditional"]), "conditions": ["Glasses", "Person"]}
        return {"model": model, "objective": {"name": str(toys["mismatched"])}, "augment": []}
    if kind == "remembering":
        terms = {"lecam": {"decay": 0.5}, "r1": {"interval": 2}}
        return {"model": GAN, "objective": {"name": "adversarial", "terms": terms}}
    objective = {"name": str(toys["stateful"]), "pull": {"0": 0.0, "0.05": 1.0}}
    return {"model": VAE, "objective": objective, **SCHEDULES}


KINDS = ("conditional", "oblong", "stateful", "remembering")


@pytest.fixture(scope="module")
def oblong(faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """The faces, 48 pixels high and 32 wide."""
    options = Pack(
        recipe=str(faces.recipe),
        resolution="48x32",
        shard_images=16,
    )
    return pack.pack(recipes.plan(options), tmp_path_factory.mktemp("oblong"))


@pytest.fixture
def shown(kind: str, index: Index, oblong: Index) -> Index:
    """The set that a toy is trained on."""
    return oblong if kind == "oblong" else index


def toy(index: Index, folder: Path, toys: dict[str, Path], kind: str, **more: Any) -> Any:
    """The training of a toy."""
    own = changes(toys, kind)
    model = own.pop("model")
    objective = own.pop("objective")
    task = make_task(
        index,
        folder,
        test_training.VAE,
        **own,
        **more,
    )
    return test_training.replace(
        task,
        model=model,
        objective=objective,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_toy_goes_on_as_if_nothing_had_happened(
    shown: Index, tmp_path: Path, toys: dict[str, Path], kind: str
) -> None:
    fit(toy(shown, tmp_path / "whole", toys, kind), ALONE)
    for iterations in (1, 2):
        fit(toy(shown, tmp_path / "parts", toys, kind, should_stop=stop_after(iterations)), ALONE)
    fit(toy(shown, tmp_path / "parts", toys, kind), ALONE)
    whole = newest(tmp_path / "whole")
    parts = newest(tmp_path / "parts")
    assert whole.clock == 72
    assert same(vars(whole), vars(parts))

    # all that it trains has moved
    start = checkpoint.build(whole.model, checkpoint.facts_of(whole), 3).state_dict()
    assert all(
        not torch.equal(start[name], whole.networks[name]) for name in start if "bias" not in name
    )
    if kind == "remembering":
        assert bool((whole.own["remembering.lecam.averages"] != 0).all())
    if kind == "stateful":
        assert whole.own["level"] != 0
        assert not torch.equal(whole.own["critic.weight"], torch.full((1, 4), 0.1))
        fixed, scheduled = whole.averages.values()
        assert list(whole.averages) == ["0.001", '{"0": 0.0, "0.06": 0.1}']
        assert not same(fixed, scheduled)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2])
def test_ranks_train_a_toy_like_one_process_and_go_on_after_a_stop_and_after_sigkill(
    shown: Index, tmp_path: Path, toys: dict[str, Path], kind: str, size: int
) -> None:
    fit(toy(shown, tmp_path / "one", toys, kind, precision="float64"), ALONE)
    run_ranks(size, tmp_path, shown, [], False, (toy, toys, kind), killed=True)
    assert 0 < newest(tmp_path / "killed").clock < 72
    run_ranks(size, tmp_path, shown, [], False, (toy, toys, kind))
    one = newest(tmp_path / "one")
    two = newest(tmp_path / "two")
    assert two.clock == 72
    assert same(vars(two), vars(newest(tmp_path / "parts")))
    assert same(vars(two), vars(newest(tmp_path / "killed")))
    for name, weights in {**one.networks, **one.own}.items():
        torch.testing.assert_close({**two.networks, **two.own}[name], weights, rtol=0, atol=1e-9)


def test_wrong_labels_are_those_of_the_image_before_in_the_global_batch(index: Index) -> None:
    shards = Shards(index, "train")
    order, _ = shards.order(test_training.Data(), 0)

    def rows(lo: int, hi: int) -> Any:
        return next(
            batches(shards, order, 36, BATCH, lo, hi, wanted=["Person"], before=["Person"])
        )

    whole = rows(0, BATCH)
    assert torch.equal(whole.before["Person"], whole.labels["Person"].roll(1))
    halves = [rows(0, 6), rows(6, 12)]
    assert torch.equal(
        torch.cat([half.before["Person"] for half in halves]), whole.before["Person"]
    )


STARTING = '''
"""A VAE whose encoder starts from published weights: here, from ones."""
import torch

from facefactory.models.vae.conv import Component as Plain

LOADED = []


class Component(Plain):
    pretrained = ("5e1f",)

    def start(self):
        LOADED.append(True)
        for weights in self.encoder.parameters():
            torch.nn.init.ones_(weights)
'''


def test_published_weights_enter_at_clock_0_and_never_again(index: Index, tmp_path: Path) -> None:
    own = tmp_path / "starting.py"
    own.write_text(STARTING)
    model = {**VAE, "name": str(own)}

    def task(stop: Any = lambda: False) -> Any:
        made = make_task(
            index,
            tmp_path / "run",
            test_training.VAE,
            should_stop=stop,
            lr=0.0,
        )
        return test_training.replace(made, model=model)

    fit(task(stop_after(1)), ALONE)
    first = newest(tmp_path / "run")
    assert torch.equal(first.networks["encoder.2.bias"], torch.ones(8))
    assert torch.equal(first.averages["5"]["."]["encoder.2.bias"], torch.ones(8))
    own.write_text(STARTING.replace("ones_", "zeros_"))
    fit(task(), ALONE)
    assert torch.equal(newest(tmp_path / "run").networks["encoder.2.bias"], torch.ones(8))


# -- conditions, schedules, optimisers, cadence ----------------------------------------------------

LABELS = {
    "Glasses": Label("binary", ("0", "1")),
    "Mood": Label("categorical", ("calm", "glad", "sad")),
    "Age": Label("real"),
}


def test_labels_become_one_vector_and_what_is_missing_is_zero() -> None:
    values = {"Glasses": torch.tensor([1, 0, -1]), "Mood": torch.tensor([2, -1, 0])}
    found = conditions.vector(values, ("Mood", "Glasses"), LABELS)
    assert found.tolist() == [[0, 0, 1, 1], [0, 0, 0, -1], [1, 0, 0, 0]]
    assert conditions.width(("Mood", "Glasses"), LABELS) == found.shape[1]


@pytest.mark.parametrize(
    ("name", "message"), [("Hat", "the set has no label 'Hat'"), ("Age", "'Age' has no classes")]
)
def test_a_condition_that_cannot_be_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        conditions.width((name,), LABELS)


@pytest.mark.parametrize(
    ("kimg", "value"),
    [
        (0, 1.0),
        (5, 1.0),
        (15, 0.6),
        (20, 0.2),
        (99, 0.2),
    ],
)
def test_a_schedule_is_linear_between_its_points_and_flat_outside(
    kimg: float, value: float
) -> None:
    points = schedule.checked({20: 0.2, 10: 1})
    assert points == {"10": 1.0, "20": 0.2}
    assert schedule.at(points, kimg) == pytest.approx(value)
    assert schedule.at(0.3, kimg) == 0.3


@pytest.mark.parametrize(
    ("kimg", "value"),
    [
        (0, 1.0),
        (10, 0.75),
        (15, 0.5),
        (30, 0.0),
    ],
)
def test_a_schedule_may_go_by_half_a_cosine(kimg: float, value: float) -> None:
    points = schedule.checked({0: 1, 30: 0, "shape": "cosine"})
    assert points == {"0": 1.0, "30": 0.0, "shape": "cosine"}
    assert schedule.checked(points) == points
    assert schedule.at(points, kimg) == pytest.approx(value)
    assert schedule.least(points) == 0
    assert schedule.most(points) == 1


def test_a_line_is_no_shape_that_needs_a_word() -> None:
    assert schedule.checked({0: 1, 5: 2, "shape": "linear"}) == schedule.checked({0: 1, 5: 2})


def test_betas_follow_the_clock() -> None:
    betas = [{0: 0.5, 10: 0.0}, {0: 0.9, 10: 0.99}]
    for kind, names in {"adam": ("betas",), "rmsprop": ("momentum", "alpha")}.items():
        wanted = Training(betas=betas, optimiser=kind).optimiser_of("generator")  # type: ignore[arg-type]
        optimiser = optimisers.build(wanted, [torch.nn.Parameter(torch.ones(2))])
        for kimg, pair in {0: (0.5, 0.9), 5: (0.25, 0.945), 20: (0.0, 0.99)}.items():
            optimisers.set_clock(optimiser, wanted, kimg)
            (group,) = optimiser.param_groups
            values = group["betas"] if kind == "adam" else [group[name] for name in names]
            assert list(values) == pytest.approx(list(pair))


def test_a_scheduled_half_life_is_what_it_says() -> None:
    model = torch.nn.Linear(1, 1)
    averages = [ema.Average(model, (".",), half_life) for half_life in (2.0, {"0": 2.0, "9": 2.0})]
    before = model.weight.item()
    model.weight.data += 1
    for average in averages:
        average.update(clock=2000, batch_size=2000)
    ramped, scheduled = [average.model.weight.item() - before for average in averages]
    assert scheduled == pytest.approx(0.5)
    assert ramped > 0.99  # at most 0.1 kimg at a clock of 2


@pytest.mark.parametrize(
    "value",
    [
        *("fast", True, {}, {-1: 0.1}, {"start": 0.1}, {0: "x"}, float("nan"), [1]),
        *({"shape": "cosine"}, {0: 1.0, "shape": "steps"}),
    ],
    ids=str,
)
def test_what_is_no_schedule_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="kimg"):
        schedule.checked(value)


def test_each_network_has_its_own_optimiser() -> None:
    options = Training(modules={"discriminator": {"lr": 4e-4, "kind": "sgd"}})
    assert options.optimiser_of("discriminator") == Optimiser("sgd", 4e-4, (0.0, 0.99), 0.0)
    assert options.optimiser_of("generator") == Optimiser("adam", 8e-4, (0.0, 0.99), 0.0)
    weights = torch.nn.Parameter(torch.ones(2))
    for kind, made in {
        "adam": "Adam",
        "adamw": "AdamW",
        "rmsprop": "RMSprop",
        "sgd": "SGD",
    }.items():
        wanted = Optimiser(
            kind,
            {"0": 1.0, "10": 0.0},
            (0.0, 0.9),
            0.0,
        )  # type: ignore[arg-type]
        optimiser = optimisers.build(wanted, [weights])
        optimisers.set_clock(optimiser, wanted, 5.0)
        assert type(optimiser).__name__ == made
        assert optimiser.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"modules": {"generater": {}}},
            r"training\.modules has 'generater'.*Did you mean 'generator'",
        ),
        (
            {"modules": {"generator": {"rl": 1}}},
            r"training\.modules\.generator has 'rl'; allowed are kind, lr",
        ),
        ({"modules": {"generator": {"lr": "x"}}}, r"training\.modules\.generator\.lr='x'"),
        ({"lr": -1.0}, r"training\.lr=-1\.0; a learning rate is at least 0"),
        ({"betas": [0.5]}, r"training\.betas=\[0\.5\]; give two numbers"),
        ({"betas": [0.5, {"0": 1.0}]}, r"training\.betas=\[0\.5, .*; give two numbers"),
        ({"betas": [-0.5, 0.9]}, r"training\.betas=-0\.5; each is at least 0"),
        ({"betas": ["x", 0.9]}, r"training\.betas='x': 'x' is no number"),
        ({"ema_half_lives_kimg": [-1.0]}, r"ema_half_lives_kimg=-1\.0; a half-life is at least 0"),
        ({"ema_half_lives_kimg": []}, r"ema_half_lives_kimg=\[\]; give at least one"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Training(**options).check(("discriminator", "generator"))


def test_something_is_due_when_its_images_and_its_seconds_are_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("facefactory.training.trainer.time.monotonic", lambda: now)
    cadence = Cadence(
        every_kimg=0.1,
        least_s=10,
        clock=0,
    )
    assert not cadence.due(150)  # too early by the watch
    now = 11.0
    assert cadence.due(150)
    assert not cadence.due(160)
    cadence.done(160)
    now = 30.0
    assert not cadence.due(190)
    assert cadence.due(200)
    assert not Cadence(0.0, 0.0, 0).due(10**6)


def test_what_no_phase_names_is_frozen(
    index: Index, tmp_path: Path, toys: dict[str, Path]
) -> None:
    trainer = Trainer(toy(index, tmp_path, toys, "stateful"), World(0, 1, torch.device("cpu")))
    assert not any(weights.requires_grad for weights in trainer.model.parameters())
    assert set(trainer.step.optimisers) == {"encoder", "decoder", "objective.critic"}
