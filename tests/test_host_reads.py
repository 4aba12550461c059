"""An iteration reads nothing back from the device, and with the device's draws hands nothing to it but the batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from host_reads import HostRead, NoReads, no_reads
from test_training import ALONE, BATCH, CLASSIFIER, GAN, VAE, everything, make_task, stream_of

from facefactory.data import Data
from facefactory.data.sets.index import Index
from facefactory.data.sets.loader import Batch, Columns
from facefactory.ranks import World
from facefactory.training import optimisers, trainer
from facefactory.training.log import Log
from facefactory.training.trainer import Trainer, fit

META = World(0, 1, torch.device("meta"))


@pytest.mark.parametrize(
    "read",
    [
        lambda values: values.sum().item(),
        lambda values: values.tolist(),
        lambda values: bool(values[0]),
        lambda values: values.cpu(),
        lambda values: values.numpy(),
        lambda values: float(values[0]),
        lambda values: 1 if values.sum() > 0 else 0,
        lambda values: values[values > 1],
        lambda values: values.nonzero(),
        lambda values: torch.equal(values, values),
        lambda values: torch.nn.functional.one_hot(values.long(), 9),
    ],
)
def test_the_watch_sees_a_read(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[torch.Tensor], Any]
) -> None:
    values = torch.arange(3.0)
    with pytest.raises(HostRead), no_reads(monkeypatch):
        read(values)
    with no_reads(monkeypatch):
        torch.where(values > 1, values, values.flip(0)).sum()


def on_gpus_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam counts its steps on the host, for all but fused kernels: those of CUDA."""
    fused = functools.partial(optimisers.build, fused=True)
    monkeypatch.setattr(optimisers, "build", lambda wanted, weights, _: fused(wanted, weights))


@everything
@pytest.mark.parametrize("draws", ["cpu", "device"])
def test_the_loop_reads_nothing_back_until_a_line_a_sample_or_a_checkpoint_is_due(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, draws: Any
) -> None:
    on_gpus_kernels(monkeypatch)
    watched = []
    inner = trainer._loop

    def loop(*arguments: Any) -> None:
        with no_reads(monkeypatch) as mode:
            inner(*arguments)
        watched.append(mode.operators)

    monkeypatch.setattr(trainer, "_loop", loop)
    cadences = {"checkpoint_kimg": 1.0, "log_kimg": 1.0, "sample_kimg": 1.0}
    task = make_task(
        index,
        tmp_path,
        kind,
        data=Data(shift=1, draws=draws),
        **cadences,
    )
    assert fit(task, ALONE)[1].clock == 72
    assert watched[0] > 6 * 50


@pytest.mark.parametrize("kind", [GAN, VAE, CLASSIFIER])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_nor_does_it_in_16_bits(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, precision: str
) -> None:
    on_gpus_kernels(monkeypatch)
    made = Trainer(make_task(index, tmp_path, kind, precision=precision), ALONE)
    log = Log(tmp_path, ALONE, "", 0)
    stream = stream_of(made)
    loaded = [next(stream) for _ in range(4)]
    made.step(loaded[0], 0, log)  # optimisers make their state
    with no_reads(monkeypatch):
        for number in (1, 2, 3):
            made.step(loaded[number], number * BATCH, log)


def test_the_loop_is_seen_to_read_when_a_line_is_due(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpus_kernels(monkeypatch)
    inner = trainer._loop

    def loop(*arguments: Any) -> None:
        with no_reads(monkeypatch):
            inner(*arguments)

    monkeypatch.setattr(trainer, "_loop", loop)
    with pytest.raises(HostRead):
        fit(make_task(index, tmp_path, VAE, log_kimg=0.024), ALONE)


# -- a device whose values the host cannot have: torch's meta device --------------------------------


class Apart(NoReads):
    """Raises where host and device exchange more than numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        target = named.get("device")
        if name == "_to_copy" and target is not None and target != tensors[0].device:
            raise HostRead(f"{tensors[0].device} to {target}")
        if name == "copy_" and tensors[0].device != tensors[1].device:
            raise HostRead(f"{tensors[1].device} to {tensors[0].device}")
        return func(*args, **named)


@everything
def test_on_a_device_apart_nothing_crosses_but_the_batch(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: _Nothing())
    data = Data(shift=1, draws="device")
    made = Trainer(make_task(index, tmp_path, kind, data=data), META)
    log = Log(tmp_path, META, "", 0)
    stream = stream_of(made)
    for number in range(4):
        loaded = moved(next(stream))
        if number < 2:  # purposes are met, optimisers make their state
            made.step(loaded, number * BATCH, log)
        else:
            with Apart():
                made.step(loaded, number * BATCH, log)
    assert {weights.device.type for weights in made.model.parameters()} == {"meta"}


class _Nothing:
    """No autocast: torch knows none for the meta device."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def moved(batch: Batch) -> Batch:
    """A batch on the meta device."""

    def columns(values: Columns) -> Columns:
        return {name: column.to("meta") for name, column in values.items()}

    return Batch(
        batch.images.to("meta"), columns(batch.labels), columns(batch.before), batch.positions
    )


def test_the_device_apart_sees_draws_of_the_cpu_cross(index: Index, tmp_path: Path) -> None:
    made = Trainer(make_task(index, tmp_path, VAE, data=Data(draws="cpu"), augment=[]), META)
    stream = stream_of(made)
    loaded = moved(next(stream))
    with pytest.raises(HostRead, match="cpu to meta"), Apart():
        made.step.parts(loaded, 0)
