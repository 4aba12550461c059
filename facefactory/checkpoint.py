"""Checkpoints: saved by rename, named in images, enough to rebuild networks without any YAML."""

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_origin

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from facefactory import UserError, registry, rundir
from facefactory.facts import Facts, Label

FORMAT = 2
KEPT = 2  # newest checkpoints kept; the last one of a finished run is among them
VALUE = 4  # bytes of a float32
GB = 1e9  # bytes
Snapshot = Literal["last", "best"]  # of a training
COUNTED = 2**63  # beyond that torch itself counts no elements

# Copies of the weights in a training: themselves, their average and gradient, Adam's two moments
TRAINED = 5

# Where the most memory of a control group stands, version 2 and 1
MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclass
class Checkpoint:
    """A moment of a training."""

    model: dict[str, Any]  # resolved name and options
    objective: dict[str, Any]  # the same of the objective
    facts: dict[str, Any]  # what the data fixed, as `plain` writes it
    networks: dict[str, Any]  # state dict of the model
    own: dict[str, Any]  # state dict of the objective: its buffers and networks
    # half-life [kimg] -> path of a network -> its averaged state dict
    averages: dict[str, dict[str, Any]]
    optimisers: dict[str, Any]  # trained sub-module -> state dict
    clock: int  # images shown so far
    identity: str  # digest of everything that must not change between parts of one training
    # {clock, images, order, seed, draws}, one each time the data or the draws changed
    segments: list[dict[str, Any]]
    # phase -> state of what scales its loss; empty but in float16
    scalers: dict[str, Any] = field(default_factory=dict)
    # sums of scalars since the last look at its health; empty where nobody looks
    watched: dict[str, Any] = field(default_factory=dict)
    # what snapshots scored, and the averaged weights of the best; empty where none was
    snapshots: dict[str, Any] = field(default_factory=dict)


def save(
    folder: Path, checkpoint: Checkpoint, guard: Callable[[], None], kept: int = KEPT
) -> Path:
    """Write `checkpoint-<clock>.pt` by rename, then forget all but the newest.

    `guard` may veto the rename.
    """
    path = _save(folder, checkpoint, guard)
    for old in sorted(folder.glob("checkpoint-*.pt"))[:-kept]:
        old.unlink(missing_ok=True)
    return path


def back_to(folder: Path, checkpoint: Checkpoint, guard: Callable[[], None]) -> None:
    """Write a checkpoint, then forget all that are newer, the newest first."""
    path = _save(folder, checkpoint, guard)
    for newer in sorted(folder.glob("checkpoint-*.pt"), reverse=True):
        if newer > path:
            newer.unlink(missing_ok=True)


def _save(folder: Path, checkpoint: Checkpoint, guard: Callable[[], None]) -> Path:
    path = folder / f"checkpoint-{checkpoint.clock:012d}.pt"
    with rundir.atomic(path) as temporary:
        _write(temporary, {"format": FORMAT, **vars(checkpoint)}, path)
        guard()
    return path


def _write(temporary: Path, content: dict[str, Any], path: Path) -> None:
    """torch.save; OSError of the disk where it is full, which torch hides behind a fault of its own."""
    try:
        with open(temporary, "wb") as stream:
            torch.save(content, stream)
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        if cause is None or cause.errno is None:
            raise
        needed = sum(tensor.nbytes for tensor in _tensors(content))
        words = f"{os.strerror(cause.errno)}; it needs {needed / GB:.3f} GB"
        raise OSError(cause.errno, words, str(path)) from None


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested lists and dictionaries."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from itertools.chain.from_iterable(map(_tensors, value.values()))
    elif isinstance(value, list):
        yield from itertools.chain.from_iterable(map(_tensors, value))


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a folder."""
    return max(folder.glob("checkpoint-*.pt"), default=None)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint without unpickling anything but tensors and plain containers.

    Raises:
        UserError: not a checkpoint of this format.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        written = content.pop("format")
        if written == FORMAT:
            return _checked(Checkpoint(**content))
    except Exception as error:
        raise UserError(
            f"{path} is not a checkpoint this version reads ({type(error).__name__}). "
            "Remove it to go on from the one before."
        ) from None
    raise UserError(
        f"{path} is not a checkpoint this version reads (format {written}, needed is {FORMAT}). "
        "Start a new run=…, go on with the FaceFactory that wrote it, "
        "or remove it to go on from the one before."
    )


def _checked(found: Checkpoint) -> Checkpoint:
    """A checkpoint whose parts are what they must be; TypeError: they are not."""
    for part in fields(Checkpoint):
        kind: Any = part.type
        if not isinstance(getattr(found, part.name), get_origin(kind) or kind):
            raise TypeError(part.name)
    return found


def plain(facts: Facts) -> dict[str, Any]:
    """Facts as containers that any reader of checkpoints knows."""
    return asdict(facts)


def facts_of(found: Checkpoint) -> Facts:
    """The facts that `plain` wrote."""
    labels = {}
    for name, label in found.facts["labels"].items():
        labels[name] = Label(label["kind"], tuple(label["classes"]))
    return Facts(**{**found.facts, "labels": labels})


class _NoDraws(TorchFunctionMode):
    """Leaves out the random draws of an initialisation.

    On torch's meta device they would load half of torch for nothing.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        filled = args[0] if args else named.get("tensor")
        draws = getattr(func, "__name__", "") in ("normal_", "uniform_")
        if draws and getattr(filled, "is_meta", False):
            return filled
        return func(*args, **named)


def parameters(model: dict[str, Any], facts: Facts) -> int | None:
    """How many a model would have, before any of them takes memory (on torch's meta device).

    None: its code cannot tell. Raises what building raises for options that do not fit.
    """
    try:
        with _NoDraws(), torch.device("meta"):
            network: nn.Module = registry.build("models", model, facts)
    except UserError:
        raise
    except Exception as error:  # a model of the user's may do more than a meta device can
        overflown = "overflow" in str(error).lower()
        return COUNTED if overflown else None
    return sum(weights.numel() for weights in network.parameters())


def memory_here() -> float:
    """Bytes of memory that this process can have at most: the machine's, or its control group's."""
    most = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            most = min(most, float(path.read_text()))
    return most


def require_memory(
    model: dict[str, Any],
    facts: Facts,
    copies: float = 1,
    beside: float = 0,
    room: float | None = None,
    whose: str = "this machine",
) -> None:
    """Raise UserError, before anything is built, if a model needs more than `room` bytes.

    It needs so many copies of its weights, and `beside` bytes. The message says which power of two
    of an option that was enlarged would fit. `room` is by default `memory_here`.
    """
    most = memory_here() if room is None else room

    def needed(options: dict[str, Any]) -> float:
        count = parameters(options, facts)
        return 0 if count is None else copies * VALUE * count + beside

    wanted = needed(model)
    if wanted <= most:
        return

    # how much too large it is, in words
    count = parameters(model, facts) or 0
    size = f"{count:,}" if count < 10**9 else f"{count:.2g}"
    amount = f"{wanted / GB:,.1f} GB"
    if count >= COUNTED:
        size = "more than 9e18"
        amount = "more memory than there is"
    advice = _smaller(model, lambda options: needed(options) <= most)
    raise UserError(
        f"{model['name']} with these options has {size} parameters and needs {amount}; "
        f"{whose} has {most / GB:,.1f} GB: {advice}."
    )


def _smaller(model: dict[str, Any], fits: Callable[[dict[str, Any]], bool]) -> str:
    """The first option beyond its default that can be made small enough, in words."""
    for name, parameter in registry.options("models", model["name"]).items():
        default = parameter.default
        value = model.get(name, default)
        if type(value) is not int or type(default) is not int or value <= default:
            continue
        for power in reversed(range(min(62, value.bit_length()))):
            if fits({**model, name: 2**power}):
                return f"{name}={value} is too large, {name}={2**power} would fit"
    return "make it smaller"


def build(model: dict[str, Any], facts: Facts, seed: int = 0) -> nn.Module:
    """A freshly initialised model.

    The same seed gives the same weights and leaves torch's own generator alone.
    UserError: its weights need more memory than this process can have.
    """
    require_memory(model, facts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = registry.build("models", model, facts)
    return network


def best_snapshot(found: Checkpoint) -> Checkpoint | None:
    """The checkpoint as it was at the best of the snapshots that it keeps; None: it keeps none.

    Networks of which there are no averages, as a discriminator, are those of its own clock.
    """
    best = found.snapshots.get("best")
    if not best:
        return None
    first = next(iter(found.averages))
    averages = {first: best["average"]}
    return replace(found, clock=best["clock"], averages=averages, own=best["own"])


def at_snapshot(path: Path, snapshot: Snapshot) -> Checkpoint:
    """A checkpoint, or what it keeps of the best snapshot; UserError: it keeps none."""
    found = load(path)
    if snapshot == "last":
        return found
    best = best_snapshot(found)
    if best is None:
        raise UserError(f"{path} keeps no snapshot; give snapshot=last.")
    return best


def rebuild(path: Path, snapshot: Snapshot = "last") -> tuple[Any, Checkpoint]:
    """A checkpoint's networks with the averaged weights that are scored, and the checkpoint.

    They are ready to use. UserError: the best snapshot is asked for, and it keeps none.
    """
    found = at_snapshot(path, snapshot)
    model: Any = build(found.model, facts_of(found))
    model.load_state_dict(found.networks)
    average = next(iter(found.averages.values()))
    for place, state in average.items():
        model.get_submodule("" if place == "." else place).load_state_dict(state)
    if hasattr(model, "at"):
        model.at(found.clock / 1000)
    return model.eval().requires_grad_(False), found


def digest(found: Checkpoint) -> str:
    """SHA-256 of the clock and the bytes of all weights, plain and averaged.

    A file's own bytes would not do: they hold its name.
    """
    sha256 = hashlib.sha256(str(found.clock).encode())
    averaged = [state for average in found.averages.values() for state in average.values()]
    for state in (found.networks, found.own, *averaged):
        for name, tensor in state.items():
            content = tensor.cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes()
            sha256.update(name.encode() + content)
    return sha256.hexdigest()
