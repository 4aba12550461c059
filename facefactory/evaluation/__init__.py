"""Scores with their protocol and their scale. This file is torch-free: it holds the section of the config tree."""

from dataclasses import dataclass

from facefactory.config import key


@dataclass(frozen=True)
class Evaluation:
    """How a trained model is scored."""

    protocol: str = key(
        "default",
        "a file of jobs/protocols/ or the path of your own; it sets the keys below, each may differ",
    )
    scoring: str = key(
        "generator", "what is scored: generator or classifier, a file of evaluation/subjects"
    )
    networks: list[str] = key(
        [],
        "feature networks: files of evaluation/extractors; [] = all whose weights are here",
    )
    goal: str | None = key(
        None, "score that speaks for a model; default: the search's, kd of the first network"
    )
    fakes: int = key(1000, "generated images", low=8)
    quick_fakes: int = key(
        400, "generated images at a rung of a trial, where scores must be cheap", low=8
    )
    reals: int = key(
        10_000, "real images of a split that are compared with, always the same ones", low=8
    )
    reference: str = key("train", "split that generated images are compared with")
    held_out: str = key("test", "split of other people, for the scale; '' = there is none")
