"""THE loop. It knows phases, images and a clock; it knows no GAN, no Slurm, no YAML and no score."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from facefactory import UserError, checkpoint, conditions, registry, say
from facefactory.data import Data
from facefactory.data.sets.device import Share, stream
from facefactory.data.sets.loader import Shards
from facefactory.draws import CPU_ALGORITHM
from facefactory.facts import Facts
from facefactory.ranks import Vote, World
from facefactory.schedule import word
from facefactory.training import (
    FROZEN,
    Training,
    arithmetic,
    augmentations,
    finetune,
    health,
)
from facefactory.training.log import Log
from facefactory.training.snapshots import Scorer, Snapshots
from facefactory.training.step import Step, trained_modules


@dataclass(frozen=True)
class Task:
    """One training: what is trained on what, and where it leaves its files.

    `identity` names everything that must stay the same when the training goes on after a break; `draw_samples(model,
    clock)` may write sample grids; `guard` raises when another process owns `folder`; `should_stop` is asked once an iteration.
    """

    model: dict[str, Any]  # name and options
    objective: dict[str, Any]  # name and options
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
    initial: Path | None = None  # a checkpoint whose weights it starts from
    scorer: Scorer | None = None  # of snapshots


def check(
    model: dict[str, Any],
    objective: dict[str, Any],
    options: Training,
    facts: Facts,
    initial: Path | None = None,
) -> None:
    """Build everything once, to find what cannot be trained before anything starts: UserError.

    `initial`: a checkpoint whose weights it shall start from.
    """
    augmentations.check(options.augment)
    made = checkpoint.build(model, facts)
    component = registry.module("objectives", objective["name"]).Component
    _require(component.needs, made, model, objective)
    loss = registry.build("objectives", objective, facts, made)
    _require(loss.needs, made, model, objective)
    conditions.width(getattr(made, "conditions", ()), facts.labels)
    options.check(trained_modules(loss))
    if options.snapshot_kimg and not hasattr(made, "sample"):
        raise UserError(
            f"training.snapshot_kimg={options.snapshot_kimg:g} scores what a model draws; {model['name']} draws nothing, leave it out."
        )
    if options.freeze_d:
        finetune.freeze(made.get_submodule(FROZEN), options.freeze_d)
    if initial is not None:
        finetune.start(made, model, facts, checkpoint.load(initial))


def _require(
    needs: tuple[str, ...], made: nn.Module, model: dict[str, Any], objective: dict[str, Any]
) -> None:
    """UserError: a model lacks what an objective, or one of its terms, needs, or has none of it."""
    lacking = [name for name in needs if getattr(made, name, ()) == ()]
    if lacking:
        raise UserError(
            f"{objective['name']} trains no {model['name']} as it is: that has no {', '.join(lacking)}."
        )


def _objective(task: Task, facts: Facts, model: nn.Module) -> Any:
    """The objective, its own networks drawn by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        return registry.build("objectives", task.objective, facts, model)


class Trainer:
    """A training's state, its clock and its checkpoints."""

    def __init__(self, task: Task, world: World) -> None:
        self.task = task
        self.world = world
        self.folder = task.folder / "checkpoints"
        self.clock = 0
        self.saved = -1

        # the networks, where and as wide as they compute
        self.facts = task.shards.index.facts
        place = (world.device, arithmetic.DTYPES[task.options.precision])
        made: Any = checkpoint.build(task.model, self.facts, task.seed)
        if hasattr(made, "start") and checkpoint.latest(self.folder) is None:
            made.start()  # published weights enter here and never again
        if task.initial is not None and checkpoint.latest(self.folder) is None:
            fitted = finetune.start(made, task.model, self.facts, checkpoint.load(task.initial))
            if world.rank == 0:
                say(f"{task.label}: starts from {task.initial}\n{finetune.table(fitted)}")
        laid = arithmetic.memory_format(task.options)
        self.model = made.to(*place, memory_format=laid).train()
        self.objective = _objective(task, self.facts, self.model)
        self.objective.to(*place, memory_format=laid)
        self.step = Step(
            self.model,
            self.objective,
            self.facts,
            task.options,
            task.data,
            task.seed,
            world,
            len(task.shards),
        )

        # how it fares
        acts = task.options.on_collapse != "continue"
        self.watch = health.Watch(self.objective, world, task.options.health_kimg, acts)
        self.snapshots = Snapshots(task.scorer, task.options.snapshot_kimg)

        # what the clock counts: which images, in which order
        self.order, order = task.shards.order(task.data, task.seed)
        self.segment: dict[str, Any] = {
            "images": task.shards.index.images_digest,
            "order": order,
            "seed": task.seed,
            "draws": self.step.draws,
        }
        if self.labels_read or task.data.balance:
            self.segment["labels"] = task.shards.index.labels_digest
        self.segments = [{"clock": 0, **self.segment}]

    @property
    def average(self) -> nn.Module:
        """The model with the averaged weights that are scored."""
        return self.step.averages[0].model

    @property
    def setbacks(self) -> int:
        """How often it was set back."""
        count: int = self.segments[-1].get("setbacks", 0)
        return count

    @property
    def labels_read(self) -> list[str]:
        """Labels that batches bring."""
        if self.objective.uses_labels:
            return list(self.facts.labels)
        return list(self.step.conditions)

    def state(self) -> checkpoint.Checkpoint:
        """Everything a continuation needs."""
        optimisers = self.step.optimisers
        return checkpoint.Checkpoint(
            model=self.task.model,
            objective=self.task.objective,
            facts=checkpoint.plain(self.facts),
            networks=dict(self.model.state_dict()),
            own=dict(self.objective.state_dict()),
            averages={word(one.half_life_kimg): one.state() for one in self.step.averages},
            optimisers={path: optimiser.state_dict() for path, optimiser in optimisers.items()},
            clock=self.clock,
            identity=self.task.identity,
            segments=self.segments,
            scalers={name: one.scaler.state_dict() for name, one in self.step.players.items()},
            watched=self.watch.sums.state(),
            snapshots=self.snapshots.state(),
        )

    def save(self) -> None:
        """Write a checkpoint (rank 0); FloatingPointError where a weight is not finite."""
        self._require_finite()
        self.watch.sums.gather(self.world)
        if self.world.rank == 0:
            checkpoint.save(self.folder, self.state(), self.task.guard)
        self.saved = self.clock

    def look(self) -> None:
        """Where a window of the watch ends, see whether all is well, and keep what is.

        Raises:
            Collapsed, FloatingPointError: it is not.
        """
        start = self.clock == 0 and self.watch.on
        if not start and not self.watch.due(self.clock, self.task.options.batch_size):
            return
        self.watch.look(self.clock)
        self._require_finite()
        if self.task.options.on_collapse == "rollback" and self.world.rank == 0:
            health.keep(self.task, self.state())

    def snapshot(self, log: Log) -> None:
        """Score the averaged weights where that is due (rank 0): before a checkpoint of the same clock is written."""
        due = self.snapshots.due(self.clock, self.task.options.batch_size)
        if not due or self.world.rank:
            return
        words = self.snapshots.take(
            self.clock, self.step.averages[0], dict(self.objective.state_dict())
        )
        log.tell([words])
        log.once[f"snapshot_{self.snapshots.name}"] = self.snapshots.scored[-1][1]

    def _require_finite(self) -> None:
        finite = [weights.isfinite().all() for weights in self.model.parameters()]
        if not torch.stack(finite).all():
            raise FloatingPointError(
                f"weights not finite at {self.clock / 1000:g} kimg: the training diverged; lower training.lr."
            )

    def resume(self) -> None:
        """Continue from the newest checkpoint, if there is one; UserError where it is of another training or other images."""
        newest = checkpoint.latest(self.folder)
        if newest is None:
            return
        found = checkpoint.load(newest)
        if found.identity != self.task.identity:
            raise UserError(
                f"{self.task.folder} holds checkpoints of another training; choose another run=… name."
            )
        self.segments = self._segments_after(found)

        self.model.load_state_dict(found.networks)
        self.objective.load_state_dict(found.own)
        for average in self.step.averages:
            average.load(found.averages[word(average.half_life_kimg)])
        for path, optimiser in self.step.optimisers.items():
            optimiser.load_state_dict(found.optimisers[path])
        for name, state in found.scalers.items():
            self.step.players[name].scaler.load_state_dict(state)
        self.watch.sums.load(found.watched, self.world)
        self.snapshots.load(found.snapshots, self.task.label)
        self.step.set_back(self.setbacks)
        self.clock = self.saved = found.clock
        self.step.tell(self.clock)

    def _segments_after(self, found: checkpoint.Checkpoint) -> list[dict[str, Any]]:
        """The checkpoint's segments, and a new one where another set was accepted; UserError: it was not."""
        last = {"draws": CPU_ALGORITHM, **found.segments[-1]}  # once there was one alone
        changed = [key for key, now in self.segment.items() if last[key] != now]
        if not changed:
            return found.segments
        if changed == ["draws"]:  # the device may change, and it may go with it
            say(f"{self.task.label}: random numbers come from {self.step.draws} from here on")
        elif self.task.data.changed != "accept":
            changes = "; ".join(
                f"{key} was {str(last[key])[:80]}, is {str(self.segment[key])[:80]}"
                for key in changed
            )
            raise UserError(
                f"the set changed since this training was interrupted at {found.clock / 1000:g} kimg ({changes}). "
                "Put the old set back, start a new run=…, or give data.changed=accept to go on with the new one."
            )
        count = {"setbacks": last["setbacks"]} if "setbacks" in last else {}
        return [*found.segments, {"clock": found.clock, **self.segment, **count}]


class Cadence:
    """Whether something is due: a multiple of `every_kimg` (0 = never) was passed, and `least_s` seconds are over."""

    def __init__(self, every_kimg: float, least_s: float, clock: int) -> None:
        self.every = max(1, round(every_kimg * 1000)) if every_kimg > 0 else 0
        self.least_s = least_s
        self.said = False
        self.done(clock)

    def due(self, clock: int) -> bool:
        """Whether it is, at a clock [images]; said once, until it is done."""
        passed = self.every > 0 and self.last_clock // self.every != clock // self.every
        over = time.monotonic() - self.last_time >= self.least_s
        if not passed or not over or self.said:
            return False
        self.said = True
        return True

    def done(self, clock: int) -> None:
        """Count from here."""
        self.last_clock = clock
        self.last_time = time.monotonic()
        self.said = False


def fit(task: Task, world: World, until_kimg: float | None = None) -> tuple[str, Trainer]:
    """Train to `until_kimg` (default: the whole budget) from the newest checkpoint, if there is one.

    Returns `finished` or `interrupted` (a stop was asked for; a checkpoint was saved), and the trainer.

    Raises:
        UserError: the checkpoints belong to something else, or memory does not suffice.
        FloatingPointError: the training diverged.
        Collapsed: it collapsed, and `on_collapse` says stop, or setting it back did not help.
    """
    with _memory_told(task, world):
        while True:
            try:
                return _fit(task, world, until_kimg)
            except (health.Collapsed, FloatingPointError) as error:
                if task.options.on_collapse != "rollback":
                    raise
                health.set_back(task, world, error)


@contextlib.contextmanager
def _memory_told(task: Task, world: World) -> Iterator[None]:
    """Say what to change where memory does not suffice: UserError. Checkpoints are written whole or not at all."""
    try:
        yield
    except RuntimeError as error:
        on_host = "can't allocate memory" in str(error)  # of CPUs: torch has no name for it
        if not isinstance(error, torch.OutOfMemoryError) and not on_host:
            raise
        complaint = str(error).split(". ")[1 if "out of memory. " in str(error) else 0]
        newest = checkpoint.latest(task.folder / "checkpoints")
        whole = f"The last checkpoint, {newest.name}, is whole." if newest else ""
        raise UserError(
            f"{task.label}: out of memory on {world.device} ({complaint}). {_smaller(task.options)} {whole}"
        ) from None


def _smaller(options: Training) -> str:
    """What needs less memory, in a sentence."""
    share = options.batch_per_rank()
    at_once = share // options.accumulate
    parts = [count for count in range(options.accumulate + 1, share + 1) if share % count == 0]
    if not parts:
        return f"It computes on {at_once} images at once; give a smaller model."
    return (
        f"It computes on {at_once} images at once: give training.accumulate={parts[0]} "
        f"({share // parts[0]} at once, the same batch), or a smaller training.batch_size."
    )


def _fit(task: Task, world: World, until_kimg: float | None) -> tuple[str, Trainer]:
    options = task.options
    trainer = Trainer(task, world)
    trainer.resume()
    total = round((until_kimg or options.total_kimg) * 1000)

    # files, and the stream of images from the clock on
    log = Log(
        task.folder,
        world,
        task.label,
        trainer.clock,
        options.log_kimg > 0,
        health.Health(trainer.objective),
        [trainer.watch.sums] if trainer.watch.on else [],
    )
    if trainer.setbacks:
        log.always["setbacks"] = trainer.setbacks
    if not trainer.clock and log.on:
        log.tell(trainer.objective.notes)
    lo = trainer.step.lo
    share = Share(
        size=options.batch_size,
        lo=lo,
        hi=lo + trainer.step.share,
        wanted=trainer.labels_read,
        before=trainer.step.conditions,
    )
    loaded = stream(
        task.shards,
        trainer.order,
        trainer.clock,
        share,
        world.device,
        task.data.stage,
        task.should_stop,
    )
    with contextlib.closing(loaded), contextlib.closing(log):
        _loop(trainer, loaded, log, total)
        log.write(trainer.clock)
        log.progress(trainer.clock, max(trainer.clock, total))

    # the end is always saved
    if trainer.saved != trainer.clock:
        trainer.save()
    world.barrier()
    return "finished" if trainer.clock >= total else "interrupted", trainer


def _loop(trainer: Trainer, loaded: Any, log: Log, total: int) -> None:
    """Iterations until the budget is used or a stop was asked for; lines, checkpoints and samples when they are due."""
    task = trainer.task
    options = task.options
    first = trainer.world.rank == 0
    lines = Cadence(options.log_kimg, options.log_s, trainer.clock)
    saves = Cadence(options.checkpoint_kimg, options.checkpoint_s, trainer.clock)
    samples = Cadence(options.sample_kimg, options.sample_s, trainer.clock)

    def wishes() -> list[bool]:
        # any rank may be told to stop; what is due, the first one's watch says
        return [
            task.should_stop(),
            *(first and one.due(trainer.clock) for one in (lines, saves, samples)),
        ]

    def act(answers: list[bool]) -> bool:
        stop, line_due, save_due, sample_due = answers
        if line_due:
            log.write(trainer.clock)
            lines.done(trainer.clock)
        if save_due:
            trainer.save()
            saves.done(trainer.clock)
        if sample_due:
            samples.done(trainer.clock)
        if sample_due and first:
            task.draw_samples(trainer.average, trainer.clock)
        return stop

    vote = Vote(trainer.world)
    if trainer.clock == 0:
        trainer.look()
    trainer.snapshot(log)  # a set-back may lead to where one is due
    stop = act(vote(wishes()))
    while trainer.clock < total and not stop:
        log.progress(trainer.clock, total)
        trainer.clock = trainer.step(next(loaded), trainer.clock, log)
        trainer.look()
        trainer.snapshot(log)
        stop = act(vote(wishes()))
    unheard = vote.last()
    if unheard:
        act(unheard)
