"""From the host to a device and back, so that neither waits for the other."""

from collections import deque
from collections.abc import Iterable, Iterator

import torch


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host on a device; a GPU copies it by itself, and the host goes on."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(parts: Iterable[tuple[torch.Tensor, ...]]) -> Iterator[tuple[torch.Tensor, ...]]:
    """Tensors of a device as the host's, part by part: each is copied, and used, while the device works on the next."""
    copied = deque[tuple[tuple[torch.Tensor, ...], torch.cuda.Event]]()
    for part in parts:
        if not part[0].is_cuda:
            yield tuple(tensor.cpu() for tensor in part)
            continue
        copies = [torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in part]
        for copy, tensor in zip(copies, part, strict=True):
            copy.copy_(tensor, non_blocking=True)
        copied.append((tuple(copies), torch.cuda.current_stream(part[0].device).record_event()))
        if len(copied) == 2:
            yield _when_copied(*copied.popleft())
    for last in copied:
        yield _when_copied(*last)


def _when_copied(
    copies: tuple[torch.Tensor, ...], done: torch.cuda.Event
) -> tuple[torch.Tensor, ...]:
    done.synchronize()
    return copies
