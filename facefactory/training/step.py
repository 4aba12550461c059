"""One iteration: images -> phases -> optimisers -> averages. Nothing here is read back from a device."""

import contextlib
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from facefactory import conditions, philox
from facefactory.data import Data
from facefactory.data.sets import pixels
from facefactory.data.sets.loader import Batch as Loaded
from facefactory.draws import Draws, algorithm
from facefactory.facts import Facts
from facefactory.objectives import Batch, Objective
from facefactory.philox import Sheet
from facefactory.ranks import World
from facefactory.training import FROZEN, Training, arithmetic, finetune, optimisers
from facefactory.training.augmentations import augment
from facefactory.training.ema import Average
from facefactory.training.log import Log

LOOKED = (
    8  # gradients are measured in each eighth step of a phase; those scaled for float16 are not
)
OWN = "objective."  # begins the path of a network that is the objective's own


class PhaseModule(nn.Module):
    """A phase as a module whose forward is its loss, so that DDP sees one forward a backward, double backward included.

    Only what the phase trains is registered: gradients of the rest are neither computed nor reduced.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, name: str, trained: list[nn.Module]
    ) -> None:
        super().__init__()
        self.trained = nn.ModuleList(trained)
        self._inside = (model, objective, name)  # a tuple hides the other networks from DDP

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The phase's loss and its scalars."""
        model, objective, name = self._inside
        loss, shown = objective.loss(name, model, batch)
        return loss, {key: value.detach() for key, value in shown.items()}


def parallel(module: PhaseModule, world: World) -> Any:
    """A phase under DDP.

    `find_unused_parameters=True` keeps the buckets as they were laid out at first (tried: otherwise they move after
    one iteration and a resumed run differs in its last bits). Buffers stay each rank's own: rank 0's are saved.
    """
    if world.size == 1:
        return module
    # strides of 1 x 1 kernels: no copy is saved there; and a name that older versions of torch know alone
    warnings.filterwarnings("ignore", message="Grad strides do not match")
    warnings.filterwarnings(
        "ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning
    )
    devices = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(
        module,
        device_ids=devices,
        process_group=world.compute,
        broadcast_buffers=False,
        find_unused_parameters=True,
    )


@dataclass(frozen=True)
class Player:
    """A phase, ready to be stepped: its loss under DDP, what it trains, and what scales its loss in float16."""

    interval: int
    forward: Any
    parameters: list[nn.Parameter]
    modules: tuple[str, ...]
    scaler: torch.amp.GradScaler


class Step:
    """Networks, optimisers and averages, moved by one batch at a time."""

    def __init__(
        self,
        model: nn.Module,
        objective: Any,
        facts: Facts,
        options: Training,
        data: Data,
        seed: int,
        world: World,
        set_size: int,
    ) -> None:
        self.model = model
        self.objective = objective
        self.labels = facts.labels
        self.conditions: tuple[str, ...] = getattr(model, "conditions", ())
        self.model_after: Any = getattr(model, "after", lambda kimg, total: None)
        self.options = options
        self.data = data
        self.seed = seed
        self.world = world
        self.set_size = set_size
        self.share = options.batch_per_rank()
        self.lo = world.rank * self.share

        # where random numbers come from
        self.draws = algorithm(data.draws, world.device)
        self.sheet: Sheet | None = None
        self.set_back(0)

        # one optimiser a network, one DDP a phase
        self.wanted = {path: options.optimiser_of(path) for path in trained_modules(objective)}
        fused = arithmetic.fused(options, world.device)
        self.optimisers = {
            path: optimisers.build(wanted, self.network(path).parameters(), fused)
            for path, wanted in self.wanted.items()
        }
        self.frozen: set[nn.Parameter] = set()
        if options.freeze_d:
            self.frozen = finetune.freeze(self.network(FROZEN), options.freeze_d)
        for weights in self.frozen:
            weights.requires_grad_(False)  # before DDP counts what it reduces
        self.players = {phase.name: self._player(phase) for phase in objective.phases}
        for part in (model, objective):
            part.requires_grad_(False)  # what no phase names stays frozen
        self.following: list[Any] = [
            layer for layer in model.modules() if hasattr(layer, "follow")
        ]
        self.averages = [
            Average(model, objective.averaged, half_life)
            for half_life in options.ema_half_lives_kimg
        ]
        if options.compile:  # and not their averages, which are used now and then
            for path in self.wanted:
                arithmetic.compile_networks(self.network(path))

    def set_back(self, count: int) -> None:
        """Go on as a training that was set back so often: with other draws, and half the learning rate a time."""
        self.lr_share = 0.5**count
        self.drawn_by = self.seed
        if count:
            low, high = philox.key_of(self.seed, f"set back {count}")
            self.drawn_by = low | high << 32
        if self.draws == philox.ALGORITHM:
            end = self.lo + self.share
            size = self.options.batch_size
            self.sheet = Sheet(self.drawn_by, size, self.lo, end, self.world.device)

    def network(self, path: str) -> nn.Module:
        """The network at a phase's path."""
        if path.startswith(OWN):
            own: nn.Module = self.objective.get_submodule(path.removeprefix(OWN))
            return own
        return self.model.get_submodule("" if path == "." else path)

    def _player(self, phase: Any) -> Player:
        networks = [self.network(path) for path in phase.modules]
        module = PhaseModule(self.model, self.objective, phase.name, networks)
        return Player(
            interval=phase.interval,
            forward=parallel(module, self.world),
            parameters=[one for one in module.parameters() if one not in self.frozen],
            modules=phase.modules,
            scaler=arithmetic.scaler(self.options, self.world.device),
        )

    def __call__(self, loaded: Loaded, clock: int, log: Log) -> int:
        """All phases on one batch, then the averages; the clock after it."""
        size = self.options.batch_size
        iteration = clock // size
        parts = self.parts(loaded, clock)

        # each phase sees the networks as the phases before it left them
        for name, player in self.players.items():
            if iteration % player.interval == 0:
                self.backward(name, parts, log)
                if iteration % (LOOKED * player.interval) == 0 and not player.scaler.is_enabled():
                    log.add({f"gradient_{name}": _size(player.parameters)})
                for path in player.modules:
                    optimisers.set_clock(
                        self.optimisers[path], self.wanted[path], clock / 1000, self.lr_share
                    )
                    player.scaler.step(self.optimisers[path])
                player.scaler.update()

        for layer in self.following:
            layer.follow()
        self.objective.after(clock / 1000, self.world.sum)
        self.model_after(clock / 1000, self.world.sum)
        for average in self.averages:
            average.update(clock + size, size)
        self.tell(clock + size)
        return clock + size

    def tell(self, clock: int) -> None:
        """The clock, to a model that changes with it, and to its averages."""
        models: list[Any] = [self.model, *(average.model for average in self.averages)]
        for model in models:
            if hasattr(model, "at"):
                model.at(clock / 1000)

    def parts(self, loaded: Loaded, clock: int) -> list[Batch]:
        """The rank's slice of a global batch, cut for gradient accumulation, flipped and shifted."""
        self.tell(clock)
        step = self.share // self.options.accumulate
        return [
            self._part(loaded, clock, start, start + step) for start in range(0, self.share, step)
        ]

    def _part(self, loaded: Loaded, clock: int, start: int, end: int) -> Batch:
        options = self.options
        dtype = arithmetic.DTYPES[options.precision]
        draws = Draws(
            seed=self.drawn_by,
            clock=clock,
            batch_size=options.batch_size,
            lo=self.lo + start,
            hi=self.lo + end,
            device=self.world.device,
            dtype=dtype,
            sheet=self.sheet,
        )

        # what the set's own pictures go through
        images = pixels.to_model(loaded.images[start:end]).to(dtype)
        if self.data.flip:
            mirrored = draws.uniform("flip", 1) < 0.5
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
        if self.data.shift:
            images = pixels.shift(images, draws.uniform("shift", 2), self.data.shift)
        model: Any = self.model
        if hasattr(model, "shown"):
            images = model.shown(images)

        # what a conditional model is told
        c = self._condition(loaded.labels, start, end, dtype)
        wrong = self._condition(loaded.before, start, end, dtype)
        if self.data.label_dropout:
            told = draws.uniform("label_dropout", 1) >= self.data.label_dropout
            c = c * told
            wrong = wrong * told

        return Batch(
            images=images.contiguous(memory_format=arithmetic.memory_format(options)),
            labels={name: column[start:end] for name, column in loaded.labels.items()},
            c=c,
            wrong=wrong,
            iteration=clock // options.batch_size,
            kimg=clock / 1000,
            draws=draws,
            augment=partial(augment, kinds=options.augment, uniform=draws.uniform),
            set_size=self.set_size,
        )

    def _condition(
        self, columns: dict[str, Tensor], start: int, end: int, dtype: torch.dtype
    ) -> Tensor:
        """The labels that the model is conditioned on, [b, columns]."""
        if not self.conditions:
            return torch.empty(end - start, 0, dtype=dtype, device=self.world.device)
        part = {name: columns[name][start:end] for name in self.conditions}
        return conditions.vector(part, self.conditions, self.labels).to(dtype)

    def backward(self, name: str, parts: list[Batch], log: Log | None = None) -> None:
        """Gradients of a phase: mean over the global batch, equal on all ranks."""
        player = self.players[name]
        for other in self.players.values():
            for parameter in other.parameters:
                parameter.requires_grad_(other is player)
        for parameter in player.parameters:
            parameter.grad = None

        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            quiet = (
                contextlib.nullcontext()
                if last or self.world.size == 1
                else player.forward.no_sync()
            )
            with quiet:
                with arithmetic.autocast(self.options, self.world.device):
                    loss, shown = player.forward(part)
                player.scaler.scale(loss / len(parts)).backward()
            if log is not None:
                log.add(shown)


def _size(parameters: list[nn.Parameter]) -> Tensor:
    """Norm of all gradients, a scalar that nobody has read."""
    gradients = [weights.grad for weights in parameters if weights.grad is not None]
    return torch.stack(torch._foreach_norm(gradients)).norm()


def trained_modules(objective: Any) -> tuple[str, ...]:
    """Paths of the networks that an objective's phases train."""
    return tuple(path for phase in objective.phases for path in phase.modules)
