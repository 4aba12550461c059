"""The command line: what every script in jobs/ and every process of a chain does before and after its stages."""

import itertools
import json
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facefactory import (
    Failed,
    UserError,
    chain,
    cluster,
    config,
    pipeline,
    registry,
    rundir,
    runner,
    say,
    stages,
    starting,
    studies,
    surroundings,
    sweep,
)
from facefactory.cluster import check as checking
from facefactory.cluster import launch, status
from facefactory.config import key, section
from facefactory.pipeline import JOBS, Judge, Paths, Run
from facefactory.rundir import RunDir

if TYPE_CHECKING:
    from facefactory.models import Facts


@dataclass(frozen=True)
class Status:
    """What jobs/status.py is told."""

    run: str | None = key(None, "name or path of a run; default: the newest")
    profile: str | None = key(None, "cluster profile whose folder of runs is meant, as in the job that made the run")
    paths: Paths = section(Paths)
    watch: bool = key(False, "show it again every 10 s until all jobs have ended")
    json: bool = key(False, "print JSON")


@dataclass(frozen=True)
class Check:
    """What jobs/check.py is told."""

    profile: str | None = key(None, "profile to start from: a name in slurm/ or ~/.config/facefactory/, or a path")
    partitions: list[str] = key([], "partitions to try; default: all that are up")
    folder: str = key("runs", "a folder on shared storage, where the test jobs leave their findings")
    wait_min: float = key(10.0, "how long to wait for the test jobs, minutes", low=0.1)
    dry_run: bool = key(False, "ask Slurm only, submit no jobs")


def tell_status() -> None:
    """jobs/status.py: exit code 0 = well, 1 = something failed, 2 = no such run."""
    _own(Status, "status", _status)


def check_cluster() -> None:
    """jobs/check.py: exit code 0 = nothing stands in the way, 1 = something does."""
    _own(Check, "check", _check)


def _own(schema: type[Any], job: str, work: Callable[[Any], None]) -> None:
    """A job with a tree of its own: help, or its work with its options."""
    surroundings.speak_utf8()
    surroundings.settle(started_by_us=False)
    if {"--help", "-h"} & set(sys.argv[1:]):
        return print(f"usage: python jobs/{job}.py [key=value …]\n\nkeys:\n{config.help_text(schema)}")
    sys.exit(chain.guarded(lambda: work(config.load(schema, sys.argv[1:], []))))


def _check(options: Check) -> None:
    if cluster.choose("auto") == "local":
        raise UserError("no Slurm is set up here: this is no login node of a cluster; jobs run here with cluster=local.")
    profile, folder = cluster.load_profile(options.profile), Path(options.folder).expanduser().absolute()
    if not checking.cluster(profile, folder, options.partitions, 0 if options.dry_run else options.wait_min * 60):
        raise Failed("see the findings above.")


def _status(options: Status) -> None:
    site = cluster.load_profile(options.profile).runs
    runs = Path(options.paths.runs if options.paths != Paths() or site is None else site)
    newest = max(runs.glob("*/jobs.jsonl"), key=lambda path: path.stat().st_mtime, default=None)
    folder = RunDir(newest.parent if newest and options.run is None else existing(options.run, runs))
    while True:
        seen = status.read(folder)
        print(json.dumps(seen, indent=1), flush=True) if options.json else chain.show(seen)
        if not (options.watch and seen["going"]):
            break
        time.sleep(chain.WAIT_S)
    if not seen["healthy"]:
        raise Failed("a job failed or can never run.")


def check(run: Run, folder: RunDir, names: tuple[str, ...], profile: cluster.Profile | None = None) -> None:
    """Find what cannot work (images, labels, batch sizes, network shapes, search space) before anything starts: UserError.

    What works and may not be meant is said. `profile`: of the cluster where the run goes; None: it stays on this machine.
    """
    import numpy as np
    import pandas as pd

    from facefactory import checkpoint
    from facefactory.data import enough, index, labels
    from facefactory.models import Facts
    from facefactory.training import augment

    if run.data.shards is not None:
        found = index.read(Path(run.data.shards))
        found.verify()
        recipe, schema, facts = found.content, found.content["labels"], Facts(**found.facts)
        sizes = {name: split["count"] for name, split in recipe["splits"].items()}
        table = pd.concat([found.table(name) for name in sizes], ignore_index=True)
        faces = enough.Faces(table, np.repeat(list(sizes), list(sizes.values())), schema, recipe["group"])
        shares: dict[str, float] = {}
    elif "pack" in names:
        planned = pipeline.plan_of(run, folder)
        recipe, schema = planned.recipe, planned.schema
        classes = {name: len(entry["classes"]) for name, entry in schema.items() if "classes" in entry}
        facts = Facts(run.pack.resolution, 1 if run.pack.color == "gray" else 3, classes)
        faces = enough.Faces(planned.table, planned.splits, schema, recipe["group"])
        shares = planned.shares
    else:
        return
    if names == ("pack",):
        return
    protocol, protocols = run.evaluation.protocol, registry.names("evaluation.protocols")
    if protocol not in protocols:
        raise registry.unknown(f"evaluation.protocol={protocol!r} is no protocol", protocol, protocols)
    for name in ("reference", "held_out"):
        wanted = getattr(run.evaluation, name)
        if wanted in shares and wanted not in recipe["splits"]:
            raise enough.undivided(faces, shares, wanted)
        others = [split for split in recipe["splits"] if name == "reference" or split != run.evaluation.reference]
        if wanted not in recipe["splits"]:
            way = f"give evaluation.{name}={others[-1]}" if others else "give the recipe another one"
            raise registry.unknown(f"evaluation.{name}={wanted!r} is no split of this set: {way}", wanted, recipe["splits"])
    needed = {"train": 2} if {"train", "sweep", "judge"} & set(names) else {}
    if "judge" in names:  # its distances compare pairs of images
        needed |= dict.fromkeys((run.evaluation.reference, run.evaluation.held_out), 2)
    enough.require_images(faces, needed)
    if run.data.shards and needed:
        found.require_different("train")
    if "judge" in names:
        people = len(np.unique(labels.people(faces.table, recipe["group"])))
        if run.judge.folds > people:
            raise UserError(f"judge.folds={run.judge.folds}, but the set has {people} people; give at most as many.")
    if run.judge.training.ranks != 1:
        raise UserError(f"judge.training.ranks={run.judge.training.ranks}; a judge is trained by one process, give 1.")
    trained = [run]
    if "sweep" in names:
        space = pipeline.space_of(run)
        if run.sweep.sampler == "grid":
            sweep.grid(space)
        run.sweep.rungs()
        trained += [pipeline.with_params(run, params) for params in sweep.examples(space)]
    for data in [one.data for one in trained]:
        if data.balance is not None and data.balance not in facts.classes:
            raise registry.unknown(f"data.balance={data.balance!r} is no label with classes", data.balance, facts.classes)
        labels.weights(data, schema[data.balance]["classes"] if data.balance else [])
    fitted: list[Run | Judge] = [*trained] if {"train", "sweep"} & set(names) else []
    for one in [*fitted, *([run.judge] if "judge" in names else [])]:
        one.training.batch_per_rank()
        augment.check(one.training.augment)
        objective = registry.build("objectives", one.objective, schema)
        if "logits" in objective.needs:
            enough.require_classes(faces, facts.classes)
        _require_memory(one, facts, profile)
        model = checkpoint.build(one.model, facts)
        if lacking := [name for name in objective.needs if not hasattr(model, name)]:
            raise UserError(f"{one.objective['name']} trains no {one.model['name']}: that has no {', '.join(lacking)}.")

    objectives = {str(one.objective["name"]) for one in fitted}
    classifies = any("logits" in registry.module("objectives", name).Component.needs for name in objectives)
    batch_size = max((one.training.batch_size for one in fitted), default=None)
    for doubt in enough.doubts(faces, batch_size, run.evaluation.held_out if "judge" in names else None, classifies):
        say(f"note: {doubt}.")


def _require_memory(one: Run | Judge, facts: "Facts", profile: cluster.Profile | None) -> None:
    """UserError: a training needs more memory than it will have. What its layers hold in between is not counted."""
    import torch

    from facefactory import checkpoint

    options = one.training
    each = 2 if options.precision == "float64" else 1
    copies, images = float(each * checkpoint.TRAINED), options.batch_per_rank() // options.accumulate
    pixels = facts.channels * facts.resolution**2
    beside = checkpoint.VALUE * each * images * 3.0 * pixels  # real and generated ones, and a gradient

    # on a GPU the machine's own memory holds the networks while they are built and saved, no more
    on_gpu = options.device != "cpu" and (profile.gpus_per_node > 0 if profile else torch.cuda.is_available())
    if on_gpu:
        copies, beside = 2.0 * each, 0.0
    if profile is not None:
        room, whose = profile.memory_gb * checkpoint.GB, "a process of the profile (memory_gb)"
    else:
        room, whose = checkpoint.memory_here() / options.ranks, "this machine"
        whose += f", for each of {options.ranks} ranks," if options.ranks > 1 else ""
    if beside > room:
        raise UserError(
            f"{images} images at once of {facts.resolution} x {facts.resolution} pixels need {beside / checkpoint.GB:,.1f} GB, "
            f"and {whose} has {room / checkpoint.GB:,.1f} GB: give a smaller training.batch_size, or training.accumulate."
        )
    checkpoint.require_memory(one.model, facts, copies, beside, room, whose)


def main(job: str, stages: tuple[str, ...], preset: str | None = None) -> None:
    """What every script in jobs/ calls: read the command line, check it, run the stages.

    With a preset the job makes or continues a run; without, it works on the run folder named by run=….
    """
    surroundings.speak_utf8()
    launched = dict(os.environ)
    aside = surroundings.settle(started_by_us=False)

    def work() -> None:
        if not {"--help", "-h"} & set(sys.argv[1:]):
            surroundings.check_alone(launched)
        if aside:
            say(f"not used, because the run decides these itself: {', '.join(aside)}")
        start(job, stages, preset, sys.argv[1:])

    sys.exit(chain.guarded(work))


def start(job: str, names: tuple[str, ...], preset: str | None, arguments: list[str]) -> None:
    """Read, check, prepare; then run the stages here, or submit them to Slurm."""
    if {"--help", "-h"} & set(arguments):
        return print(help_of(job, preset, arguments))
    *_, chosen = (preset or "", *(one.removeprefix("config=") for one in arguments if one.startswith("config=")))
    rest = [argument for argument in arguments if not argument.startswith("config=")]
    layers = preset_layers(preset, chosen) if preset else []
    early = config.load(Run, rest, layers)  # what decides which layers lie below the arguments
    where = early.cluster if early.dry_run and early.cluster == "slurm" else cluster.choose(early.cluster)
    profile = cluster.load_profile(early.profile) if where == "slurm" else cluster.Profile()
    site = {"paths": {name: value for name in ("runs", "data") if (value := getattr(profile, name))}}
    if preset is None:
        path = existing(early.run, Path(config.load(Run, rest, [site]).paths.runs))
        layers = [pipeline.config_of(path)]
    else:
        path, layers = None, [site, *layers]
    run = pipeline.resolve(config.load(Run, rest, layers))
    surroundings.set_threads(run.training.threads)
    if where == "local":
        surroundings.check_gpus(run.training.device)
    identity = config.flat(run)
    if path is None:
        rundir.usable(Path(run.paths.runs), "paths.runs", write=False)
        stem = re.sub(r"[^\w.=+-]", "_", Path(chosen).stem)[:50]
        path = run_path(run, f"{job}-{stem}-{config.digest(identity)[:8]}")
    rundir.usable(Path(run.paths.data), "paths.data", write=False)
    folder = RunDir(path)
    check(run, folder, names, profile if where == "slurm" else None)
    todo = list(itertools.dropwhile(lambda name: runner.is_complete(run, folder, name), names))
    options = own_options(path, identity) if preset is None else []
    if "pack" in todo and not run.data.shards:
        target = stages.planned(run, folder)[1]
        if not (target / "index.json").exists():
            rundir.usable(target.parent, "paths.data")
    if "generate" in todo and run.generate.out:
        runner.generated(run, folder)  # or what lies there already
    jobs = chain.slurm_jobs(run, folder, todo, options) if where == "slurm" else []
    scripts = [(one.stage, launch.script(one, profile, path)) for one in jobs]  # or what the profile does not allow
    threads, cpus = run.training.threads, profile.cpus_per_process
    if jobs and threads > cpus:
        raise UserError(f"training.threads={threads}, but the profile has cpus_per_process={cpus}.")
    say(f"run folder: {path} (cluster: {where})")
    if run.dry_run:
        plan = "\n".join(f"  {name}: {'to run' if name in todo else 'complete'}" for name in names)
        print(f"# stages\n{plan}\n# resolved config\n{config.dump(run)}")
        for stage, script in scripts:
            print(f"# batch script: {stage}\n{script}")
        return
    unchanged = preset is None or (rundir.check_identity(path, identity, run.changed == "accept") and _is_whole(path))
    if not todo and unchanged and where == "local" and not _busy(folder, where):  # nor is anything written then
        for name in names:
            say(f"{name}: complete")
        return chain.tell_report(path)
    rundir.usable(path, "run")
    command = shlex.join(["python", f"jobs/{job}.py", *arguments])
    with starting.first(path) as turn:
        busy = _busy(folder, where)
        if busy:
            say(f"already running: {busy}; nothing was started.")
        else:
            if turn.waited:  # what the other command did is no longer to be done
                todo = list(itertools.dropwhile(lambda name: runner.is_complete(run, folder, name), names))
                jobs = chain.slurm_jobs(run, folder, todo, options) if where == "slurm" else []
            rundir.check_modes(path)
            if preset is None:
                with open(path / "command.txt", "a") as commands:
                    commands.write(command + "\n")
            else:
                rundir.prepare(path, config.dump(run), identity, command, run.changed == "accept")
            turn.check()
            if where == "local":
                runner.stop.listen()
                folder.claim()
            elif jobs:
                _end_well()
                folder.claim()
                if todo[0] == "finalists":
                    runner.begin(run, folder, "finalists")
                surroundings.leave_job()
                launch.submit(jobs, profile, folder, pipeline.own_files(run))
    if where == "slurm":
        say(f"watch it with: python jobs/status.py run={shlex.quote(str(path))}")
        chain.show(status.read(folder))
        return chain.wait(folder) if run.wait and (busy or todo) else None
    if not busy:
        runner.execute(run, folder, names, studies.WORK)
        chain.tell_report(path)


def _is_whole(path: Path) -> bool:
    """Whether a run folder's config.yaml is."""
    try:
        return bool(pipeline.config_of(path))
    except UserError:
        return False


def _busy(folder: RunDir, where: str) -> str | None:
    """Who works on a run: Slurm jobs that run or will, or a process of this machine.

    UserError: jobs were submitted, and Slurm does not say how they stand.
    """
    if status.submitted(folder):
        sources, jobs = status.ask(folder)
        if where == "slurm" and "squeue" not in sources:
            raise UserError(
                "squeue does not answer, and jobs of this run may be queued already: nothing was submitted. "
                "Give the same command again when it does."
            )
        live = status.reasons(jobs)
        if live:
            return status.standing(live)
    unknown = _forgotten(folder) if where == "slurm" else []
    if unknown:
        return f"Slurm jobs {', '.join(unknown)}, of which jobs.jsonl has lost its lines"
    running = folder.running()
    return "pid {pid} on {host}".format(**running) if running else None


def _forgotten(folder: RunDir) -> list[str]:
    """Jobs in the queue that were submitted for a run and are not in its ledger, as when a crash emptied that file."""
    recorded = {job for jobs in status.submitted(folder).values() for job in jobs}
    submitted = {path.name.partition("_")[0] for path in folder.path.glob("private/jobs/*_submitted.pkl")}
    if not submitted - recorded:
        return []
    queued = cluster.asked("squeue", "-h", "--me", "-o", "%F").stdout.split()
    return sorted((submitted - recorded).intersection(queued))


def _end_well() -> None:
    """A connection that is lost during a submission ends it as Ctrl-C does: what was queued is cancelled."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def preset_layers(default: str, chosen: str) -> list[dict[str, Any]]:
    """The chosen preset (a name or a path) over the names of what the job's default preset trains, scores and searches."""
    wanted = [Path(name) if name.endswith((".yaml", ".yml")) else JOBS / "presets" / f"{name}.yaml" for name in (default, chosen)]
    base, found = (config.read_yaml(path) for path in wanted)
    names = {"model": "name", "objective": "name", "evaluation": "protocol", "sweep": "space"}
    family = {part: {name: base[part][name]} for part, name in names.items() if name in base.get(part, {})}
    return [family, {name: value for name, value in found.items() if name not in ("run", "dry_run", "changed")}]


NAME_CHARACTERS = ". _ - + = @ # , ~ ^ ! ( ) [ ] { }"
NAME_BYTES = 200  # files are named after it, and a file's name has at most 255


def run_path(run: Run, default: str) -> Path:
    """The folder of a run that is made or goes on; UserError: its name cannot be that of a folder, or of a Slurm job."""
    name = run.run if run.run is not None else default
    wrong = sorted({one for one in name if not (one.isalnum() or one in f" {NAME_CHARACTERS}")})
    rule = f"a run's name has letters, digits, blanks and {NAME_CHARACTERS}"
    if wrong:
        where = " (paths.runs=… names another folder)" if "/" in wrong else ""
        raise UserError(f"run={name!r} has {' '.join(map(repr, wrong))}; {rule}{where}.")
    if not name or name != name.strip() or name[0] in ".-":
        raise UserError(f"run={name!r}; {rule}, and begins with none of ., - and blank.")
    if len(name.encode()) > NAME_BYTES:
        raise UserError(f"run={name[:20]!r}… has {len(name.encode())} bytes; give a name of at most {NAME_BYTES}.")
    return Path(run.paths.runs) / name


def own_options(path: Path, identity: dict[str, Any]) -> list[str]:
    """`key=value` of what a job on a run that exists changes: its own sections only; the run's config stays as it was."""
    made = rundir.identity_of(path) or config.flat(pipeline.load_run(path))
    changed = {name: value for name, value in identity.items() if made.get(name) != value}
    own = ("judge.", "evaluation.", "interpret.", "generate.")
    if foreign := ", ".join(name for name in changed if not name.startswith(own)):
        allowed = ", ".join(f"{name}*" for name in own)
        raise UserError(f"{foreign} of run {path.name!r} cannot change any more (only {allowed}); start a new run instead.")
    return [f"{name}={json.dumps(value)}" for name, value in changed.items()]


def existing(name: str | None, runs: Path) -> Path:
    """The run folder that run=… names, by name or by path."""
    if name is None:
        raise UserError(f"give run=NAME (a folder below paths.runs={runs}) or run=PATH of a run folder.")
    for path in (runs / name, Path(name)):
        if (path / "config.yaml").exists():
            return path.absolute()
    known = sorted(path.parent.name for path in runs.glob("*/config.yaml"))
    raise registry.unknown(f"no run {name!r} below {runs}", name, known)


def help_of(job: str, preset: str | None, arguments: list[str]) -> str:
    """All keys, or the options of the components that were named."""
    lines = []
    for argument in arguments:
        part, _, name = argument.partition(".name=")
        if name and part in ("model", "objective"):
            lines.append(f"{(registry.module(f'{part}s', name).Component.__doc__ or '').strip()}\n")
            lines += [f"  {part}.{p.name}={p.default}" for p in registry.options(f"{part}s", name).values()]
    if lines:
        return "\n".join(lines)
    presets = ", ".join(sorted(path.stem for path in (JOBS / "presets").glob("*.yaml")))
    models, objectives = registry.names("models"), registry.names("objectives")
    return (
        f"usage: python jobs/{job}.py [config=PRESET or FILE.yaml] [key=value …]\n\n"
        + (f"presets: {presets} (this job's default: {preset})\n" if preset else "works on the run folder named by run=…\n")
        + f"models: {', '.join(models)}\nobjectives: {', '.join(objectives)}\n\nkeys:\n{config.help_text(Run)}"
    )
