"""Scores with their protocol and their scale. This file is torch-free: it holds the sections of the config tree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from facefactory.config import key
from facefactory.training import Training


def _judge_training() -> Training:
    return Training(total_kimg=35.0, batch_size=32, lr=1e-3, betas=[0.9, 0.99], ema_half_life_kimg=2.0, sample_kimg=0.0)


@dataclass(frozen=True)
class Judge:
    """The classifier whose features and verdicts score everything else; one per dataset, shared by all runs."""

    model: dict[str, Any] = key({"name": "classifier/convnet"}, "network of the judge")
    objective: dict[str, Any] = key({"name": "classification"}, "its loss")
    training: Training = field(default_factory=_judge_training)
    folds: int = key(5, "parts of the out-of-fold check, cut between people", low=2)
    fold_kimg: float = key(20.0, "budget of each fold, thousands of images", low=0.001)


@dataclass(frozen=True)
class Evaluation:
    """How a trained model is scored."""

    protocol: str = key("generator", "file of evaluation/protocols: generator or classifier")
    fakes: int = key(1000, "generated images", low=8)
    reference: str = key("train", "split that generated images are compared with")
    held_out: str = key("test", "split of other people, for the floor")
