"""What several stages do with scores: what they need, and what models are scored on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from facefactory import UserError, say
from facefactory.evaluation import subjects
from facefactory.evaluation.extractors import Judge
from facefactory.evaluation.subjects import Context
from facefactory.results import Goal, Truncations
from facefactory.run import Run, needs_judge, quick_options
from facefactory.rundir import RunDir
from facefactory.stages import of, outputs_of
from facefactory.stages._networks import device_of, network_of
from facefactory.stages._sets import index_of

if TYPE_CHECKING:
    from facefactory.data.sets.index import Index


def judge_needed(run: Run) -> list[str]:
    """The output of the stage judge that scores depend on, where their protocol asks for a judge."""
    return ["judge.judge"] if needs_judge(run) else []


def require_scorable(run: Run) -> None:
    """UserError: the protocol is one for models of another kind."""
    component = of(run.subject).product(run)
    takes = subjects.file(run.evaluation.scoring).TAKES
    lacking = [name for name in takes if not hasattr(component, name)]
    if lacking:
        protocol = run.evaluation.protocol
        raise UserError(
            f"evaluation.protocol={protocol} scores models with {', '.join(takes)}; "
            f"what the stage {run.subject} makes has no {', '.join(lacking)}. "
            "jobs/protocols/ has those for generators and for classifiers."
        )


def context_of(run: Run, folder: RunDir, index: Index, goal: Goal) -> Context:
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
        goal=goal,
        device=device_of(run.training),
        judge=judge,
        average=of(run.subject).average(run),
    )


def truncated(run: Run, folder: RunDir, model: Any, psis: Sequence[float]) -> Truncations | None:
    """Precision and recall at truncations, by the quick protocol or the run's own; None: a line has said why there are none."""
    quick = quick_options()
    reasons: dict[str, None] = {}
    for options in (quick, dataclasses.replace(quick, reals=run.evaluation.reals)):
        try:
            scoring = subjects.file(options.scoring)
            goal = scoring.goal(None, options)
            device = device_of(run.training)
            average = of(run.subject).average(run)
            context = Context(index_of(folder), options, run.seed, goal, device, average=average)
            return scoring.truncated(model, context, psis)
        except UserError as error:
            reasons[str(error)] = None
    again = f"python jobs/evaluate.py run={folder.path.name} evaluation.protocol=quick"
    say(
        f"generate: no precision and recall at each psi: {'; '.join(reasons)}; {again}, then this command again."
    )
    return None


def say_protocols(found: dict[str, Any]) -> None:
    """A line a protocol for the person who watches: how images were compared, in full."""
    for name, fields in found["protocols"].items():
        words = ", ".join(f"{key} {value}" for key, value in fields.items() if value != "")
        say(f"evaluate: protocol {name}: {words}")
