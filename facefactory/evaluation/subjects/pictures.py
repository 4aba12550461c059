"""Pictures that lie there already, whoever drew them: scored as those of a generator are."""

from pathlib import Path
from typing import Any

from facefactory import UserError
from facefactory.data.sets.loader import Shards
from facefactory.evaluation import Evaluation
from facefactory.evaluation.subjects import Context, generator
from facefactory.results import Goal

TAKES: tuple[str, ...] = ()


def needs(options: Evaluation) -> tuple[str, ...]:
    """Nothing: no judge is trained for pictures of others."""
    return ()


def goal(name: str | None, options: Evaluation) -> Goal:
    """As for generators; UserError: a network of the protocol needs a judge."""
    if "judge" in options.networks:
        raise UserError(
            "evaluation.networks has judge, and no judge is trained for two sets of pictures; leave it out."
        )
    return generator.goal(name, options)


def admit(context: Context) -> None:
    """Pictures are not searched."""
    raise UserError("evaluation.scoring=pictures: pictures are scored, not searched.")


def quick(model: Any, context: Context) -> dict[str, float]:
    """See `admit`."""
    admit(context)
    return {}


def full(model: Shards, context: Context, folder: Path) -> dict[str, Any]:
    """Scores of at most `fakes` of the pictures, always the same ones."""
    chosen = model.chosen(context.options.fakes)
    return generator.compare(model.chunks(chosen), len(chosen), context, folder).results
