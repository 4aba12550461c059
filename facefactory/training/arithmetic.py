"""How numbers are computed: types, scaled losses, compiled networks, and what a device must have for them."""

import contextlib
import shutil
from typing import Any

import torch
from torch import nn

from facefactory import UserError
from facefactory.training import Training

# Types of the weights, and of what autocast computes in
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.float32,
    "float16": torch.float32,
    "float64": torch.float64,
}
LOW = {"bfloat16": torch.bfloat16, "float16": torch.float16}
COMPILERS = ("c++", "g++", "clang++")


def require(options: Training, device: torch.device) -> None:
    """UserError: the device, or this machine, lacks what the options ask for."""
    cuda = device.type == "cuda"
    bfloat16 = not cuda or torch.cuda.is_bf16_supported(including_emulation=False)
    if options.precision == "bfloat16" and not bfloat16:
        raise UserError(
            f"training.precision=bfloat16, but {torch.cuda.get_device_name(device)} has no "
            "bfloat16; give float16 or float32."
        )
    if options.compile and not any(map(shutil.which, COMPILERS)):
        raise UserError(
            f"training.compile=true needs a C++ compiler, and none of {', '.join(COMPILERS)} is "
            "on PATH; load one, or give training.compile=false."
        )


def fused(options: Training, device: torch.device) -> bool:
    """Whether optimisers step in one kernel: on CUDA if wanted, and where a step may have to be left out."""
    return options.precision == "float16" or (options.fused and device.type == "cuda")


def scaler(options: Training, device: torch.device) -> torch.amp.GradScaler:
    """What scales a phase's loss, so that small gradients survive in float16; it does nothing for other types.

    With fused optimisers a step whose gradients overflowed is left out on the device: nothing is read back.
    """
    return torch.amp.GradScaler(device.type, enabled=options.precision == "float16")


def autocast(options: Training, device: torch.device) -> Any:
    """The context in which networks compute."""
    low = LOW.get(options.precision)
    if low is None:
        return contextlib.nullcontext()
    return torch.autocast(device.type, low)


def memory_format(options: Training) -> torch.memory_format:
    """How images and kernels lie in memory."""
    return torch.channels_last if options.channels_last else torch.contiguous_format


def compile_networks(network: nn.Module) -> None:
    """Compile a network, or those in it, if it is no more than their container; names of weights stay."""
    forward = type(network).forward
    container = isinstance(network, nn.ModuleDict | nn.ModuleList)
    if container or forward is nn.Module.forward:
        for inner in network.children():
            compile_networks(inner)
    else:
        network.compile()
