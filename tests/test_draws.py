"""Draws on the device: the published integers, slices that are slices, distributions, and trainings that use them."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from test_training import ALONE, BATCH, make_task, newest, same, stop_after

from facefactory import checkpoint, philox, ranks
from facefactory.data import Data
from facefactory.data.sets import loader
from facefactory.data.sets.index import Index
from facefactory.draws import CPU_ALGORITHM, Draws, algorithm
from facefactory.philox import Sheet
from facefactory.training.trainer import fit

CPU = torch.device("cpu")


def tensors(words: str) -> list[torch.Tensor]:
    return [torch.tensor([int(word, 16)]) for word in words.split()]


@pytest.mark.parametrize(
    ("counter", "key", "out"),
    [  # kat_vectors of Random123, the authors' own library: philox4x32 with 10 rounds
        (
            "00000000 00000000 00000000 00000000",
            "00000000 00000000",
            "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        ),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_has_the_published_words(counter: str, key: str, out: str) -> None:
    one, two, three, four = tensors(counter)
    first, second = tensors(key)
    found = philox.philox((one, two, three, four), (first, second))
    assert [f"{int(word):08x}" for word in found] == out.split()


def test_the_first_draws_of_a_purpose_are_pinned() -> None:
    """They are a file format: a resumed training relies on them."""
    sheet = Sheet(3, 12, 0, 12, CPU)
    assert philox.key_of(3, "z") == (0x47AD74A2, 0x0EA14B48)
    found = sheet.draw("uniform", 24, "z", 2)[0]
    assert (found * 2**24).tolist() == [6595913, 5018333]


def draws(lo: int, hi: int, seed: int = 1, clock: int = 24) -> Draws:
    return Draws(
        seed,
        clock,
        12,
        lo,
        hi,
        CPU,
        sheet=Sheet(seed, 12, lo, hi, CPU),
    )


@pytest.mark.parametrize("method", ["normal", "uniform"])
@pytest.mark.parametrize("columns", [1, 4, 5])
def test_a_ranks_draws_are_a_slice_that_it_draws_alone(method: str, columns: int) -> None:
    whole = getattr(draws(0, 12), method)("z", columns)
    assert whole.shape == (12, columns)
    for parts in ([0, 6, 12], [0, 4, 8, 12], [0, 1, 12]):
        slices = [draws(a, b) for a, b in itertools.pairwise(parts)]
        assert torch.equal(
            torch.cat([getattr(one, method)("z", columns) for one in slices]), whole
        )
    others = [draws(0, 12, seed=2), draws(0, 12, clock=36), draws(0, 12, clock=24 + 2**32)]
    assert all(not torch.equal(getattr(one, method)("z", columns), whole) for one in others)
    assert not torch.equal(getattr(draws(0, 12), method)("w", columns), whole)
    wider = getattr(draws(0, 12), method)("z", columns + 3)
    assert torch.equal(wider[:, :columns], whole)  # no draw depends on how many there are


def test_a_part_of_a_ranks_share_has_the_rows_of_its_positions() -> None:
    sheet = Sheet(1, 12, 4, 12, CPU)
    part = Draws(
        1,
        24,
        12,
        6,
        9,
        CPU,
        torch.float64,
        sheet,
    )
    expected = draws(0, 12).normal("z", 3)[6:9].double()
    assert torch.equal(part.normal("z", 3), expected)


def test_what_is_drawn_ahead_is_what_is_drawn_alone() -> None:
    """Over iterations in which purposes come, grow and pause, and after a jump of the clock."""
    ahead = Sheet(5, 8, 0, 8, CPU)
    clocks = [*range(0, 8 * 40, 8), 8000, 8008, 3]
    for clock in clocks:
        asked = [("normal", "z", 7), ("uniform", "flip", 1), ("normal", "w", 2 + clock // 64)]
        if clock % 24 == 0:
            asked.append(("uniform", "lazy", 2))
        for kind, purpose, columns in asked:
            alone = Sheet(5, 8, 0, 8, CPU).draw(kind, clock, purpose, columns)  # type: ignore[arg-type]
            drawn = ahead.draw(kind, clock, purpose, columns)  # type: ignore[arg-type]
            assert torch.equal(drawn, alone)
            assert drawn.is_contiguous()
            drawn.zero_()  # who has drawn may do as he likes
    assert len(ahead._clocks) > 1


def test_most_iterations_draw_nothing_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    inner = philox.philox
    monkeypatch.setattr(philox, "philox", lambda *words: calls.append(0) or inner(*words))
    sheet = Sheet(0, 8, 0, 8, CPU)
    for clock in range(0, 8 * 8 * philox.ITERATIONS, 8):
        for purpose in ("z", "w"):
            sheet.draw("normal", clock, purpose, 5)
        sheet.draw("uniform", clock, "flip", 1)
    assert len(calls) <= 3 + 2 * 9  # the first alone, then one call a kind and sheet


def test_a_large_batch_draws_less_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(philox, "SHEET_WORDS", 1000)
    sheet = Sheet(0, 100, 0, 100, CPU)
    for clock in (0, 100):
        sheet.draw("normal", clock, "z", 5)
    assert len(sheet._clocks) == 2


def test_uniforms_are_even_and_normals_are_normal_to_their_tails() -> None:
    count = 200_000
    sheet = Sheet(0, count, 0, count, CPU)
    uniform = sheet.draw("uniform", 0, "u", 5).double().numpy()
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert np.array_equal(uniform * 2**24, np.floor(uniform * 2**24))
    assert stats.kstest(uniform.ravel(), "uniform").pvalue > 0.001
    assert abs(np.corrcoef(uniform.T) - np.eye(5)).max() < 0.01

    normal = sheet.draw("normal", 0, "z", 5).double().numpy()
    values = normal.ravel()
    assert stats.kstest(values, "norm").pvalue > 0.001
    assert abs(np.corrcoef(normal.T) - np.eye(5)).max() < 0.01
    error = 1 / math.sqrt(len(values))
    assert abs(values.mean()) < 4 * error
    assert abs(values.var() - 1) < 4 * math.sqrt(2) * error
    assert abs(stats.skew(values)) < 4 * math.sqrt(6) * error
    assert abs(stats.kurtosis(values)) < 4 * math.sqrt(24) * error
    for beyond in (2, 3, 4):
        expected = len(values) * 2 * stats.norm.sf(beyond)
        assert abs((abs(values) > beyond).sum() - expected) < 5 * math.sqrt(expected)
    assert 4.5 < abs(values).max() < 6.7


def test_the_extreme_words_have_finite_normals() -> None:
    edge = torch.tensor([0, 2**32 - 1])
    found = philox.normals((edge, edge, edge, edge))
    assert found.isfinite().all()
    assert found.abs().max() < 6.7


def test_normals_are_the_formula_to_a_unit_in_the_last_place() -> None:
    generator = np.random.default_rng(0)
    words = generator.integers(0, 2**32, (4, 1000))
    one, two, three, four = torch.from_numpy(words)
    found = philox.normals((one, two, three, four)).numpy()
    for radial, angular, cosine in ((0, 1, 0), (2, 3, 2)):
        radius = np.sqrt(-2 * np.log((words[radial].astype(np.longdouble) + 1) / 2**32))
        angle = 2 * np.longdouble(np.pi) * words[angular] / 2**32
        for column, exact in ((cosine, np.cos(angle)), (cosine + 1, np.sin(angle))):
            expected = (radius * exact).astype(np.float32)
            np.testing.assert_array_max_ulp(found[:, column], expected, 1)


def test_auto_is_the_device_on_cuda_and_todays_algorithm_on_cpus() -> None:
    assert algorithm("auto", CPU) == algorithm("cpu", torch.device("cuda")) == CPU_ALGORITHM
    assert algorithm("auto", torch.device("cuda")) == algorithm("device", CPU) == philox.ALGORITHM


# -- trainings ---------------------------------------------------------------------------------------


def work(rank: int, size: int, folder: Path, index: Index, name: str, killed_after: int) -> None:
    """A rank of a training that draws on the device; some are killed at once, in the middle of it."""
    torch.set_num_threads(1)
    loader.AHEAD = 2 * BATCH
    if size > 1:
        os.environ.update(
            RANK=str(rank),
            WORLD_SIZE=str(size),
            GLOO_SOCKET_IFNAME="lo",
        )
        meeting = f"file://{folder}/meet-{name}-{killed_after}"
        torch.distributed.init_process_group(
            "gloo",
            meeting,
            rank=rank,
            world_size=size,
        )
    world = ranks.join(CPU) if size > 1 else ALONE
    asked = itertools.count()

    def stop() -> bool:
        if next(asked) == killed_after:
            os._exit(0)
        return False

    task = make_task(
        index,
        folder / name,
        batch_norm=False,
        should_stop=stop,
        data=Data(draws="device", shift=1),
        precision="float64",
        ranks=size,
        accumulate=2,
    )
    fit(task, world)
    if size > 1:
        torch.distributed.destroy_process_group()


def run(size: int, *arguments: Any) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["facefactory.training.trainer", "torch._dynamo", "pytest"])
    processes = [
        context.Process(target=work, args=(rank, size, *arguments)) for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=100)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * size


def test_one_two_and_three_ranks_draw_alike_and_go_on_with_the_same_bits(
    index: Index, tmp_path: Path
) -> None:
    weights = {}
    for size in (1, 2, 3):
        folder = tmp_path / str(size)
        folder.mkdir()
        run(size, folder, index, "whole", -1)
        run(size, folder, index, "parts", 4)
        assert newest(folder / "parts").clock < 72
        run(size, folder, index, "parts", -1)
        whole = newest(folder / "whole")
        parts = newest(folder / "parts")
        assert whole.clock == 72
        assert same(vars(whole), vars(parts))
        assert [segment["draws"] for segment in whole.segments] == [philox.ALGORITHM]
        weights[size] = whole.networks
    for name, tensor in weights[1].items():
        for size in (2, 3):
            assert torch.allclose(tensor, weights[size][name], rtol=0, atol=1e-9), (name, size)


def test_another_algorithm_is_another_training(index: Index, tmp_path: Path) -> None:
    for draws_ in ("cpu", "device", "auto"):
        fit(make_task(index, tmp_path / draws_, data=Data(draws=draws_)), ALONE)  # type: ignore[arg-type]
    on_cpu, on_device, auto = (
        newest(tmp_path / name).networks for name in ("cpu", "device", "auto")
    )
    assert same(on_cpu, auto)
    assert not same(on_cpu, on_device)


def test_a_device_that_draws_otherwise_opens_a_segment_and_says_so(
    index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a training that began on a CPU goes on on a GPU: `auto` stays, its meaning changes."""
    fit(make_task(index, tmp_path, should_stop=stop_after(3)), ALONE)
    before_names = newest(tmp_path)
    for segment in before_names.segments:
        del segment["draws"]  # as older versions wrote it
    checkpoint.save(tmp_path / "checkpoints", before_names, lambda: None)
    fit(make_task(index, tmp_path, should_stop=stop_after(1)), ALONE)
    assert len(newest(tmp_path).segments) == 1
    capsys.readouterr()
    fit(make_task(index, tmp_path, data=Data(draws="device")), ALONE)
    assert (
        "training: random numbers come from philox4x32-10-v1 from here on"
        in capsys.readouterr().err
    )
    found = newest(tmp_path).segments
    assert [one.get("draws") for one in found] == [None, philox.ALGORITHM]
    assert found[1]["clock"] == 48
