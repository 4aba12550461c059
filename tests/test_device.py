"""GPUs by stand-ins: which group computes, who waits for whom, what comes back to the host and when."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import distributed as dist

from facefactory import ranks
from facefactory.data.sets import transfer
from facefactory.training import step


def test_gpus_compute_in_a_group_of_their_own_and_hosts_agree_in_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No GPU here: what torch.distributed is asked for is written down."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def group(**named: Any) -> str:
        asked.append(("group", named))
        return str(named["backend"])

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(
        dist, "init_process_group", lambda backend, **named: asked.append((backend, named))
    )
    monkeypatch.setattr(dist, "new_group", group)
    gpu = torch.device("cuda", 1)
    world = ranks.join(gpu)
    assert (world.rank, world.size, world.talk, world.compute) == (1, 2, "gloo", "nccl")
    assert asked == [
        ("gloo", {"timeout": timedelta(hours=24)}),
        ("group", {"backend": "gloo", "timeout": timedelta(hours=24)}),
        ("group", {"backend": "nccl", "timeout": timedelta(minutes=30), "device_id": gpu}),
    ]

    # sums of tensors and gradients go there, and nowhere else
    summed: list[Any] = []
    monkeypatch.setattr(dist, "all_reduce", lambda values, group: summed.append(group))
    world.sum(torch.zeros(1))
    assert summed == ["nccl"]
    made: dict[str, Any] = {}
    monkeypatch.setattr(
        step, "DistributedDataParallel", lambda module, **named: made.update(named)
    )
    step.parallel(SimpleNamespace(), world)  # type: ignore[arg-type]
    assert made["process_group"] == "nccl"
    assert made["device_ids"] == [1]


@pytest.mark.parametrize(
    ("local_rank", "count", "index"),
    [
        ("0", 1, 0),
        ("3", 4, 3),
        ("3", 1, 0),
        (None, 2, 0),
    ],
)
def test_a_rank_computes_on_its_gpu_also_where_it_sees_that_one_alone(
    monkeypatch: pytest.MonkeyPatch, local_rank: str | None, count: int, index: int
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert ranks.device_of("auto", 1) == torch.device("cuda", index)
    assert chosen == [torch.device("cuda", index)]


@pytest.fixture
def kernels() -> Any:
    """What a test chooses does not outlive it."""
    before = torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    yield
    torch.backends.cudnn.benchmark = before[0]
    torch.use_deterministic_algorithms(before[1])


@pytest.mark.usefixtures("kernels")
def test_kernels_are_raced_unless_bits_shall_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for deterministic in (True, False):
        ranks.set_arithmetic(deterministic, tf32=False)
        assert torch.backends.cudnn.benchmark is not deterministic
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        assert not torch.backends.cudnn.allow_tf32


def test_what_comes_to_the_host_is_waited_for_while_the_next_is_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tensors pretend to lie on a GPU; its stream is a list."""
    happened: list[str] = []

    class Far:
        """A tensor on a GPU."""

        def __init__(self, number: int) -> None:
            self.tensor = torch.full((2,), number)
            self.shape, self.dtype, self.is_cuda, self.device = (2,), torch.int64, True, "cuda:0"

    class Stream:
        def record_event(self) -> SimpleNamespace:
            number = len([word for word in happened if word.startswith("compute")])
            return SimpleNamespace(synchronize=lambda: happened.append(f"wait {number}"))

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda shape, dtype, pin_memory: empty(shape, dtype=dtype))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(
        torch.Tensor, "copy_", lambda self, far, non_blocking: self.fill_(int(far.tensor[0]))
    )

    def parts() -> Any:
        for number in (1, 2, 3):
            happened.append(f"compute {number}")
            yield Far(number), Far(10 * number)

    for one, other in transfer.to_host(parts()):
        happened.append(f"use {int(one[0])} {int(other[0])}")
    assert happened == [
        *("compute 1", "compute 2", "wait 1", "use 1 10"),
        *("compute 3", "wait 2", "use 2 20", "wait 3", "use 3 30"),
    ]


def test_on_cpus_tensors_come_as_they_are() -> None:
    tensor = torch.arange(3)
    ((same,),) = transfer.to_host([(tensor,)])
    assert same is tensor
    assert transfer.send(tensor, torch.device("cpu")) is tensor
