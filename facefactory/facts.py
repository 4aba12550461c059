"""What the data fix before a network is built: labels, and the size of the images. This file is torch-free."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Kind = Literal["binary", "categorical", "ordinal", "identity", "real"]


@dataclass(frozen=True)
class Label:
    """What a label's numbers mean: class numbers (-1 = missing), or real numbers (NaN = missing)."""

    kind: Kind
    classes: tuple[str, ...] = ()  # a real label has none

    @property
    def columns(self) -> int:
        """How many columns of a condition vector it takes."""
        return 1 if self.kind in ("binary", "real") else len(self.classes)

    @property
    def entry(self) -> dict[str, Any]:
        """As index.json holds it."""
        classes = {} if self.kind == "real" else {"classes": list(self.classes)}
        return {"kind": self.kind, **classes}


class Size(NamedTuple):
    """Height and width of images, pixels."""

    height: int
    width: int

    @classmethod
    def of(cls, resolution: int | str) -> Size:
        """The size that `64` or `218x178` (height x width) means; ValueError: it means none."""
        sides = re.fullmatch(r"(\d+)(?:\s*[xX×]\s*(\d+))?", str(resolution).strip())
        if sides is None:
            raise ValueError(f"{resolution!r} is neither one number nor HEIGHTxWIDTH")
        height = int(sides[1])
        return cls(height, int(sides[2] or height))

    @property
    def resolution(self) -> int | str:
        """The same as configs and index.json hold it: one number for a square."""
        return self.height if self.is_square else str(self)

    @property
    def is_square(self) -> bool:
        return self.height == self.width

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


@dataclass(frozen=True)
class Facts:
    """Height and width of the images [pixels], their channels, and the set's labels."""

    height: int
    width: int
    channels: int
    labels: dict[str, Label] = field(default_factory=dict)

    @property
    def classes(self) -> dict[str, int]:
        """Label -> number of its classes, for labels that have classes."""
        return {name: len(label.classes) for name, label in self.labels.items() if label.classes}
