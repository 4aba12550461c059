"""Checkpoints: saved by rename, named in images, complete enough to rebuild their networks without any YAML."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from facefactory import UserError, registry, rundir
from facefactory.facts import Facts, Label

FORMAT = 2
KEPT = 2  # newest checkpoints kept; the last one of a finished run is among them


@dataclass
class Checkpoint:
    """A moment of a training."""

    model: dict[str, Any]  # resolved name and options
    objective: dict[str, Any]  # the same of the objective
    facts: dict[str, Any]  # what the data fixed, as `plain` writes it
    networks: dict[str, Any]  # state dict of the model
    own: dict[str, Any]  # state dict of the objective: its buffers and networks
    averages: dict[str, dict[str, Any]]  # half-life [kimg] -> path of a network -> its averaged state dict
    optimisers: dict[str, Any]  # trained sub-module -> state dict
    clock: int  # images shown so far
    identity: str  # digest of everything that must not change between parts of one training
    segments: list[dict[str, Any]]  # {clock, images, order, seed}, one each time the data changed


def save(folder: Path, checkpoint: Checkpoint, guard: Callable[[], None]) -> Path:
    """Write `checkpoint-<clock>.pt` by rename, then forget all but the newest. `guard` may veto the rename."""
    path = folder / f"checkpoint-{checkpoint.clock:012d}.pt"
    with rundir.atomic(path) as temporary:
        torch.save({"format": FORMAT, **vars(checkpoint)}, temporary)
        guard()
    for old in sorted(folder.glob("checkpoint-*.pt"))[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


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
            return Checkpoint(**content)
    except Exception as error:
        raise UserError(
            f"{path} is not a checkpoint this version reads ({type(error).__name__}). Remove it to go on from the one before."
        ) from None
    raise UserError(
        f"{path} is not a checkpoint this version reads (format {written}, needed is {FORMAT}). Start a new "
        "run=…, go on with the FaceFactory that wrote it, or remove it to go on from the one before."
    )


def plain(facts: Facts) -> dict[str, Any]:
    """Facts as containers that any reader of checkpoints knows."""
    return asdict(facts)


def facts_of(found: Checkpoint) -> Facts:
    """The facts that `plain` wrote."""
    labels = {name: Label(label["kind"], tuple(label["classes"])) for name, label in found.facts["labels"].items()}
    return Facts(**{**found.facts, "labels": labels})


def build(model: dict[str, Any], facts: Facts, seed: int = 0) -> nn.Module:
    """A freshly initialised model; the same seed gives the same weights and leaves torch's own generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: nn.Module = registry.build("models", model, facts)
    return made


def rebuild(path: Path) -> tuple[Any, Checkpoint]:
    """A checkpoint's networks with the averaged weights that are scored, ready to use, and the checkpoint."""
    found = load(path)
    model = build(found.model, facts_of(found))
    model.load_state_dict(found.networks)
    average = next(iter(found.averages.values()))
    for place, state in average.items():
        model.get_submodule("" if place == "." else place).load_state_dict(state)
    return model.eval().requires_grad_(False), found


def digest(found: Checkpoint) -> str:
    """SHA-256 of the clock and the bytes of all weights, plain and averaged (a file's own bytes hold its name)."""
    seen = hashlib.sha256(str(found.clock).encode())
    averaged = [state for average in found.averages.values() for state in average.values()]
    for state in (found.networks, found.own, *averaged):
        for name, tensor in state.items():
            content = tensor.cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes()
            seen.update(name.encode() + content)
    return seen.hexdigest()
