"""What the data fix before a network is built: labels, and the size of the images. This file is torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

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


def labels_of(schema: dict[str, Any]) -> dict[str, Label]:
    """The labels of an index.json: name -> {kind, classes}."""
    return {
        name: Label(entry["kind"], tuple(entry.get("classes", ())))
        for name, entry in schema.items()
    }
