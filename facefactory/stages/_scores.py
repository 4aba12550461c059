"""What several stages do with scores: what they need, and what models are scored on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facefactory.evaluation.extractors import Judge
from facefactory.evaluation.protocols import Context
from facefactory.run import Run, goal_of, needs_judge
from facefactory.rundir import RunDir
from facefactory.stages import outputs_of
from facefactory.stages._networks import device_of, network_of

if TYPE_CHECKING:
    from facefactory.data.sets.index import Index


def judge_needed(run: Run) -> list[str]:
    """The output of the stage judge that scores depend on, where their protocol asks for a judge."""
    return ["judge.judge"] if needs_judge(run) else []


def context_of(run: Run, folder: RunDir, index: Index) -> Context:
    """What models of a run are scored on, and how; `folder` is that of the run, or of the sweep above it."""
    judge = None
    if needs_judge(run):
        judge = Judge(
            network_of(run, folder, "judge"), outputs_of(folder, "judge.judge")["judge.judge"]
        )
    return Context(
        index=index,
        options=run.evaluation,
        seed=run.seed,
        goal=goal_of(run),
        device=device_of(run.training),
        judge=judge,
        average=f"{run.training.ema_half_lives_kimg[0]:g}",
    )
