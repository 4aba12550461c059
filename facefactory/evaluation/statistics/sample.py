"""The features themselves, by the position of their image, so that any parts give the same rows in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np

from facefactory.metrics import Array


class Component:
    """Rows float32 with the positions of their images."""

    field = "features"

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.positions: list[Any] = []
        self._value: Array | None = None  # until something is added

    def add(self, looked: Any, positions: Any) -> None:
        """Rows [n, D] of the images at positions [n]."""
        rows = getattr(looked, self.field)
        if rows is not None:
            self._value = None
            self.rows.append(rows.float().numpy())
            self.positions.append(np.asarray(positions))

    def merge(self, other: Component) -> None:
        """Take over its rows."""
        self._value = None
        self.rows += other.rows
        self.positions += other.positions

    def value(self) -> Array:
        """[N, D] float64, in the order of the positions.

        Raises:
            ValueError: an image was looked at twice, or none was.
        """
        if self._value is not None:
            return self._value
        state = self.state()
        if not len(state["positions"]):
            raise ValueError(f"the network gave no {self.field}")
        if len(np.unique(state["positions"])) < len(state["positions"]):
            raise ValueError("parts that are merged have images in common")
        self._value = np.asarray(state["rows"], np.float64)
        return self._value

    def state(self) -> dict[str, Any]:
        """The rows in order, and their positions."""
        if not self.rows:
            return {"rows": np.zeros((0, 0), np.float32), "positions": np.zeros(0, np.int64)}
        positions = np.concatenate(self.positions)
        order = np.argsort(positions, kind="stable")
        return {"rows": np.concatenate(self.rows)[order], "positions": positions[order]}

    def load(self, state: dict[str, Any]) -> None:
        """Take in such rows."""
        if len(state["positions"]):
            self._value = None
            self.rows.append(state["rows"])
            self.positions.append(state["positions"])
