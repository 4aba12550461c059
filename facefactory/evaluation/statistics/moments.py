"""Count, mean and covariance, as float64 sums: memory does not grow with the images, parts merge by addition."""

from __future__ import annotations

from typing import Any

import numpy as np

from facefactory.metrics import Array, Moments


class Component:
    """Sums of features and of their products."""

    def __init__(self) -> None:
        self.count = 0
        self.sum: Array = np.zeros(0)
        self.products: Array = np.zeros((0, 0))
        self._value: Moments | None = None  # until something is added

    def add(self, looked: Any, positions: Any) -> None:
        """Features [n, D]."""
        features = looked.features.double().numpy()
        self._take(len(features), features.sum(0), features.T @ features)

    def merge(self, other: Component) -> None:
        """Add up."""
        if other.count:
            self._take(other.count, other.sum, other.products)

    def _take(self, count: int, total: Array, products: Array) -> None:
        if not self.count:
            self.sum = np.zeros_like(total)
            self.products = np.zeros_like(products)
        self._value = None
        self.count += count
        self.sum = self.sum + total
        self.products += products

    def value(self) -> Moments:
        """The normal that they describe.

        Raises:
            ValueError: there are fewer than two images.
        """
        if self.count < 2:
            raise ValueError("moments need 2 images at least")
        if self._value is not None:
            return self._value
        mean = self.sum / self.count
        covariance = (self.products - self.count * np.outer(mean, mean)) / (self.count - 1)
        self._value = Moments(self.count, mean, covariance)
        return self._value

    def state(self) -> dict[str, Any]:
        """The sums."""
        return {"count": np.array(self.count), "sum": self.sum, "products": self.products}

    def load(self, state: dict[str, Any]) -> None:
        """Take in such sums."""
        if int(state["count"]):
            self._take(int(state["count"]), state["sum"], state["products"].copy())
