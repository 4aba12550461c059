"""The search: Ray Tune over the space, on this machine or over the nodes of a Slurm job; a trial is a run folder."""

import dataclasses
import functools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facefactory import (
    Failed,
    UserError,
    failures,
    rundir,
    runner,
    say,
    search,
    surroundings,
    trials,
)
from facefactory.cluster.launch import Job
from facefactory.cluster.local import INTERRUPTED
from facefactory.evaluation import subjects
from facefactory.facts import Facts
from facefactory.run import (
    TRAINS,
    Run,
    constraints_of,
    goal_of,
    load_run,
    space_of,
    with_params,
)
from facefactory.rundir import RunDir
from facefactory.runner import Interrupted, stop
from facefactory.search.estimate import estimate
from facefactory.search.space import Space, examples
from facefactory.stages import Outputs, Plan, Stage, of, on_gpu
from facefactory.stages._networks import (
    checkpoint_of,
    join,
    require_balance,
    require_trainable,
    say_doubts,
    task_of,
    trained,
)
from facefactory.stages._scores import context_of, judge_needed
from facefactory.stages._sets import index_of, require_different, require_splits
from facefactory.stages._snapshots import require_snapshots
from facefactory.stages._trials import open_training
from facefactory.training import costs
from facefactory.trials import MOST_RETRIES, Params, Rung, Trial, TrialFolder, folder_of

RESUMES = "each trial goes on from its last checkpoint"
LATER = ("sweep.finalists", "sweep.confirm_seeds")  # keys of stages that come after
LIVES = (
    3  # a sweep whose Ray is lost so often in a row, with nothing trained in between, has failed
)


class Component(Stage):
    """Leaves `trials`: a digest of which there were, how they ended and what they scored."""

    sections = ("sweep.", "evaluation.", *TRAINS)
    needs = ("pack.images",)

    def config(self, run: Run, *, resumes: bool = True) -> dict[str, Any]:
        """Without the keys of the stages after it."""
        found = super().config(run, resumes=resumes)
        return {name: value for name, value in found.items() if name not in LATER}

    def basis(self, run: Run, folder: RunDir) -> dict[str, Any]:
        """A space may change: trials that were drawn from it as it is now stay."""
        inputs = self.inputs(run, folder)
        return {name: value for name, value in inputs.items() if name != "space"}

    def intact(self, run: Run, folder: RunDir) -> bool:
        """No trial that failed is to be tried again."""
        found = trials.read(folder.stage(self.name)) if run.sweep.retry else []
        return not any(_is_retried(run, trial, folder.stage(self.name)) for trial in found)

    def check(self, run: Run, folder: RunDir, plan: Plan) -> None:
        """The space holds together, and what lies at its corners can be trained."""
        from facefactory.data.packing import enough

        goal_of(run)
        space = space_of(run)
        search.check(run.sweep, space, run.seed)
        require_snapshots(run)
        if plan.faces is None:
            return
        require_splits(run, plan.faces)
        enough.require_images(plan.faces.faces, {"train": 2})
        require_different(run, folder)
        try:
            trials = [run, *(with_params(run, params) for params in examples(space))]
        except UserError as error:
            raise UserError(f"sweep.space={run.sweep.space} does not fit: {error}") from None
        feasible = self._feasible(run, trials[1:], plan.faces.facts)
        for one in [run, *feasible]:
            require_balance(one, plan.faces)
            require_trainable(one, plan.faces, plan)
        say_doubts(run, trials, plan.faces, plan)

    def _feasible(self, run: Run, trials: list[Run], facts: Facts) -> list[Run]:
        """Those of these trials that cost as little as the space allows, as far as that need not be timed.

        UserError: none does.
        """
        bounds = constraints_of(run)
        quick = {name: most for name, most in bounds.items() if costs.file(name).QUICK}
        feasible = []
        refused = []
        for trial in trials:
            refusal = _refusal(trial, quick, facts) if quick else None
            if refusal is None:
                feasible.append(trial)
            else:
                refused.append(refusal.words)
        if not feasible:
            raise UserError(
                f"space {run.sweep.space}: none of {len(trials)} random points may be tried, e.g. {refused[0]}; "
                "raise its constraints, or take the large choices out of it."
            )
        if refused:
            say(
                f"note: {len(refused)} of {len(trials)} random points are infeasible, e.g. {refused[0]}."
            )
        return feasible

    def forecast(self, run: Run, plan: Plan) -> list[str]:
        """Trials, images and hours, the latter timed with one example of each model; on a cluster the jobs that wait for it."""
        space = space_of(run)
        models: dict[str, Run] = {}
        for params in examples(space):
            trial = with_params(run, params)
            models.setdefault(trial.model["name"], trial)
        seconds = None
        if plan.faces is not None:
            timed = [
                costs.file("seconds_per_kimg").estimate(_planned(trial, plan.faces.facts))
                for trial in models.values()
            ]
            seconds = sum(timed) / len(timed)
        lines = estimate(run.sweep, _trials(run, space), run.training.total_kimg, seconds).lines()
        if plan.profile is not None:
            nodes, _ = plan.profile.nodes(run.sweep.parallel, run.sweep.gpus_per_trial)
            lines.append(
                f"queue: one job on {nodes} nodes for all trials, then one for each of {run.sweep.finalists} finalists"
            )
        return lines

    def asks(self, run: Run) -> tuple[str, ...]:
        """The judge too, where the protocol asks for one."""
        return (*self.needs, *judge_needed(run))

    def inputs(self, run: Run, folder: RunDir) -> dict[str, Any]:
        """What scores need, the pixels and what the search space holds."""
        found = {**super().inputs(run, folder), "space": rundir.digest(space_of(run))}
        bounds = constraints_of(run)
        return {**found, "constraints": bounds} if bounds else found

    def work(self, run: Run, folder: RunDir) -> Outputs:
        """Search, in the Ray that was started for this process, or in one of its own.

        UserError: the score that is looked for does not see on this set what everybody sees.
        """
        target = folder.stage(self.name)
        goal = goal_of(run)
        context = context_of(run, folder, index_of(folder), goal)
        subjects.file(run.evaluation.scoring).admit(context)
        rundir.write_json(target / "goal.json", dataclasses.asdict(goal))  # for whoever watches
        granted = run.training.device == "auto" and surroundings.sees_gpus()
        study = search.Study(
            folder=target,
            space=space_of(run),
            options=run.sweep,
            goal=goal,
            seed=run.seed,
            trial=functools.partial(_trial, str(folder.path)),
            threads=run.training.threads,
            # Ray keeps trials on GPUs of their own only if asked
            gpus=run.sweep.gpus_per_trial if run.training.device == "cuda" or granted else 0.0,
            needs_gpus=run.training.device == "cuda",
            should_stop=stop,
            refuse=functools.partial(_refuse, run, index_of(folder).facts),
            ray=surroundings.ray_address(),
        )
        expected = estimate(run.sweep, _trials(run, study.space), run.training.total_kimg, None)
        rundir.write_json(target / "plan.json", expected.entry())  # held against what it took
        _take_up(run, target)
        tried = search.run(study)
        while (cut := _cut(tried)) and not stop():
            say(f"sweep: the processes of trials {', '.join(cut)} were lost; {RESUMES}")
            for name in cut:
                folder_of(target, name).lost()
            tried = search.run(study)
        if stop():
            raise Interrupted

        entries = [trial.entry() for trial in tried]
        rundir.write_json(target / "results.json", {**dataclasses.asdict(goal), "trials": entries})
        if not search.best(tried, 1, goal):
            errors = sorted({str(trial.error) for trial in tried})
            raise Failed(f"all {len(tried)} trials failed: {'; '.join(errors)[:500]}")
        outputs = {"trials": rundir.digest([trial.timeless() for trial in tried])}
        return outputs, [target / "results.json"]

    def part(self, run: Run, folder: RunDir, arguments: Sequence[str]) -> None:
        """The stage as the driver of a Ray cluster over a Slurm job's nodes."""
        from facefactory.cluster import ray_on_slurm

        began = time.time()
        each = -(-run.sweep.parallel // surroundings.nodes())
        gpus = math.ceil(each * run.sweep.gpus_per_trial) if surroundings.gpus_granted() else 0
        driver = ["facefactory", "stages", str(folder.path), self.name]
        code = ray_on_slurm.run(driver, folder.path, each * run.training.threads, gpus, stop)
        if stop():
            raise Interrupted(RESUMES)
        if code < 0:
            say(f"the process that led the sweep was killed by signal {-code}")
        if (code == INTERRUPTED or code < 0) and _lives_left(folder, began):
            raise Interrupted(RESUMES)
        if code:
            raise Failed(f"the sweep ended with exit code {code}; its message stands above.")

    def jobs(self, run: Run, folder: RunDir, options: Sequence[str]) -> list[Job]:
        """One job over as many nodes as its parallel trials fill."""
        command = ["part", str(folder.path), self.name]
        job = Job(
            self.name,
            [command],
            "sweep",
            on_gpu(run, "sweep"),
            processes=run.sweep.parallel,
            gpu_share=run.sweep.gpus_per_trial,
            starts_ray=True,
        )
        return [job]


def _cut(tried: list[Trial]) -> list[str]:
    """Trials whose processes ended before their time."""
    return [trial.name for trial in tried if trial.state == "interrupted"]


def _is_retried(run: Run, trial: Trial, study: Path) -> bool:
    """Whether a trial failed in a way in which the command asks to try it again."""
    wanted = run.sweep.retry
    if trial.failure is None or wanted is None:
        return False
    again = folder_of(study, trial.name).raised().retries < MOST_RETRIES
    return again and trial.failure.kind in failures.RETRIES[wanted]


def _take_up(run: Run, study: Path) -> None:
    """Let go on what failed for a reason that has passed, and what is to be tried again, with more of what it lacked."""
    for trial in trials.read(study):
        folder = folder_of(study, trial.name)
        if trial.failure is not None and _is_retried(run, trial, study):
            say(f"sweep: trial {trial.name} is tried again: it {trial.failure.words()}")
            folder.retry(trial.failure)
        elif trial.failure is not None and trial.failure.kind in failures.PASSING:
            folder.take_up()


def _lives_left(folder: RunDir, began: float) -> int:
    """How often Ray may be lost still; as often as ever, where something was trained meanwhile."""
    saved = folder.path.glob("sweep/trials/*/train/checkpoints/*.pt")
    lives = folder.path / "private" / "sweep-lives.json"
    known = rundir.read_json(lives)
    if known not in range(1, LIVES + 1):  # none left: a new submission has all again
        known = LIVES
    left: int = LIVES if any(path.stat().st_mtime > began for path in saved) else known - 1
    rundir.write_json(lives, left)
    return left


def _parts(run: Run, times: int) -> int:
    """Into how many parts a trial's batch is cut that had too little memory: so many times as many, as far as that goes even."""
    batch = run.training.batch_size
    wanted = min(batch, times * run.training.accumulate)
    return next(parts for parts in range(wanted, batch + 1) if batch % parts == 0)


def _trials(run: Run, space: Space) -> int:
    """As many as are asked for, or all that the sampler has."""
    ahead = search.points(run.sweep, space, run.seed)
    return run.sweep.trials if ahead is None else len(ahead)


def _planned(trial: Run, facts: Facts) -> costs.Planned:
    return costs.Planned(trial.model, trial.objective, trial.training, trial.data, facts)


def _refuse(run: Run, facts: Facts, params: Params) -> search.Refusal | None:
    """Why a point of the space is not tried; None: nothing speaks against it."""
    bounds = constraints_of(run)
    return _refusal(with_params(run, params), bounds, facts) if bounds else None


def _refusal(trial: Run, bounds: dict[str, float], facts: Facts) -> search.Refusal | None:
    found = costs.estimates(_planned(trial, facts), list(bounds))
    over = [
        f"{name} {found[name]:,.4g} (at most {most:,.4g})"
        for name, most in bounds.items()
        if found[name] > most
    ]
    return search.Refusal(found, ", ".join(over)) if over else None


def _trial(parent: str, own: TrialFolder, params: dict[str, Any], report: search.Report) -> None:
    """One trial, in a Ray worker: train from rung to rung in a run folder of its own, score at each."""
    # what all trials share
    above = RunDir(Path(parent))
    study = load_run(above.path)
    run = with_params(study, params, total_kimg=study.sweep.max_kimg, ranks=1)
    parts = _parts(run, own.raised().accumulate)
    training = dataclasses.replace(run.training, accumulate=parts)
    run = dataclasses.replace(run, training=training)
    index = index_of(above)
    scoring = subjects.file(run.evaluation.scoring)
    context = context_of(run, above, index, goal_of(run))

    # its own folder, where rungs that were scored before are not trained again
    folder = open_training(own.path, run)
    own.take_up()
    recorded = {rung.kimg for rung in own.rungs()}
    began = time.time()
    try:
        task = task_of(run, folder, index, folder.path.name)
        world = join(run.training)
        for rung in run.sweep.rungs():
            if rung in recorded:
                continue
            done = trained(task, world, rung)
            if rung == run.sweep.rungs()[-1]:
                inputs = {"pack.images": index.images_digest}
                runner.finish(run, folder, of("train"), inputs, checkpoint_of(folder), began)
            scores = scoring.quick(done.average, context)
            task.draw_samples(done.average, done.clock)
            seconds = round(time.time() - began, 1)
            report(Rung.read({"kimg": rung, **scores, "seconds": seconds}))
    except rundir.OwnerLost:
        raise  # a newer copy trains it: its state is not ours to write
    except Exception as error:
        own.end("failed", f"{type(error).__name__}: {error}", failures.of_error(error))
        raise
