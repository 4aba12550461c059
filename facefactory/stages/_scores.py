"""What several stages do with scores: what they need, and what models are scored on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from facefactory import UserError, say
from facefactory.evaluation import subjects
from facefactory.evaluation.extractors import Judge
from facefactory.evaluation.subjects import Context
from facefactory.results import Goal
from facefactory.run import Run, needs_judge
from facefactory.rundir import RunDir
from facefactory.stages import of, outputs_of
from facefactory.stages._networks import device_of, network_of

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


def say_protocols(found: dict[str, Any]) -> None:
    """A line a protocol for the person who watches: how images were compared, in full."""
    for name, fields in found["protocols"].items():
        words = ", ".join(f"{key} {value}" for key, value in fields.items() if value != "")
        say(f"evaluate: protocol {name}: {words}")
