"""Face sets: what to pack, how to read it.

This file is torch-free: it holds the sections of the config tree.
"""

from dataclasses import dataclass
from typing import Literal

from facefactory import UserError
from facefactory.config import key
from facefactory.facts import Size

SMALLEST = 4  # pixels of a side
LARGEST = 2048


@dataclass(frozen=True)
class Pack:
    """Which images become shards, and how."""

    recipe: str = key(
        "orl", "face set: name of a file in shards/, or the path of your own recipe (.yaml)"
    )
    root: str | None = key(None, "folder, zip or tar of the images; overrides the recipe's root")
    labels: str | None = key(
        None,
        "label table (.csv, .tsv, .parquet; a column names the files); overrides the recipe's",
    )
    resolution: int | str = key(
        32, "size of the packed images, pixels: 64, or HEIGHTxWIDTH as in 218x178 (218 high)"
    )
    color: Literal["gray", "rgb"] = key("gray", "channels of the packed images")
    shard_images: int = key(4096, "images per shard", low=1)
    storage: Literal["raw", "png", "jpeg", "webp"] = key(
        "raw", "raw: fastest to read; the others take less room (jpeg loses a little)"
    )
    workers: int = key(
        1, "packing processes (on Slurm: all CPUs of the job)", low=1, identity=False
    )
    tasks: int = key(
        1, "jobs that pack the set together, as an array on Slurm", low=1, identity=False
    )
    links: Literal["refuse", "follow"] = key(
        "refuse",
        "symbolic links that lead out of root (to another file system, say): refuse, or follow",
        identity=False,
    )
    # null: as the recipe says
    crop: str | None = key(
        None,
        "fit (the largest centred part of the images' shape), none, its shorter side, or left,top,right,bottom",
    )
    where: str | None = key(
        None, "images to keep, e.g. 'Smiling and not Male' or 'Emotion == surprise'; '' keeps all"
    )
    limit: int | None = key(None, "images to keep at most, drawn evenly", low=1)
    balance: str | None = key(
        None, "label whose classes keep equally many images in every split; '' keeps all"
    )
    keep: list[str] | None = key(None, "labels to keep; [] keeps all")
    drop: list[str] | None = key(None, "labels to leave out")
    min_prevalence: float | None = key(
        None, "share of the rarer side below which a binary label is left out", low=0.0, high=0.5
    )
    max_bad: float | None = key(
        None,
        "share of unreadable images beyond which packing stops",
        low=0.0,
        high=1.0,
        identity=False,
    )

    @property
    def size(self) -> Size:
        """Of the packed images; UserError: `resolution` says none, or one out of bounds."""
        allowed = (
            f"allowed are one number, or HEIGHTxWIDTH as in 218x178 (218 high, 178 wide), "
            f"each from {SMALLEST} to {LARGEST} pixels"
        )
        try:
            size = Size.of(self.resolution)
        except ValueError:
            raise UserError(f"pack.resolution is {self.resolution!r}; {allowed}.") from None
        if not all(SMALLEST <= side <= LARGEST for side in size):
            raise UserError(f"pack.resolution is {self.resolution!r}; {allowed}.")
        return size


@dataclass(frozen=True)
class Data:
    """How packed shards are read."""

    shards: str | None = key(
        None, "folder of shards that are packed already; then nothing is packed"
    )
    balance: str | None = key(None, "label whose classes are drawn equally often")
    weights: dict[str, float] = key(
        {},
        "or by these shares (class -> number; 1 where none is given; numbers as classes in quotes)",
    )
    window_images: int = key(
        0,
        "draw from whole shards with so many images at a time (sets beyond memory); 0 = from all",
        low=0,
    )
    stage: Literal["none", "memory", "disk", "device"] = key(
        "none",
        "copy the images first: once a node to memory or to the folder TMPDIR, or once a process to its device",
        identity=False,
    )
    draws: Literal["auto", "cpu", "device"] = key(
        "auto",
        "where random numbers are drawn; other numbers are another training. auto = device on CUDA, else cpu",
    )
    flip: bool = key(True, "mirror half of the training images")
    shift: int = key(
        0,
        "random crops: move training images by up to so many pixels, mirrored at the edge",
        low=0,
    )
    label_dropout: float = key(
        0.0,
        "share of the training images whose labels a conditional model is not told, as if missing",
        low=0.0,
        high=1.0,
    )
    verify: Literal["first", "full"] = key(
        "first", "check SHA-256 at first use, or every time", identity=False
    )
    changed: Literal["refuse", "accept"] = key(
        "refuse", "an interrupted training whose images changed", identity=False
    )

    def shares(self, classes: list[str]) -> tuple[float, ...] | None:
        """The share of each class of `balance` in what is drawn; None: equal ones.

        UserError: `weights` does not fit them.
        """
        given = f"data.weights={self.weights}"
        if self.weights and not self.balance:
            raise UserError(
                f"{given} are those of a label's classes; say which by data.balance=LABEL."
            )
        found = tuple(float(self.weights.get(name, 1)) for name in classes)
        strange = set(self.weights) - set(classes)
        nothing = bool(classes) and not sum(found)
        if strange or nothing or min(found, default=0) < 0:
            allowed = ", ".join(classes) or "none"
            raise UserError(
                f"{given}: give numbers from 0 on, not all 0, "
                f"to the classes of data.balance={self.balance}: {allowed}."
            )
        return found if self.weights else None
