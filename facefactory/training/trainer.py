"""THE loop. It knows phases, images and a clock; it knows no GAN, no Slurm, no YAML and no score."""

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from facefactory import UserError, checkpoint
from facefactory.data import Data, pixels
from facefactory.data.loader import Batch as Loaded
from facefactory.data.loader import Shards, batches, on_device
from facefactory.models import Facts
from facefactory.objectives import Batch, Objective
from facefactory.training import Training, ema
from facefactory.training.augment import augment
from facefactory.training.distributed import PhaseModule, World, parallel
from facefactory.training.log import Log
from facefactory.training.random import Draws

DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}  # master weights


@dataclass(frozen=True)
class Task:
    """One training: what is trained on what, and where it leaves its files.

    `identity` names everything that must stay the same when the training goes on after a break; `draw_samples(model,
    clock)` may write sample grids; `guard` raises when another process owns `folder`; `should_stop` is asked once an iteration.
    """

    model: dict[str, Any]
    objective: Objective
    shards: Shards
    options: Training
    seed: int
    folder: Path
    identity: str
    label: str = "training"
    data: Data = field(default_factory=Data)
    guard: Callable[[], None] = lambda: None
    should_stop: Callable[[], bool] = lambda: False
    draw_samples: Callable[[nn.Module, int], None] = lambda model, clock: None


class Trainer:
    """Networks, optimisers and the clock of one training."""

    def __init__(self, task: Task, world: World) -> None:
        options = task.options
        self.task, self.world, self.folder, self.clock, self.saved = task, world, task.folder / "checkpoints", 0, -1
        made = checkpoint.build(task.model, Facts(**task.shards.index.facts), task.seed).to(
            world.device, DTYPES[options.precision]
        )
        self.model = made.train()
        self.average = copy.deepcopy(made).eval().requires_grad_(False)
        self.phases = task.objective.phases
        self.modules = {phase.name: PhaseModule(made, task.objective, phase.name, phase.module) for phase in self.phases}
        self.optimisers = {
            phase.module: torch.optim.Adam(self.modules[phase.name].parameters(), options.lr, tuple(options.betas), foreach=True)  # type: ignore[arg-type]
            for phase in self.phases
        }
        self.forwards = {name: parallel(module, world) for name, module in self.modules.items()}
        self.order, order = task.shards.order(task.data, task.seed)
        self.segment: dict[str, Any] = {"images": task.shards.index.images_digest, "order": order, "seed": task.seed}
        if task.objective.uses_labels or task.data.balance:
            self.segment["labels"] = task.shards.index.labels_digest
        self.segments = [{"clock": 0, **self.segment}]
        self.share = options.batch_per_rank()
        self.lo = world.rank * self.share

    def state(self) -> checkpoint.Checkpoint:
        """Everything a continuation needs."""
        facts, nets = self.task.shards.index.facts, (self.model.state_dict(), self.average.state_dict())
        optimisers = {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()}
        return checkpoint.Checkpoint(self.task.model, facts, *nets, optimisers, self.clock, self.task.identity, self.segments)

    def save(self) -> None:
        """Write a checkpoint (rank 0); FloatingPointError where a weight is not finite."""
        if not all(bool(weights.isfinite().all()) for weights in self.model.parameters()):
            raise FloatingPointError(
                f"weights not finite at {self.clock / 1000:g} kimg: the training diverged; lower training.lr."
            )
        if self.world.rank == 0:
            checkpoint.save(self.folder, self.state(), self.task.guard)
        self.saved = self.clock

    def resume(self) -> None:
        """Continue from the newest checkpoint, if there is one; UserError where it is of another training or other images."""
        newest = checkpoint.latest(self.folder)
        if newest is None:
            return
        found = checkpoint.load(newest)
        if found.identity != self.task.identity:
            raise UserError(f"{self.task.folder} holds checkpoints of another training; choose another run=… name.")
        self.segments = found.segments
        last = {**self.segment, **found.segments[-1]}  # older checkpoints know no labels
        if changed := [key for key, now in self.segment.items() if last[key] != now]:
            if self.task.data.changed != "accept":
                told = {key: (str(last[key])[:80], str(self.segment[key])[:80]) for key in changed}
                changes = "; ".join(f"{key} was {before}, is {now}" for key, (before, now) in told.items())
                raise UserError(
                    f"the set changed since this training was interrupted at {found.clock / 1000:g} kimg ({changes}). "
                    "Put the old set back, start a new run=…, or give data.changed=accept to go on with the new one."
                )
            self.segments = [*self.segments, {"clock": found.clock, **self.segment}]
        self.model.load_state_dict(found.networks)
        self.average.load_state_dict(found.average)
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(found.optimisers[name])
        self.clock = self.saved = found.clock

    def parts(self, loaded: Loaded) -> list[Batch]:
        """The rank's slice of a global batch, cut for gradient accumulation, flipped and shifted."""
        options, device, dtype = self.task.options, self.world.device, DTYPES[self.task.options.precision]
        step = self.share // options.accumulate
        found = []
        for start in range(0, self.share, step):
            draws = Draws(self.task.seed, self.clock, options.batch_size, self.lo + start, self.lo + start + step, device, dtype)
            images = pixels.to_model(loaded.images[start : start + step]).to(dtype)
            if self.task.data.flip:
                images = torch.where((draws.uniform("flip", 1) < 0.5).view(-1, 1, 1, 1), images.flip(3), images)
            if self.task.data.shift:
                images = pixels.shift(images, draws.uniform("shift", 2), self.task.data.shift)
            labels = {name: column[start : start + step] for name, column in loaded.labels.items()}
            found.append(Batch(images, labels, draws.normal, partial(augment, kinds=options.augment, uniform=draws.uniform)))
        return found

    def step(self, loaded: Loaded, log: Log) -> None:
        """All phases on one batch, then the average; the clock advances by the global batch."""
        options, iteration = self.task.options, self.clock // self.task.options.batch_size
        parts = self.parts(loaded)
        for phase in self.phases:
            if iteration % phase.interval == 0:
                self.backward(phase.name, parts, log)
                self.optimisers[phase.module].step()
        self.clock += options.batch_size
        ema.update(self.average, self.model, self.clock, options.batch_size, options.ema_half_life_kimg)

    def backward(self, name: str, parts: list[Batch], log: Log | None) -> None:
        """Gradients of a phase: mean over the global batch, equal on all ranks."""
        forward, module = self.forwards[name], self.modules[name]
        self.model.requires_grad_(False)
        module.trained.requires_grad_(True)
        module.trained.zero_grad(set_to_none=True)
        for number, part in enumerate(parts):
            quiet = contextlib.nullcontext() if number == len(parts) - 1 or self.world.size == 1 else forward.no_sync()
            autocast = torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.task.options.precision == "bfloat16")
            with quiet:
                with autocast:
                    loss, shown = forward(part)
                (loss / len(parts)).backward()
            if log is not None:
                log.add(shown, 1 / len(parts))


def fit(task: Task, world: World, until_kimg: float | None = None) -> tuple[str, Trainer]:
    """Train to `until_kimg` (default: the whole budget) from the newest checkpoint, if there is one.

    Returns `finished` or `interrupted` (a stop was asked for; a checkpoint was saved), and the trainer.

    Raises:
        UserError: the checkpoints belong to something else.
        FloatingPointError: the training diverged.
    """
    options, trainer = task.options, Trainer(task, world)
    trainer.resume()
    total = round((until_kimg or options.total_kimg) * 1000)
    log = Log(task.folder, world, task.label, trainer.clock, options.log_kimg > 0)
    task.shards.stage(task.data.stage, task.should_stop)
    place = (trainer.clock, options.batch_size, trainer.lo, trainer.lo + trainer.share)
    labels = task.shards.index.content["labels"] if task.objective.uses_labels else ()
    stream = batches(task.shards, trainer.order, *place, world.device.type == "cuda", labels)
    with contextlib.closing(stream), contextlib.closing(log):
        loaded = on_device(stream, world.device)
        while trainer.clock < total and not world.any(task.should_stop()):
            before = trainer.clock
            log.progress(before, total)
            trainer.step(next(loaded), log)
            if _crossed(before, trainer.clock, options.log_kimg):
                log.write(trainer.clock)
            if _crossed(before, trainer.clock, options.checkpoint_kimg):
                trainer.save()
            if _crossed(before, trainer.clock, options.sample_kimg) and world.rank == 0:
                task.draw_samples(trainer.average, trainer.clock)
        log.write(trainer.clock)
        log.progress(trainer.clock, max(trainer.clock, total))
    if trainer.saved != trainer.clock:
        trainer.save()
    world.barrier()
    return "finished" if trainer.clock >= total else "interrupted", trainer


def _crossed(before: int, after: int, every_kimg: float) -> bool:
    """Whether a multiple of `every_kimg` (0 = never) lies behind `before` and not behind `after`."""
    every = max(1, round(every_kimg * 1000))
    return every_kimg > 0 and before // every != after // every
