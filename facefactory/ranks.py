"""Ranks: who am I, where do I compute, and agreement with the others."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from facefactory import UserError

# Rank 0 may pack a set and train a judge before it joins; the others wait for it from the start.
JOIN_WAIT = timedelta(hours=24)

# GPUs that wait so long for each other's gradients have lost one; samples and checkpoints take minutes
STEP_WAIT = timedelta(minutes=30)


@dataclass(frozen=True)
class World:
    """This process among the ranks."""

    rank: int
    size: int
    device: torch.device
    talk: Any = None  # a gloo group for what concerns hosts, so that no GPU waits for it
    compute: Any = None  # the group of the devices that compute; None: the default one

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks."""
        if self.size > 1:
            dist.all_reduce(values, group=self.compute)
        return values

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier(group=self.talk)


class Vote:
    """What any rank says yes to, told to all one call later: nobody waits for the slowest.

    All ranks call it equally often; alone, a rank hears itself at once.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: tuple[Tensor, Any] | None = None

    def __call__(self, flags: Sequence[bool]) -> list[bool]:
        """Say yes or no to each question; whether any rank said yes to it the call before."""
        if self.world.size == 1:
            return list(flags)
        answers = self.last() or [False] * len(flags)
        said = torch.tensor(flags, dtype=torch.uint8)
        handle = dist.all_reduce(said, dist.ReduceOp.MAX, group=self.world.talk, async_op=True)
        self.asked = said, handle
        return answers

    def last(self) -> list[bool]:
        """What was said in the last call, and is not told yet; empty where nothing was asked."""
        if self.asked is None:
            return []
        said, handle = self.asked
        handle.wait()
        self.asked = None
        return [bool(value) for value in said.tolist()]


def device_of(wanted: str, threads: int) -> torch.device:
    """Where this process computes, for `auto`, `cpu` or `cuda`; sets its threads.

    Raises:
        UserError: CUDA was asked for and is not there.
    """
    torch.set_num_threads(threads)
    granted = wanted == "auto" and "SLURM_JOB_GPUS" in os.environ
    if (wanted == "cuda" or granted) and not torch.cuda.is_available():
        asked = "Slurm granted GPUs" if granted else "training.device=cuda"
        raise UserError(
            f"{asked}, but torch {torch.__version__} (built for CUDA {torch.version.cuda}) sees no "
            "GPU. Check nvidia-smi on this node, ask Slurm for a GPU, install a torch build for "
            "this driver, or give training.device=cpu."
        )
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    # a rank that Slurm bound to its GPU sees that one alone
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def set_arithmetic(deterministic: bool, tf32: bool) -> None:
    """Choose CUDA's kernels: those whose bits repeat, or those that a race wins; and whether float32 may be rounded to TF32's 10 bits."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = not deterministic
    # as use_deterministic_algorithms, which loads the compiler
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def join(device: torch.device) -> World:
    """Join the ranks that RANK, WORLD_SIZE and MASTER_ADDR/PORT describe; without them, a world of one."""
    rank = int(os.environ.get("RANK", 0))
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return World(rank, size, device)

    # all wait for the first one here
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=JOIN_WAIT)
    return World(rank, size, device, *groups(device))


def alone(device: torch.device) -> World:
    """A world of one."""
    return World(0, 1, device)


def groups(device: torch.device) -> tuple[Any, Any]:
    """The group in which hosts agree, and that in which devices compute (None: the default one)."""
    talk = dist.new_group(backend="gloo", timeout=JOIN_WAIT)
    if device.type != "cuda":
        return talk, None

    # bound to its device from the start; a lost rank ends it
    return talk, dist.new_group(backend="nccl", timeout=STEP_WAIT, device_id=device)
