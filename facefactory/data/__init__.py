"""Face sets: what to pack, how to read it. This file is torch-free: it holds the sections of the config tree."""

from dataclasses import dataclass
from typing import Literal

from facefactory.config import key


@dataclass(frozen=True)
class Pack:
    """Which images become shards, and how."""

    recipe: str = key("orl", "face set: name of a file in shards/, or the path of your own recipe (.yaml)")
    root: str | None = key(None, "folder of the images; overrides the recipe's root")
    labels: str | None = key(None, "label table (.csv, one row an image, first column the file); overrides the recipe's")
    resolution: int = key(32, "height and width of the packed images, pixels", low=4, high=2048)
    color: Literal["gray", "rgb"] = key("gray", "channels of the packed images")
    shard_images: int = key(4096, "images per shard", low=1)
    workers: int = key(1, "packing processes", low=1, identity=False)


@dataclass(frozen=True)
class Data:
    """How packed shards are read."""

    shards: str | None = key(None, "folder of shards that are packed already; then nothing is packed")
    balance: str | None = key(None, "label whose classes are drawn equally often")
    flip: bool = key(True, "mirror half of the training images")
    verify: Literal["first", "full"] = key("first", "check SHA-256 at first use, or every time", identity=False)
    changed: Literal["refuse", "accept"] = key("refuse", "an interrupted training whose images changed", identity=False)
