"""What a training says of its health, and how one that collapsed is stopped or set back: planted, and seen."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import ALONE, BATCH, GAN, VAE, make_task, newest, same, stop_after

from facefactory import checkpoint, registry
from facefactory.data.sets.index import Index
from facefactory.objectives import _players
from facefactory.objectives.critics import Seen
from facefactory.ranks import World
from facefactory.training import health, trainer
from facefactory.training.health import Collapsed, oscillation
from facefactory.training.log import Sums
from facefactory.training.trainer import Trainer, fit

LINES = {"log_kimg": 0.048, "total_kimg": 0.48}
WATCHED = {"health_kimg": 0.048, "total_kimg": 0.288, "log_kimg": 0.048}


@pytest.fixture(autouse=True)
def begun_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """These trainings are a few hundred images long: their generators draw little more than gray."""
    monkeypatch.setattr(_players, "BEGUN_KIMG", 0.0)
    monkeypatch.setattr(_players, "LEAST_VARIETY", 0.005)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted(folder.glob("metrics-*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def gray_from(
    monkeypatch: pytest.MonkeyPatch, clock: int, until: Callable[[Trainer], bool] = lambda _: True
) -> None:
    """From a clock on the generator draws one gray picture: an accident that no draw and no lr would cause."""
    inner = Trainer.look

    def look(self: Trainer) -> None:
        if self.clock >= clock and until(self):
            with torch.no_grad():
                for weights in self.model.generator.parameters():  # type: ignore[union-attr,operator]
                    weights.zero_()
        inner(self)

    monkeypatch.setattr(Trainer, "look", look)


def once(trainer: Trainer) -> bool:
    """An accident that does not come again in a training that was set back."""
    return trainer.setbacks == 0 and trainer.clock < 200


# -- words -------------------------------------------------------------------------------------------


def test_a_constant_generator_is_told_within_two_lines(
    index: Index,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gray_from(monkeypatch, 240)
    fit(make_task(index, tmp_path, lr=1e-3, **LINES), ALONE)
    ill = [line["kimg"] for line in lines(tmp_path) if "mode collapse" in str(line.get("health"))]
    assert 0.24 <= ill[0] <= 0.24 + 2 * 0.048
    assert ill[-1] == 0.48
    assert "mode collapse: squared distances between generated images are 0 of those" in (
        capsys.readouterr().err
    )


def test_a_discriminator_a_hundred_times_too_fast_is_told_within_two_lines(
    index: Index, tmp_path: Path
) -> None:
    modules = {"discriminator": {"lr": 0.08}}
    options = {**LINES, "log_kimg": 0.12}
    task = make_task(
        index,
        tmp_path,
        lr=8e-4,
        modules=modules,
        **options,
    )
    model = registry.resolve("models", {"name": "gan/dcgan", "width": 16, "depth": 3})
    fit(dataclasses.replace(task, model=model), ALONE)
    ill = [
        line["kimg"]
        for line in lines(tmp_path)
        if "the discriminator ran away" in str(line.get("health"))
    ]
    assert ill[0] <= 2 * 0.12


def test_a_healthy_gan_is_told_nothing(index: Index, tmp_path: Path) -> None:
    fit(make_task(index, tmp_path, lr=2e-3, log_kimg=0.24, total_kimg=2.4), ALONE)
    found = lines(tmp_path)
    assert len(found) == 10
    assert not [line["health"] for line in found[1:] if "health" in line]
    assert found[0].keys() >= {"spread_real", "sign_real", "pairs_right", "variety_fake"}
    assert found[0]["gradient_generator"] > 0 < found[0]["gradient_discriminator"]


def seen(real: torch.Tensor, fake: torch.Tensor) -> Seen:
    return Seen(
        real,
        fake,
        real.flatten(1).mean(1),
        fake.flatten(1).mean(1),
    )


def test_variety_is_half_the_mean_squared_distance_of_two_images() -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(6, 1, 4, 4), 0.5 * torch.randn(6, 1, 4, 4)
    found = _players.watched(seen(real, fake))
    pairs = [(a - b).square().mean() for a in real for b in real]
    assert torch.isclose(found["variety_real"], torch.stack(pairs).sum() / (6 * 5) / 2)
    assert found["variety_fake"] < 0.5 * found["variety_real"]
    assert _players.watched(seen(real[:1], fake[:1])) == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"variety_fake": 0.0004}, ["mode collapse: squared distances .* are 0.004 of those"]),
        ({"logits_fake": -2e4}, ["ran away: its logits are 2e.04"]),
        ({"pairs_right": 0.999}, ["tells 99.9 % of pairs"]),
        ({"variety_fake": 0.0, "spread_real": 1e5}, ["mode collapse", "ran away"]),
    ],
)
def test_words_follow_from_scalars(change: dict[str, float], words: list[str]) -> None:
    well = {"kimg": 9.0, "logits_real": 0.5, "logits_fake": -0.5, "spread_real": 0.4}
    well |= {"variety_real": 0.1, "variety_fake": 0.08, "pairs_right": 0.7}
    objective: Any = registry.build("objectives", {"name": "adversarial"}, None, None)
    scalars = {**well, **change}
    told = objective.collapsed(scalars) + objective.health(scalars)
    assert len(told) == len(words)
    assert all(re.search(wanted, sentence) for wanted, sentence in zip(words, told, strict=True))


def test_a_loss_that_swings_is_told_and_one_that_settles_or_jitters_is_not() -> None:
    def told(values: list[float], **more: float) -> list[str]:
        return oscillation([{"kimg": 1.0, "loss_d": value, **more} for value in values])

    swings = [0.1, 2.0, 0.1, 2.0, 0.1, 2.0, 0.1, 2.0]
    assert "loss_d oscillates: over 8 lines it crosses its mean 7 times" in told(swings)[0]
    assert told(swings[:7]) == []  # too few lines
    assert told([2.0, 1.5, 1.0, 0.8, 0.6, 0.5, 0.4, 0.3]) == []
    assert told([1.0, 1.1, 1.0, 1.1, 1.0, 1.1, 1.0, 1.1]) == []
    around_zero = [-0.1, 0.1] * 4  # Wasserstein's: small beside the logits' spread
    assert told(around_zero, spread_real=1.0) == []
    assert told([-2.0, 2.0] * 4, spread_real=1.0)


# -- what follows ------------------------------------------------------------------------------------


def test_a_collapse_stops_a_training_that_is_told_to(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gray_from(monkeypatch, 120)
    with pytest.raises(Collapsed, match=r"at 0\.(144|192) kimg: mode collapse"):
        fit(make_task(index, tmp_path, lr=1e-3, on_collapse="stop", **WATCHED), ALONE)


def test_a_collapse_is_set_back_and_the_training_recovers(
    index: Index,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gray_from(monkeypatch, 120, once)
    task = make_task(
        index,
        tmp_path,
        lr=1e-3,
        on_collapse="rollback",
        **WATCHED,
    )
    outcome, made = fit(task, ALONE)
    assert (outcome, made.clock, made.setbacks) == ("finished", 288, 1)
    assert "Set back to 0.096 kimg." in capsys.readouterr().err
    assert "health" not in lines(tmp_path)[-1] and lines(tmp_path)[-1]["setbacks"] == 1
    found = newest(tmp_path)
    assert [segment["clock"] for segment in found.segments] == [0, 96]
    assert made.step.lr_share == 0.5
    rates = {group["lr"] for one in made.step.optimisers.values() for group in one.param_groups}
    assert rates == {0.5e-3}


@pytest.mark.parametrize("draws", ["cpu", "device"])
def test_a_training_that_was_set_back_goes_on_bit_for_bit(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draws: Any
) -> None:
    gray_from(monkeypatch, 120, once)
    options = {"lr": 1e-3, "on_collapse": "rollback", **WATCHED}
    fit(make_task(index, tmp_path / "whole", **options), ALONE)
    for iterations in (
        5,
        6,
        7,
        5,
    ):  # also in the middle of a window, and just after it was set back
        task = make_task(
            index,
            tmp_path / "parts",
            should_stop=stop_after(iterations),
            **options,
        )
        assert fit(task, ALONE)[0] == "interrupted"
    fit(make_task(index, tmp_path / "parts", **options), ALONE)
    assert same(vars(newest(tmp_path / "whole")), vars(newest(tmp_path / "parts")))


def test_a_kill_while_it_is_set_back_changes_nothing(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gray_from(monkeypatch, 120, once)
    options = {"lr": 1e-3, "on_collapse": "rollback", **WATCHED}
    fit(make_task(index, tmp_path / "whole", **options), ALONE)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "back_to", written_and_killed)
        with pytest.raises(KeyboardInterrupt):
            fit(make_task(index, tmp_path / "parts", **options), ALONE)
    assert newest(tmp_path / "parts").clock > 96
    fit(make_task(index, tmp_path / "parts", **options), ALONE)
    assert same(vars(newest(tmp_path / "whole")), vars(newest(tmp_path / "parts")))


def written_and_killed(folder: Path, found: checkpoint.Checkpoint, guard: Any) -> None:
    """A process that dies before it forgets the first of the newer checkpoints."""
    checkpoint._save(folder, found, guard)
    raise KeyboardInterrupt


def test_a_collapse_that_comes_again_ends_it_after_three_times(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gray_from(monkeypatch, 120)
    task = make_task(
        index,
        tmp_path,
        lr=1e-3,
        on_collapse="rollback",
        **WATCHED,
    )
    with pytest.raises(Collapsed, match=r"set back 3 times to 0\.096 kimg, and collapsed again"):
        fit(task, ALONE)
    fit(make_task(index, tmp_path, lr=1e-3, on_collapse="continue", **WATCHED), ALONE)
    assert newest(tmp_path).clock == 288


def test_weights_that_are_not_finite_are_set_back_too(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = Trainer.save

    def save(self: Trainer) -> None:
        if self.setbacks == 0 and self.clock > 100:
            next(self.model.parameters()).data.fill_(float("nan"))
        inner(self)

    monkeypatch.setattr(Trainer, "save", save)
    options = {"on_collapse": "rollback", **WATCHED}
    _, made = fit(make_task(index, tmp_path, VAE, **options, lr=1e-3), ALONE)
    assert (made.clock, made.setbacks) == (288, 1)


def test_what_a_watch_knows_is_in_the_checkpoint_and_a_training_without_one_pays_nothing(
    index: Index, tmp_path: Path
) -> None:
    options = {"health_kimg": 1.0, "total_kimg": 0.072}
    fit(make_task(index, tmp_path / "on", on_collapse="stop", **options), ALONE)
    fit(make_task(index, tmp_path / "off", **options), ALONE)
    watched = newest(tmp_path / "on").watched
    counts = {name.split("/")[0]: entry["count"] for name, entry in watched.items()}
    assert counts["loss_g"] == 72 // BATCH
    assert newest(tmp_path / "off").watched == {}
    assert not (tmp_path / "off" / health.FOLDER).exists()
    assert same(newest(tmp_path / "on").networks, newest(tmp_path / "off").networks)


def test_sums_of_two_ranks_are_moved_to_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Sums(), Sums()
    for value in (1.0, 2.0):
        one.add({"loss": torch.tensor(value)})
        other.add({"loss": torch.tensor(10 * value)})

    def pretended(rank: int) -> World:
        made = World(rank, 2, torch.device("cpu"))
        monkeypatch.setattr(World, "sum", lambda self, values: values * 0 + 33.0)
        return made

    one.gather(pretended(0))
    other.gather(pretended(1))
    [first], [second] = one.state().values(), other.state().values()
    assert (float(first["sum"]), first["count"]) == (33.0, 4)
    assert (float(second["sum"]), second["count"]) == (0.0, 0)


def test_the_watch_ends_windows_at_multiples_of_the_clock(index: Index) -> None:
    watch = health.Watch(None, ALONE, 0.05, on=True)
    ends = [clock for clock in range(12, 240, 12) if watch.due(clock, 12)]
    assert ends == [60, 108, 156, 204]
    assert GAN and trainer.health is health
