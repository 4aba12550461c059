"""Snapshots of a training: how they are scored, and what the best one is worth on other noise.

They are scored by the protocol `quick`, whatever a run's own scores are: what a training leaves
must not change with how it is evaluated later.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facefactory import UserError, rundir, say
from facefactory.evaluation import subjects
from facefactory.evaluation.subjects import Context
from facefactory.results import Selection
from facefactory.run import Run, quick_options
from facefactory.rundir import RunDir
from facefactory.stages._networks import device_of
from facefactory.stages._sets import index_of

if TYPE_CHECKING:
    from facefactory.data.sets.index import Index
    from facefactory.training.snapshots import Scorer

CHOOSES = "snapshots"  # the purpose of the noise by which a snapshot is chosen
AGAIN = "snapshots again"  # and of that on which the chosen one is scored again


def require_kept(run: Run) -> None:
    """UserError: a snapshot is asked for that the training does not keep."""
    if run.snapshot == "best" and not run.training.snapshot_kimg:
        raise UserError(
            "snapshot=best, but this training scores none: give training.snapshot_kimg to a new one."
        )


def require_snapshots(run: Run) -> None:
    """UserError: one is asked for that is not kept, or none could be scored; Missing: weights that score them."""
    require_kept(run)
    every = run.training.snapshot_kimg
    if not every:
        return
    if every > run.training.total_kimg:
        words = f"training.snapshot_kimg={every:g} lies beyond training.total_kimg={run.training.total_kimg:g}"
        if run.snapshot == "best":
            raise UserError(f"snapshot=best, but {words}: give less.")
        say(f"note: {words}: no snapshot is scored.")
    options = quick_options()
    subjects.file(options.scoring).goal(None, options)  # its weights are here


def _context(run: Run, index: "Index", purpose: str) -> Context:
    """What snapshots are scored on."""
    options = quick_options()
    goal = subjects.file(options.scoring).goal(None, options)
    device = device_of(run.training)
    return Context(index, options, run.seed, goal, device, purpose=purpose)


def _score(model: Any, context: Context) -> float:
    return subjects.file(context.options.scoring).quick(model, context)[context.goal.metric]


def scorer_of(run: Run, index: "Index") -> "Scorer | None":
    """How a training's snapshots are scored; None: they are not."""
    from facefactory.training.snapshots import Scorer

    if not run.training.snapshot_kimg:
        return None
    context = _context(run, index, CHOOSES)
    options = dataclasses.asdict(context.options)
    return Scorer(
        name=context.goal.metric,
        better=context.goal.better,
        rule=rundir.digest([options, index.images_digest, run.seed]),
        score=lambda model: _score(model, context),
    )


def scored_again(run: Run, folder: RunDir) -> list[Path]:
    """Score the best snapshot and the last weights on fresh noise; the results.json that says it, if there are any."""
    from facefactory import checkpoint

    target = folder.stage("train")
    newest = checkpoint.latest(target / "checkpoints")
    assert newest is not None
    found = checkpoint.load(newest)
    best = checkpoint.best_snapshot(found)
    if best is None or not run.training.snapshot_kimg:
        return []

    # both on the same noise, which chose neither
    context = _context(run, index_of(folder), AGAIN)
    scores = {}
    for snapshot in ("best", "last"):
        model = checkpoint.rebuild(newest, snapshot)[0].to(context.device)
        scores[snapshot] = _score(model, context)
    selection = Selection(
        metric=context.goal.metric,
        better=context.goal.better,
        scored=[(clock / 1000, score) for clock, score in found.snapshots["scored"]],
        best_kimg=best.clock / 1000,
        again=scores["best"],
        last_kimg=found.clock / 1000,
        last=scores["last"],
    )
    say(f"train: {selection.words()}")
    path = target / "results.json"
    rundir.write_json(path, {"selection": dataclasses.asdict(selection)})
    return [path]
