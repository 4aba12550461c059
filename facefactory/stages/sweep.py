"""The search: Ray Tune over the space, on this machine or over the nodes of a Slurm job; a trial is a run folder."""

import dataclasses
import functools
import math
import os
import socket
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facefactory import (
    Failed,
    UserError,
    config,
    failures,
    registry,
    rundir,
    runner,
    say,
    search,
    surroundings,
    trials,
)
from facefactory.cluster import local
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
from facefactory.search.engines import Engine
from facefactory.search.estimate import estimate
from facefactory.search.space import Space, examples
from facefactory.search.study import Stopped
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
from facefactory.trials import MOST_RETRIES, Params, Raised, Rung, Trial, TrialFolder, folder_of

RESUMES = "each trial goes on from its last checkpoint"
WORKERS = "trials"  # the job that is an array of them
MOST = 100_000  # trials of one worker of this machine
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
        _history(run, folder)
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
        rundir.write_json(target / "goal.json", dataclasses.asdict(goal))  # for whoever watches
        study = self._study(run, folder)
        expected = estimate(run.sweep, _trials(run, study.space), run.training.total_kimg, None)
        rundir.write_json(target / "plan.json", expected.entry())  # held against what it took
        if _engine(run).own_jobs and surroundings.in_chain_job():
            _close_lost(study)
        else:
            context = context_of(run, folder, index_of(folder), goal)
            subjects.file(run.evaluation.scoring).admit(context)
            _run_here(study)
        tried = search.results(target, study.space)

        entries = [trial.entry() for trial in tried]
        content = {**dataclasses.asdict(goal), "trials": entries}
        if study.history:
            foreign = [{**trial.entry(), "foreign": True} for trial in study.history]
            content["warm_start"] = {"run": run.sweep.warm_start, "trials": foreign}
        rundir.write_json(target / "results.json", content)
        if not search.best(tried, 1, goal):
            errors = sorted({str(trial.error) for trial in tried})
            raise Failed(f"all {len(tried)} trials failed: {'; '.join(errors)[:500]}")
        outputs = {"trials": rundir.digest([trial.timeless() for trial in tried])}
        return outputs, [target / "results.json"]

    def open(self, run: Run, folder: RunDir) -> None:
        """Trials that failed before this command go on where they may."""
        since = _submitted_at(folder) if surroundings.in_chain_job() else math.inf
        _take_up(run, folder.stage(self.name), since)

    def _study(self, run: Run, folder: RunDir) -> search.Study:
        """What is searched, as this process may search it."""
        granted = run.training.device == "auto" and surroundings.sees_gpus()
        return search.Study(
            folder=folder.stage(self.name),
            space=space_of(run),
            options=run.sweep,
            goal=goal_of(run),
            seed=run.seed,
            trial=functools.partial(_trial, str(folder.path)),
            threads=run.training.threads,
            # Ray keeps trials on GPUs of their own only if asked
            gpus=run.sweep.gpus_per_trial if run.training.device == "cuda" or granted else 0.0,
            needs_gpus=run.training.device == "cuda",
            should_stop=stop,
            refuse=functools.partial(_refuse, run, index_of(folder).facts),
            ray=surroundings.ray_address(),
            workers=functools.partial(_workers, folder, self.name),
            history=_history(run, folder),
        )

    def part(self, run: Run, folder: RunDir, arguments: Sequence[str]) -> None:
        """The stage as the driver of a Ray cluster over a Slurm job's nodes; `COUNT`: a worker that takes so many trials."""
        from facefactory.cluster import ray_on_slurm

        if arguments:
            return _work_off(self._study(run, folder), int(arguments[0]))

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
        """One job over as many nodes as its parallel trials fill; or an array of workers, and a job that gathers."""
        command = ["part", str(folder.path), self.name]
        if _engine(run).own_jobs:
            return self._own_jobs(run, folder, command)
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

    def _own_jobs(self, run: Run, folder: RunDir, command: list[str]) -> list[Job]:
        """An array of workers, each with a share of the trials that are left, and with more of what failed trials lacked."""
        study = folder.stage(self.name)
        given = [Raised()]
        left = run.sweep.trials
        for trial in trials.read(study):
            raised = folder_of(study, trial.name).raised()
            if trial.failure is not None and _is_retried(run, trial, study):
                given.append(raised.after(trial.failure))
            elif trial.state == "interrupted":
                given.append(raised)
            elif trial.state != "infeasible":
                left -= 1

        share = run.sweep.chunk
        work = [[*command, str(share)]] * max(1, -(-left // share))
        gather = [["stages", str(folder.path), self.name]]
        workers = Job(
            WORKERS,
            work,
            "gpu",
            on_gpu(run, self.kind),
            opens=self.name,
            gpu_share=max(1.0, run.sweep.gpus_per_trial),
            sized_by="sweep.trials",
            at_once=run.sweep.parallel,
            memory=max(raised.memory for raised in given),
            minutes=max(raised.minutes for raised in given),
        )
        return [workers, Job(self.name, gather, "cpu", gpus=False, after="any")]


def _history(run: Run, folder: RunDir) -> tuple[Trial, ...]:
    """The trials of the sweep that this one starts warm from, as far as they lie in its space.

    UserError: there are none, or they were scored otherwise than trials of this one are.
    """
    if run.sweep.warm_start is None:
        return ()
    path = Path(run.sweep.warm_start)
    if not (path / "sweep" / "trials").is_dir():
        beside = sorted(found.parents[1].name for found in path.parent.glob("*/sweep/trials"))
        raise registry.unknown(f"sweep.warm_start={path} is no sweep", path.name, beside)

    # how scores came to be, and on which faces
    before = _scored_by(load_run(path), RunDir(path))
    now = _scored_by(run, folder)
    unlike = []
    for name in sorted(before.keys() & now.keys()):
        if before[name] != now[name]:
            unlike.append(f"{name} was {before[name]!r}, now {now[name]!r}")
    if unlike:
        raise UserError(
            f"sweep.warm_start={path.name} was scored otherwise, so its trials say nothing here: "
            f"{'; '.join(unlike)}. Make them alike, or leave it out."
        )

    found = search.results(path / "sweep", space_of(run))
    if not found:
        raise UserError(
            f"sweep.warm_start={path.name} has no trial of the space {run.sweep.space}; "
            "give a sweep of such a space, or leave it out."
        )
    return tuple(found)


def _scored_by(run: Run, folder: RunDir) -> dict[str, Any]:
    """What scores of trials depend on beside what a space may hold; the pixels, once they are packed."""
    found: dict[str, Any] = {"score": goal_of(run).metric, "sweep.max_kimg": run.sweep.max_kimg}
    for name, value in config.flat(run).items():
        if name.startswith("evaluation."):
            found[name] = value
    done = folder.done("pack")
    if done is not None:
        found["images"] = done["outputs"].get("images")
    return found


def _engine(run: Run) -> Engine:
    """What hands the trials out."""
    found: Engine = registry.build("search.engines", {"name": run.sweep.engine})
    return found


def _run_here(study: search.Study) -> None:
    """Search; a trial whose process is lost goes on. Interrupted: a stop was asked for."""
    tried = search.run(study)
    while (cut := _cut(tried)) and not stop():
        say(f"sweep: the processes of trials {', '.join(cut)} were lost; {RESUMES}")
        for name in cut:
            folder_of(study.folder, name).lost()
        tried = search.run(study)
    if stop():
        raise Interrupted


def _close_lost(study: search.Study) -> None:
    """Write down that trials failed whose jobs are over before they were."""
    for trial in search.results(study.folder, study.space):
        if trial.state == "interrupted":
            why = "its job ended before it, and left no word"
            folder_of(study.folder, trial.name).end("failed", why, failures.made("killed", why))


def _workers(folder: RunDir, name: str, count: int) -> list[int]:
    """Processes of this machine that take trials until none is left; their exit codes."""
    command = ["facefactory", "part", str(folder.path), name, str(MOST)]
    home = folder.stage(name) / "workers"
    logs = [home / str(number) / "log.txt" for number in range(count)]
    for log in logs:
        log.parent.mkdir(parents=True, exist_ok=True)
    return local.side_by_side([command] * count, count, logs, [{}] * count, say)


def _work_off(study: search.Study, count: int) -> None:
    """Take trials, one after the other, as many as `count` at most; Interrupted: a stop was asked for."""
    from facefactory.search.engines import array

    pid = os.getpid()
    own = array.Holder(surroundings.job(), socket.gethostname(), pid, rundir.started(pid))
    for _ in range(count):
        if stop():
            raise Interrupted(RESUMES)
        trial = array.take(study, own)
        if trial is None:
            return
        try:
            array.run(study, trial)
        except (Interrupted, rundir.OwnerLost):
            raise
        except Exception:  # it is written down, and the others go on
            traceback.print_exc()


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


def _submitted_at(folder: RunDir) -> float:
    """When workers were queued last, as jobs of their own; never, where the search is one job."""
    lines = rundir.read_ledger(folder.path)
    times = [
        line["time"] for line in lines if (line["stage"], line["state"]) == (WORKERS, "submitted")
    ]
    return max(times, default=math.inf)


def _take_up(run: Run, study: Path, since: float = math.inf) -> None:
    """Let go on what failed for a reason that has passed, and what is to be tried again, with more of what it lacked.

    What has failed after `since` has had its turn.
    """
    for trial in trials.read(study):
        folder = folder_of(study, trial.name)
        if trial.failure is not None and folder.ended_at() > since:
            continue
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
    except (rundir.OwnerLost, Interrupted, Stopped):
        raise  # a newer copy trains it, or it goes on later, or was stopped: that is not ours to write
    except Exception as error:
        own.end("failed", f"{type(error).__name__}: {error}", failures.of_error(error))
        raise
