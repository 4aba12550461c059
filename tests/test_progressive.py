"""A model that grows with the clock: what it is follows from the clock, across breaks, ranks and rebuilding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import ALONE, BATCH, make_task, newest, same, stop_after
from torch.nn import functional as F

from facefactory import UserError, checkpoint, registry, sampling
from facefactory.data.sets.index import Index
from facefactory.facts import Facts
from facefactory.models._equalised import MinibatchDeviation
from facefactory.training.trainer import fit

KIND = "gan/progressive adversarial terms gradient_penalty"
SCHEDULE = {"stable_kimg": 0.012, "fade_kimg": 0.024}  # one iteration a level, two a fade
NAME = "gan/progressive"
MOMENTS = {  # of this schedule: the level, and how much of it is there
    0: (0, 1.0),
    12: (0, 1.0),
    24: (1, 0.5),
    36: (1, 1.0),
    48: (1, 1.0),
    60: (2, 0.5),
    72: (2, 1.0),
}


def build(height: int = 16, width: int = 16, channels: int = 1, **options: Any) -> Any:
    given = {"name": NAME, "z_dim": 4, "width": 4, **SCHEDULE, **options}
    facts = Facts(height, width, channels)
    return checkpoint.build(given, facts).requires_grad_(False)


def task(index: Index, folder: Path, **more: Any) -> Any:
    """Six iterations, four of which are in a fade or begin one."""
    made = make_task(index, folder, KIND, **more)
    made.model.update(SCHEDULE)
    return made


@pytest.mark.parametrize("clock", MOMENTS)
def test_it_grows_as_its_schedule_says(clock: int) -> None:
    model = build()
    model.at(clock / 1000)
    for network in (model.generator, model.discriminator):
        assert (network.level, pytest.approx(network.alpha)) == MOMENTS[clock]


@pytest.mark.parametrize("kimg", [0.0, 0.02, 0.04, 0.05, 1e6])
@pytest.mark.parametrize(
    ("height", "width"),
    [
        (32, 32),
        (48, 48),
        (64, 64),
        (128, 128),
        (48, 32),
    ],
)
def test_at_any_moment_images_have_their_whole_size(height: int, width: int, kimg: float) -> None:
    model = build(height, width, 3)
    model.at(kimg)
    z = torch.randn(3, 4)
    images = model.sample(z, torch.empty(3, 0))
    assert images.shape == (3, 3, height, width)
    assert model.discriminator(images).shape == (3,)
    blocks = F.avg_pool2d(images, model.generator.coarser)
    again = F.interpolate(blocks, scale_factor=model.generator.coarser)
    torch.testing.assert_close(
        again,
        images,
        rtol=0,
        atol=1e-4,
    )


def test_a_level_begins_as_the_one_below_it() -> None:
    model = build(32, 32)
    z = torch.randn(5, 4)
    real = torch.randn(5, 1, 32, 32)
    said = {}
    for kimg in (0.012, 0.012 + 1e-9):
        model.at(kimg)
        shown = model.shown(real)
        said[kimg] = (model.generator(z), shown, model.discriminator(shown))
    for before, after in zip(*said.values(), strict=True):
        torch.testing.assert_close(
            before,
            after,
            rtol=0,
            atol=1e-4,
        )
    assert model.generator.level == 1


def test_real_images_lose_what_the_generator_cannot_draw_yet() -> None:
    model = build(16, 16)
    real = torch.randn(2, 1, 16, 16)
    model.at(0.0)
    torch.testing.assert_close(F.avg_pool2d(model.shown(real), 4), F.avg_pool2d(real, 4))
    model.at(0.024)
    fine = F.avg_pool2d(real, 2)
    coarse = F.interpolate(F.avg_pool2d(fine, 2), scale_factor=2)
    torch.testing.assert_close(F.avg_pool2d(model.shown(real), 2), (fine + coarse) / 2)
    model.at(1.0)
    assert torch.equal(model.shown(real), real)


@pytest.mark.parametrize("iterations", [2, 5])
def test_a_training_killed_in_a_fade_goes_on_with_the_same_bits(
    index: Index, tmp_path: Path, iterations: int
) -> None:
    stop = stop_after(iterations + 1)  # asked before it saves

    def killed() -> bool:
        if stop():
            raise KeyboardInterrupt
        return False

    fit(task(index, tmp_path / "whole", checkpoint_kimg=0.012), ALONE)
    with pytest.raises(KeyboardInterrupt):
        fit(task(index, tmp_path / "parts", checkpoint_kimg=0.012, should_stop=killed), ALONE)
    halfway = newest(tmp_path / "parts")
    assert halfway.clock == iterations * BATCH
    assert MOMENTS[halfway.clock][1] == 0.5
    fit(task(index, tmp_path / "parts", checkpoint_kimg=0.012), ALONE)
    assert same(vars(newest(tmp_path / "whole")), vars(newest(tmp_path / "parts")))


def test_averaged_weights_draw_what_a_rebuilt_checkpoint_draws_at_any_moment(
    index: Index, tmp_path: Path
) -> None:
    drawn: dict[int, torch.Tensor] = {}

    def images_of(model: Any) -> torch.Tensor:
        return sampling.draw(model, torch.empty(4, 0), 0, "test")

    def draw(model: Any, clock: int) -> None:
        drawn[clock] = images_of(model)
        path = checkpoint.latest(tmp_path / "checkpoints")
        assert path is not None
        rebuilt, found = checkpoint.rebuild(path)
        assert found.clock == clock
        assert rebuilt.generator.level == MOMENTS[clock][0]
        assert torch.equal(images_of(rebuilt), drawn[clock])

    fit(
        task(index, tmp_path, checkpoint_kimg=0.012, sample_kimg=0.012, draw_samples=draw),
        ALONE,
    )
    assert list(drawn) == [12, 24, 36, 48, 60, 72]


def test_a_finished_training_that_is_begun_again_draws_whole_images(
    index: Index, tmp_path: Path
) -> None:
    fit(task(index, tmp_path), ALONE)
    _, trainer = fit(task(index, tmp_path), ALONE)
    average: Any = trainer.average
    assert (average.generator.level, average.generator.alpha) == MOMENTS[72]


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        ((15, 15), {}, r"15x15 .* can be halved 0 times"),
        ((48, 32), {"doublings": 5}, r"doublings=5 for images of 48x32 .* can be halved 4 times"),
        ((16, 16), {"fade_kimg": 0.0}, r"stable_kimg=600\.0, fade_kimg=0\.0; allowed are"),
        ((16, 16), {"stable_kimg": -1.0}, r"stable_kimg=-1\.0, fade_kimg=600\.0; allowed are"),
        ((16, 16), {"deviation_group": 0}, "deviation_group=0; it must be at least 1"),
    ],
)
def test_what_cannot_grow_is_refused_by_name(
    size: tuple[int, int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=rf"{NAME}: .*{message}"):
        registry.build("models", {"name": NAME, **options}, Facts(*size, 1))


@pytest.mark.parametrize(
    ("count", "group"),
    [
        (8, 4),
        (6, 3),
        (7, 1),
        (2, 2),
    ],
)
def test_images_are_compared_with_their_neighbours(count: int, group: int) -> None:
    x = torch.randn(
        count,
        3,
        2,
        2,
        dtype=torch.float64,
    )
    found = MinibatchDeviation(4)(x)
    assert torch.equal(found[:, :3], x)
    expected = [rows.std(0, correction=0).mean() for rows in x.split(group)]
    wanted = torch.stack(expected).repeat_interleave(group)
    torch.testing.assert_close(
        found[:, 3, 0, 0],
        wanted,
        rtol=0,
        atol=1e-3,
    )


def test_layers_keep_the_size_of_what_they_see() -> None:
    model = build(64, 64, widest=32)
    sizes = []
    for layer in model.generator.modules():
        if isinstance(layer, torch.nn.LeakyReLU):
            layer.register_forward_pre_hook(lambda _, seen: sizes.append(seen[0].std().item()))
    model.generator(torch.randn(64, 4))
    assert len(sizes) == 1 + 1 + 2 * 4
    assert all(0.5 < size < 2 for size in sizes)
