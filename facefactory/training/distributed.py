"""Ranks: who am I, agree on something, average gradients through DistributedDataParallel."""

import ctypes
import os
import signal
import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from facefactory import UserError
from facefactory.objectives import Batch, Objective
from facefactory.training import Training


@dataclass(frozen=True)
class World:
    """This process among the ranks."""

    rank: int
    size: int
    device: torch.device

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes (an all-reduce of one number; all ranks must ask)."""
        return flag if self.size == 1 else bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over ranks."""
        if self.size > 1:
            dist.all_reduce(values)
        return values / self.size

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier()


def die_with_parent() -> None:
    """Ask Linux to kill this process when its launcher is gone: an orphaned rank would train on unseen."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def device_of(options: Training) -> torch.device:
    """Where this process computes; sets its threads.

    Raises:
        UserError: CUDA was asked for and is not there.
    """
    torch.set_num_threads(options.threads)
    granted = options.device == "auto" and "SLURM_JOB_GPUS" in os.environ
    if (options.device == "cuda" or granted) and not torch.cuda.is_available():
        raise UserError(
            f"{'Slurm granted GPUs' if granted else 'training.device=cuda'}, but torch {torch.__version__} (built for CUDA "
            f"{torch.version.cuda}) sees no GPU. Check nvidia-smi on this node, ask Slurm for a GPU, install a torch build for "
            "this driver, or give training.device=cpu."
        )
    if options.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device


def join(options: Training) -> World:
    """Join the ranks that RANK, WORLD_SIZE, LOCAL_RANK and MASTER_ADDR/PORT describe; without them, a world of one."""
    device, rank, size = device_of(options), int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(rank, size, device)


class PhaseModule(nn.Module):
    """A phase as a module whose forward is its loss, so that DDP sees one forward a backward, double backward included.

    Only what the phase trains is registered: gradients of the rest are neither computed nor reduced.
    """

    def __init__(self, model: nn.Module, objective: Objective, name: str, trained: str) -> None:
        super().__init__()
        self.trained = model if trained == "." else model.get_submodule(trained)
        self._inside = (model, objective, name)  # a tuple hides the other networks from DDP

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        model, objective, name = self._inside
        loss, shown = objective.loss(name, model, batch)
        # Every parameter gets a gradient, if only zero (R1 does not reach the last bias): two phases that train one network
        # are two DDPs on its parameters, and each counts what the other used; a gradient that is missing then is an error.
        loss = loss + 0 * sum(parameter.sum() for parameter in self.trained.parameters())
        return loss, {key: value.detach() for key, value in shown.items()}


def parallel(phase: PhaseModule, world: World) -> Any:
    """The phase under DDP.

    `find_unused_parameters=True` keeps the buckets as they were laid out at first (tried: otherwise they move after
    one iteration and a resumed run differs in its last bits) and allows phases, like R1, that leave a bias without gradient.
    """
    if world.size == 1:
        return phase
    warnings.filterwarnings("ignore", message="Grad strides do not match")  # of 1 x 1 kernels: no copy is saved there
    devices = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(phase, device_ids=devices, find_unused_parameters=True)
