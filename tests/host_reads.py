"""What tests call to find where the host reads from a device: each such read would make it wait for all that is queued."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Operators that hand a value, or a size that depends on values, to the host
READS = (
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "_unique",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
    "histc",
    "allclose",
)
METHODS = (
    *("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__"),
    *("__array__", "__contains__"),
)


class HostRead(AssertionError):
    """The host read from a device."""


class NoReads(TorchDispatchMode):
    """Raises at the first operator that reads."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        self.operators += 1
        name = func.overloadpacket.__name__
        if name in READS:
            raise HostRead(name)
        if name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
            for index in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        ):
            raise HostRead(f"{name} by a mask")
        return func(*args, **named)


@contextlib.contextmanager
def no_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[NoReads]:
    """Within it the first read raises HostRead, whether by a method of a tensor or inside of torch."""

    def refuse(method: str) -> Any:
        def read(self: torch.Tensor, *arguments: Any, **named: Any) -> Any:
            raise HostRead(f"Tensor.{method}")

        return read

    with monkeypatch.context() as patch, NoReads() as mode:
        for method in METHODS:
            patch.setattr(torch.Tensor, method, refuse(method))
        yield mode
