"""The training loop's section of the config tree. This file is torch-free."""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, Literal

from facefactory import UserError
from facefactory.config import key
from facefactory.validation import nearest

Schedule = float | dict[str, float | str]  # as facefactory.schedule checks it
FROZEN = "discriminator"  # the network of which freeze_d speaks
OptimiserKind = Literal["adam", "adamw", "rmsprop", "sgd"]


@dataclass(frozen=True)
class Optimiser:
    """How one network learns."""

    kind: OptimiserKind
    lr: Schedule
    betas: tuple[Schedule, Schedule]
    weight_decay: float


@dataclass(frozen=True)
class Training:
    """How long, how fast, on what."""

    total_kimg: float = key(
        60.0, "images shown to the networks in all, thousands", low=0.001, resumes=True
    )
    batch_size: int = key(16, "images per iteration over all ranks", low=1)
    accumulate: int = key(1, "parts a rank's share of the batch is cut into to save memory", low=1)
    optimiser: OptimiserKind = key("adam", "adam, adamw, rmsprop or sgd")
    lr: Any = key(
        8e-4,
        "learning rate, or a schedule {kimg: rate, …}, linear between its points (or shape: cosine)",
    )
    betas: list[Any] = key(
        [0.0, 0.99],
        "Adam's β1 and β2; rmsprop: momentum and smoothing; sgd: momentum and unused; each may be a schedule",
    )
    weight_decay: float = key(0.0, "weight decay", low=0.0)
    modules: dict[str, dict[str, Any]] = key(
        {}, "network -> what differs there, e.g. {discriminator: {lr: 4.0e-4}}"
    )
    precision: Literal["float32", "bfloat16", "float16", "float64"] = key(
        "float32", "of the networks; the 16-bit ones = autocast, float16 with scaled losses"
    )
    tf32: bool = key(False, "CUDA: let float32 products be rounded to TF32 (10 bits)")
    channels_last: bool = key(
        False, "keep the channels of a pixel together in memory; other last bits, which repeat"
    )
    fused: bool = key(
        True,
        "CUDA: step adam, adamw and sgd in one kernel; other last bits than false, which repeat",
    )
    compile: bool = key(
        False,
        "torch.compile each network (minutes at every start); after a break last bits may differ",
    )
    ema_half_lives_kimg: list[Any] = key(
        [5.0],
        "half-lives of averaged weights, thousands of images, or schedules; the first is scored",
    )
    augment: list[str] = key(
        ["brightness", "contrast", "translation"],
        "what D sees is changed by, in this order: files of training/augmentations; objective.strength says how often",
    )
    checkpoint_kimg: float = key(
        10.0, "thousands of images between checkpoints", low=0.001, identity=False
    )
    checkpoint_s: float = key(10.0, "and at least so many seconds", low=0.0, identity=False)
    log_kimg: float = key(
        1.0, "thousands of images between metric lines; 0 = none", low=0.0, identity=False
    )
    log_s: float = key(1.0, "and at least so many seconds", low=0.0, identity=False)
    sample_kimg: float = key(
        20.0, "thousands of images between sample grids; 0 = none", low=0.0, identity=False
    )
    sample_s: float = key(10.0, "and at least so many seconds", low=0.0, identity=False)
    snapshot_kimg: float = key(
        0.0,
        "thousands of images between snapshots that protocol quick scores, the best kept; 0 = none",
        low=0.0,
        resumes=True,
    )
    freeze_d: int = key(
        0, "layers of the discriminator, from the image on, that stay as they begin", low=0
    )
    on_collapse: Literal["continue", "stop", "rollback"] = key(
        "continue",
        "what a collapse does; rollback: go on from the newest healthy checkpoint, with other draws and half the lr",
        resumes=True,
    )
    health_kimg: float = key(
        5.0,
        "thousands of images between looks at its health, where on_collapse acts on them",
        low=0.001,
        resumes=True,
    )
    ranks: int = key(
        1, "processes that share a batch (DistributedDataParallel)", low=1, resumes=True
    )
    threads: int = key(1, "CPU threads per rank", low=1, resumes=True)
    device: Literal["auto", "cpu", "cuda"] = key(
        "auto", "auto = cuda where there is one", resumes=True
    )
    deterministic: bool = key(
        False,
        "CUDA: only kernels whose bits repeat; false: the fastest (cudnn.benchmark), and after a break last bits may differ",
    )

    def check(self, modules: tuple[str, ...]) -> None:
        """Look at what bounds cannot: sharing, averages and the optimiser of each network that is trained.

        Raises:
            UserError: a value that cannot be.
        """
        self.batch_per_rank()
        if not self.ema_half_lives_kimg:
            raise UserError(
                "training.ema_half_lives_kimg=[]; give at least one, 0 for the weights themselves."
            )
        self._half_lives()
        for name in self.modules:
            if name not in modules:
                guess = nearest(name, modules)
                raise UserError(
                    f"training.modules has {name!r}; trained here are {', '.join(modules)}.{guess}"
                )
        if self.freeze_d and FROZEN not in modules:
            raise UserError(
                f"training.freeze_d={self.freeze_d}, but no {FROZEN} is trained here; leave it out."
            )
        for name in modules:
            kind = self.optimiser_of(name).kind
            if self.precision == "float16" and kind == "rmsprop":
                raise UserError(
                    f"training.precision=float16 cannot train {name} by rmsprop, which leaves out no step "
                    "whose gradients overflowed; give adam, adamw or sgd, or bfloat16."
                )
        if self.deterministic and self.compile:
            raise UserError(
                "training.deterministic=true promises bits that training.compile=true may change; "
                "give one of them."
            )

    def optimiser_of(self, module: str) -> Optimiser:
        """How the network at a path learns.

        Raises:
            UserError: an unknown setting, or a value that it cannot have.
        """
        own = self.modules.get(module, {})
        where = f"training.modules.{module}" if own else "training"
        return _optimiser(where, {"kind": self.optimiser, **_shared(self), **own})

    def resolved(self) -> "Training":
        """The same with schedules as they are written down; UserError: one that cannot be."""
        own = {
            path: {**one, **_scheduled(f"training.modules.{path}", one)}
            for path, one in self.modules.items()
        }
        shared = _scheduled("training", {"lr": self.lr, "betas": self.betas})
        return dataclasses.replace(
            self, modules=own, ema_half_lives_kimg=self._half_lives(), **shared
        )

    def _half_lives(self) -> list[Schedule]:
        """Half-lives as JSON keeps them; UserError: one that cannot be."""
        where = "training.ema_half_lives_kimg"
        return [_schedule(where, given, "a half-life") for given in self.ema_half_lives_kimg]

    def batch_per_rank(self) -> int:
        """Images per iteration on one rank.

        Raises:
            UserError: batch_size cannot be shared out evenly.
        """
        parts = self.ranks * self.accumulate
        if self.batch_size % parts:
            near = max(parts, round(self.batch_size / parts) * parts)
            raise UserError(
                f"training.batch_size={self.batch_size} cannot be shared by training.ranks={self.ranks} x "
                f"training.accumulate={self.accumulate}; give a multiple of {parts}, e.g. {near}."
            )
        return self.batch_size // self.ranks


def _shared(options: Training) -> dict[str, Any]:
    """What all networks share, as far as they have nothing of their own."""
    return {"lr": options.lr, "betas": options.betas, "weight_decay": options.weight_decay}


def _scheduled(where: str, given: dict[str, Any]) -> dict[str, Any]:
    """A learning rate and betas, as far as they are given, as JSON keeps them."""
    checked: dict[str, Any] = {}
    if "lr" in given:
        checked["lr"] = _schedule(f"{where}.lr", given["lr"], "a learning rate")
    if "betas" in given:
        checked["betas"] = _betas(f"{where}.betas", given["betas"])
    return checked


def _schedule(where: str, given: Any, what: str) -> Schedule:
    """A number or a schedule that is never below 0, as JSON keeps it; UserError: it is none."""
    from facefactory.schedule import checked, least

    try:
        schedule = checked(given)
    except ValueError as error:
        raise UserError(f"{where}={given!r}: {error}.") from None
    if least(schedule) < 0:
        raise UserError(f"{where}={given}; {what} is at least 0.")
    return schedule


def _betas(where: str, given: list[Any]) -> list[Schedule]:
    """Two of them, as JSON keeps them; UserError: they cannot be."""
    from facefactory.schedule import most

    betas = [_schedule(where, beta, "each") for beta in given]
    if len(betas) != 2 or max(map(most, betas)) >= 1:
        raise UserError(
            f"{where}={given}; give two numbers from 0 to below 1, e.g. [0.0,0.99], or schedules of them."
        )
    return betas


def _optimiser(where: str, given: dict[str, Any]) -> Optimiser:
    """Checked settings; UserError: one that is unknown, or cannot be."""
    names = [field.name for field in dataclasses.fields(Optimiser)]
    for name in given:
        if name not in names:
            guess = nearest(name, names)
            raise UserError(f"{where} has {name!r}; allowed are {', '.join(names)}.{guess}")
    kinds = typing.get_args(OptimiserKind)
    if given["kind"] not in kinds:
        raise UserError(f"{where}.kind={given['kind']!r}; allowed are {', '.join(kinds)}.")
    checked = _scheduled(where, given)
    first, second = checked["betas"]
    return Optimiser(given["kind"], checked["lr"], (first, second), float(given["weight_decay"]))
