"""The command line: what every script in jobs/ does before and after its stages."""

import json
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facefactory import (
    Failed,
    UserError,
    chain,
    cluster,
    config,
    process,
    registry,
    rundir,
    runner,
    say,
    starting,
    surroundings,
)
from facefactory.cluster import check as checking
from facefactory.cluster import launch, status
from facefactory.config import key, section
from facefactory.run import (
    JOBS,
    Paths,
    Run,
    config_of,
    load_run,
    own_files,
    resolve,
    with_protocol,
)
from facefactory.rundir import RunDir
from facefactory.stages import Plan, Stage, _pair, called_for, every, of
from facefactory.stages._sets import known
from facefactory.weights import stock


@dataclass(frozen=True)
class Status:
    """What jobs/status.py is told."""

    run: str | None = key(None, "name or path of a run; default: the newest")
    profile: str | None = key(
        None, "cluster profile whose folder of runs is meant, as in the job that made the run"
    )
    paths: Paths = section(Paths)
    watch: bool = key(False, "show it again every 10 s until all jobs have ended")
    json: bool = key(False, "print JSON")


@dataclass(frozen=True)
class Check:
    """What jobs/check.py is told."""

    profile: str | None = key(
        None, "profile to start from: a name in slurm/ or ~/.config/facefactory/, or a path"
    )
    partitions: list[str] = key([], "partitions to try; default: all that are up")
    folder: str = key(
        "runs", "a folder on shared storage, where the test jobs leave their findings"
    )
    wait_min: float = key(10.0, "how long to wait for the test jobs, minutes", low=0.1)
    dry_run: bool = key(False, "ask Slurm only, submit no jobs")


@dataclass(frozen=True)
class Runs:
    """What a job is told that looks at all runs at once."""

    runs: str = key("runs", "the folder whose runs are meant; runs.html and runs.json go there")


def tell_status() -> None:
    """jobs/status.py: exit code 0 = well, 1 = something failed, 2 = no such run."""
    _own(Status, "status", _status)


def tell_runs(job: str, stages: tuple[str, ...]) -> None:
    """A job on the run named by run=…, or, given runs=FOLDER, a page of all runs of a folder."""
    if any(argument.startswith("runs=") for argument in sys.argv[1:]):
        _own(Runs, job, _runs)
    else:
        main(job, stages)


def check_cluster() -> None:
    """jobs/check.py: exit code 0 = nothing stands in the way, 1 = something does."""
    _own(Check, "check", _check)


def keep_weights() -> None:
    """jobs/weights.py: exit code 0 = well, 1 = damaged or not fetched, 2 = a mistake, 3 = missing."""
    words = [argument for argument in sys.argv[1:] if re.fullmatch(r"[^=-][^=]*", argument)]
    usage = "list | fetch [NAME …] | add FILE|PACKAGE … | verify [NAME …]"
    _own(stock.Told, "weights", lambda told: _weights(words, told), usage, words)


def _own(
    schema: type[Any],
    job: str,
    work: Callable[[Any], None],
    usage: str = "",
    words: Sequence[str] = (),
) -> None:
    """A job with a tree of its own: help, or its work with its options.

    `words`: the arguments that are none of them, as `usage` says.
    """
    surroundings.speak_utf8()
    surroundings.settle(started_by_us=False)
    options = [argument for argument in sys.argv[1:] if argument not in words]
    if {"--help", "-h"} & set(options):
        line = " ".join(filter(None, (f"python jobs/{job}.py", usage, "[key=value …]")))
        return print(f"usage: {line}\n\nkeys:\n{config.help_text(schema)}")
    sys.exit(process.guarded(lambda: work(config.load(schema, options, []))))


def _runs(told: Runs) -> None:
    from facefactory.report import runs

    folder = Path(told.runs)
    if not folder.is_dir():
        raise UserError(f"runs={folder} is no folder; give the one that paths.runs names.")
    rundir.usable(folder, "runs")
    print(f"runs: {runs.write(folder)[0]}")


def _weights(words: Sequence[str], told: stock.Told) -> None:
    verb, *names = words or ["list"]
    surroundings.set_weights(cluster.load_profile(told.profile).weights)
    if verb == "list":
        found = stock.states()
    elif verb == "verify":
        found = stock.verify(names)
    elif verb == "fetch":
        found = stock.places(stock.fetch(names))
    elif verb == "add" and names:
        found = stock.places([one for source in names for one in stock.add(source, told)])
    else:
        raise UserError(f"{' '.join(words)}: give list, fetch, verify, or add with a file.")
    print(stock.table(found))


def _check(options: Check) -> None:
    if cluster.choose("auto") == "local":
        raise UserError(
            "no Slurm is set up here: this is no login node of a cluster; "
            "jobs run here with cluster=local."
        )
    profile = cluster.load_profile(options.profile)
    folder = Path(options.folder).expanduser().absolute()
    wait_s = 0 if options.dry_run else options.wait_min * 60
    if not checking.cluster(profile, folder, options.partitions, wait_s):
        raise Failed("see the findings above.")


def _status(options: Status) -> None:
    # which run
    runs = Path(options.paths.runs)
    site = cluster.load_profile(options.profile).runs
    if options.paths == Paths() and site is not None:
        runs = Path(site)
    ledgers = runs.glob("*/jobs.jsonl")
    newest = max(ledgers, key=lambda path: path.stat().st_mtime, default=None)
    if newest is not None and options.run is None:
        folder = RunDir(newest.parent)
    else:
        folder = RunDir(existing(options.run, runs))

    # how it stands, once or until it has ended
    while True:
        now = status.read(folder)
        if options.json:
            print(json.dumps(now, indent=1), flush=True)
        else:
            chain.show(now)
        if not (options.watch and now["going"]):
            break
        time.sleep(chain.WAIT_S)
    if not now["healthy"]:
        raise Failed("a job failed or can never run.")


def check(
    run: Run, folder: RunDir, stages: Sequence[Stage], profile: cluster.Profile | None = None
) -> None:
    """Ask every stage to find what cannot work before anything starts: UserError.

    `profile`: of the cluster where the run goes; None: it stays on this machine.
    """
    plan = plan_of(run, folder, stages, profile)
    for stage in stages:
        stage.check(run, folder, plan)


def plan_of(
    run: Run, folder: RunDir, stages: Sequence[Stage], profile: cluster.Profile | None = None
) -> Plan:
    """What is about to be done."""
    names = tuple(stage.name for stage in stages)
    return Plan(names, profile, known(run, folder, names))


def main(
    job: str, stages: tuple[str, ...], preset: str | None = None, pair: tuple[str, ...] = ()
) -> None:
    """What every script in jobs/ calls: read the command line, check it, run the stages.

    With a preset the job makes or continues a run; without, it works on the run folder named by
    run=…. `pair`: the stages of a job that is given data=… and reference=… instead.
    """
    surroundings.speak_utf8()
    launched = dict(os.environ)
    aside = surroundings.settle(started_by_us=False)

    def work() -> None:
        if not {"--help", "-h"} & set(sys.argv[1:]):
            surroundings.check_alone(launched)
        if aside:
            say(f"not used, because the run decides these itself: {', '.join(aside)}")
        start(job, stages, preset, sys.argv[1:], pair)

    sys.exit(process.guarded(work))


def start(
    job: str,
    names: tuple[str, ...],
    preset: str | None,
    arguments: list[str],
    pair: tuple[str, ...] = (),
) -> None:
    """Read, check, prepare; then run the stages here, or submit them to Slurm."""
    if {"--help", "-h"} & set(arguments):
        return print(help_of(job, preset, arguments, bool(pair)))
    typed = arguments
    if pair and _pair.is_given(arguments):
        names = pair
        preset = _pair.PRESET
        arguments = _pair.spelled(arguments)
    order = _read(job, names, preset, arguments, typed)
    run, folder = order.run, order.folder
    surroundings.set_threads(run.training.threads)
    if order.where == "local":
        surroundings.check_gpus(run.training.device)
    check(run, folder, order.stages, order.profile)

    # what is to do, and the batch scripts for it, or what the profile does not allow
    todo = _todo(order)
    jobs = _jobs(order, todo)
    scripts = [(each.stage, launch.script(each, order.site, folder.path)) for each in jobs]
    threads = run.training.threads
    cpus = order.site.cpus_per_process
    if jobs and threads > cpus:
        raise UserError(
            f"training.threads={threads}, but the profile has cpus_per_process={cpus}."
        )
    say(f"run folder: {folder.path} (cluster: {order.where})")
    if run.dry_run:
        return _print_plan(order, todo, scripts)

    # where nothing is to do nothing is written either
    is_known = True
    if order.makes:
        accept = run.changed == "accept"
        same = rundir.check_identity(folder.path, order.identity, accept)
        is_known = same and _is_whole(folder.path)
    if not todo and is_known and order.where == "local" and not _busy(folder, order.where):
        for stage in order.stages:
            say(f"{stage.name}: complete")
        return chain.tell_report(folder.path)

    # the work, or its jobs
    rundir.usable(folder.path, "run")
    busy = _begin(order, todo)
    if order.where == "slurm":
        say(f"watch it with: python jobs/status.py run={shlex.quote(str(folder.path))}")
        chain.show(status.read(folder))
        return chain.wait(folder) if run.wait and (busy or todo) else None
    if not busy:
        runner.execute(run, folder, [stage.name for stage in order.stages])
        chain.tell_report(folder.path)


@dataclass(frozen=True)
class Order:
    """What a command line asks for."""

    run: Run
    folder: RunDir
    stages: list[Stage]
    command: str  # as it can be given again
    identity: dict[str, Any]  # the keys that decide results
    options: list[str]  # `key=value` of a job on a run that exists
    makes: bool  # whether it makes a run, or works on one that exists
    where: str  # local or slurm
    site: cluster.Profile

    @property
    def profile(self) -> cluster.Profile | None:
        """The cluster's, where it goes to one."""
        return self.site if self.where == "slurm" else None


def _read(
    job: str,
    names: tuple[str, ...],
    preset: str | None,
    arguments: list[str],
    typed: list[str],
) -> Order:
    """The run that a command line means, with every default; UserError: something is wrong in it.

    `typed`: the arguments as the person gave them.
    """
    chosen = preset or ""
    for argument in arguments:
        if argument.startswith("config="):
            chosen = argument.removeprefix("config=")
    rest = [argument for argument in arguments if not argument.startswith("config=")]
    layers = without_foreign_options(preset_layers(preset, chosen), rest) if preset else []
    layers = [with_protocol(layer) for layer in layers]
    protocol = named_protocol(rest)

    # what decides which layers lie below the arguments
    early = config.load(Run, rest, [*layers, protocol])
    where: str = early.cluster
    if where != "slurm" or not early.dry_run:
        where = cluster.choose(where)
    site = cluster.load_profile(early.profile) if where == "slurm" else cluster.Profile()
    places = {name: getattr(site, name) for name in ("runs", "data") if getattr(site, name)}
    surroundings.set_weights(site.weights)

    # a run that exists has its config; one that is made gets it
    if preset is None:
        runs = config.load(Run, rest, [{"paths": places}]).paths.runs
        path = existing(early.run, Path(runs))
        run = resolve(config.load(Run, rest, [config_of(path), protocol]))
    else:
        run = resolve(config.load(Run, rest, [{"paths": places}, *layers, protocol]))
        rundir.usable(Path(run.paths.runs), "paths.runs", write=False)
        stem = re.sub(r"[^\w.=+-]", "_", Path(chosen).stem)[:50]
        path = run_path(run, f"{job}-{stem}-{rundir.digest(config.flat(run))[:8]}")
    rundir.usable(Path(run.paths.data), "paths.data", write=False)
    identity = config.flat(run)
    return Order(
        run=run,
        folder=RunDir(path),
        stages=called_for(run, names),
        command=shlex.join(["python", f"jobs/{job}.py", *typed]),
        identity=identity,
        options=own_options(path, identity) if preset is None else [],
        makes=preset is not None,
        where=where,
        site=site,
    )


def _todo(order: Order) -> list[Stage]:
    """The stages from the first that is not complete."""
    for place, stage in enumerate(order.stages):
        if not runner.is_complete(order.run, order.folder, stage):
            return order.stages[place:]
    return []


def _jobs(order: Order, todo: list[Stage]) -> list[launch.Job]:
    """The Slurm jobs for what is to do."""
    if order.where != "slurm":
        return []
    return chain.slurm_jobs(order.run, order.folder, todo, order.options)


def _print_plan(order: Order, todo: list[Stage], scripts: list[tuple[str, str]]) -> None:
    """What `dry_run=true` shows."""
    print("# stages")
    for stage in order.stages:
        print(f"  {stage.name}: {'to run' if stage in todo else 'complete'}")
    plan = plan_of(order.run, order.folder, order.stages, order.profile)
    for stage in todo:
        for line in stage.forecast(order.run, plan):
            print(f"# {stage.name}: {line}")
    print(f"# resolved config\n{config.dump(order.run)}")
    for name, script in scripts:
        print(f"# batch script: {name}\n{script}")


def _begin(order: Order, todo: list[Stage]) -> str | None:
    """Make the run folder ready and submit what goes to Slurm.

    Unless another command has done so: then who works on it.
    """
    run, folder = order.run, order.folder
    path = folder.path
    with starting.first(path) as turn:
        if order.where == "slurm":
            launch.clear(folder)
        busy = _busy(folder, order.where)
        if busy:
            say(f"already running: {busy}; nothing was started.")
            return busy
        if turn.waited:  # what the other command did is no longer to be done
            todo[:] = _todo(order)
        jobs = _jobs(order, todo)

        # what the run is, and who asked for it
        rundir.check_modes(path)
        if order.makes:
            accept = run.changed == "accept"
            rundir.prepare(path, config.dump(run), order.identity, order.command, accept)
            rundir.keep_stages(path, [stage.name for stage in order.stages])
        else:
            with open(path / "command.txt", "a") as commands:
                commands.write(order.command + "\n")

        # the folder is this command's from here on
        turn.check()
        if order.where == "local":
            runner.stop.listen()
            folder.claim()
        elif jobs:
            _end_well()
            folder.claim()
            if jobs[0].opens is not None:
                runner.begin(run, folder, of(jobs[0].opens))
            surroundings.leave_job()
            launch.submit(jobs, order.site, folder, own_files(run))
    return None


def _is_whole(path: Path) -> bool:
    """Whether a run folder's config.yaml is."""
    try:
        return bool(config_of(path))
    except UserError:
        return False


def _busy(folder: RunDir, where: str) -> str | None:
    """Who works on a run: Slurm jobs that run or will, or a process of this machine.

    UserError: jobs were submitted, and Slurm does not say how they stand.
    """
    # jobs in the ledger
    if status.submitted(folder):
        sources, jobs = status.ask(folder)
        if where == "slurm" and "squeue" not in sources:
            raise UserError(
                "squeue does not answer, and jobs of this run may be queued already: "
                "nothing was submitted. Give the same command again when it does."
            )
        live = status.reasons(jobs)
        if live:
            return status.standing(live)

    # jobs beside it, and a process
    unknown = _forgotten(folder) if where == "slurm" else []
    if unknown:
        return f"Slurm jobs {', '.join(unknown)}, of which jobs.jsonl has lost its lines"
    running = folder.running()
    return "pid {pid} on {host}".format(**running) if running else None


def _forgotten(folder: RunDir) -> list[str]:
    """Jobs in the queue that were submitted for a run and are not in its ledger.

    A crash may have emptied that file.
    """
    pickles = folder.path.glob("private/jobs/*_submitted.pkl")
    unrecorded = {path.name.partition("_")[0] for path in pickles}
    for jobs in status.submitted(folder).values():
        unrecorded.difference_update(jobs)
    if not unrecorded:
        return []
    queued = cluster.asked("squeue", "-h", "--me", "-o", "%F").stdout.split()
    return sorted(unrecorded.intersection(queued))


def _end_well() -> None:
    """A connection that is lost during a submission ends it as Ctrl-C does.

    What was queued is cancelled, and nothing that comes again disturbs that.
    """
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, frame: object) -> None:
        for each in ending:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in ending:
        signal.signal(number, interrupt)


def preset_layers(default: str, chosen: str) -> list[dict[str, Any]]:
    """The chosen preset (a name or a path) over names of the job's default preset.

    Those are of what it trains, scores and searches.
    """
    base = _preset(default)
    names = {"model": "name", "objective": "name", "evaluation": "protocol", "sweep": "space"}
    family: dict[str, Any] = {}
    for part, name in names.items():
        if name in base.get(part, {}):
            family[part] = {name: base[part][name]}
    if "subject" in base:
        family["subject"] = base["subject"]

    # a preset says what a run is, not which
    preset = _preset(chosen)
    for name in ("run", "dry_run", "changed"):
        preset.pop(name, None)
    return [family, preset]


def _preset(name: str) -> dict[str, Any]:
    """The content of a preset, or of a file of the user's."""
    own = name.endswith((".yaml", ".yml"))
    return config.read_yaml(Path(name) if own else JOBS / "presets" / f"{name}.yaml")


NAME_CHARACTERS = ". _ - + = @ # , ~ ^ ! ( ) [ ] { }"
NAME_BYTES = 200  # files are named after it, and a file's name has at most 255


def run_path(run: Run, default: str) -> Path:
    """The folder of a run that is made or goes on.

    UserError: its name cannot be that of a folder, or of a Slurm job.
    """
    name = run.run if run.run is not None else default
    allowed = f" {NAME_CHARACTERS}"
    wrong = sorted({letter for letter in name if not (letter.isalnum() or letter in allowed)})
    rule = f"a run's name has letters, digits, blanks and {NAME_CHARACTERS}"
    if wrong:
        where = " (paths.runs=… names another folder)" if "/" in wrong else ""
        raise UserError(f"run={name!r} has {' '.join(map(repr, wrong))}; {rule}{where}.")
    if not name or name != name.strip() or name[0] in ".-":
        raise UserError(f"run={name!r}; {rule}, and begins with none of ., - and blank.")
    length = len(name.encode())
    if length > NAME_BYTES:
        raise UserError(
            f"run={name[:20]!r}… has {length} bytes; give a name of at most {NAME_BYTES}."
        )
    return Path(run.paths.runs) / name


def without_foreign_options(
    layers: list[dict[str, Any]], arguments: list[str]
) -> list[dict[str, Any]]:
    """The layers without the options of a model, or an objective, whose place another takes.

    The arguments name that other one.
    """
    kept = [dict(layer) for layer in layers]
    for part in ("model", "objective"):
        naming = [argument for argument in arguments if argument.startswith(f"{part}.name=")]
        names = [layer[part]["name"] for layer in layers if "name" in layer.get(part, {})]
        if naming and names and naming[-1] != f"{part}.name={names[-1]}":
            for layer in kept:
                layer.pop(part, None)
    return kept


def named_protocol(arguments: list[str]) -> dict[str, Any]:
    """The layer that `evaluation.protocol=…` among the arguments stands for, below all of them."""
    key = "evaluation.protocol="
    names = [argument.removeprefix(key) for argument in arguments if argument.startswith(key)]
    return with_protocol({"evaluation": {"protocol": names[-1]}}) if names else {}


def own_options(path: Path, identity: dict[str, Any]) -> list[str]:
    """`key=value` of what a job on a run that exists changes: late keys, and sections of late stages.

    The run's config stays as it was. UserError: something else is to change.
    """
    made = rundir.identity_of(path) or config.flat(load_run(path))
    before = (
        config.flat(Run()) | made
    )  # keys that are newer than the run have their defaults there
    changed = {name: value for name, value in identity.items() if before.get(name) != value}
    sections: set[str] = set()
    for stage in every():
        if stage.late:
            sections.update(stage.sections)
    own = tuple(sorted(section for section in sections if section.endswith(".")))
    late = [name for name, item, _ in config.leaves(Run) if item.metadata["late"]]
    foreign = ", ".join(name for name in changed if name not in late and not name.startswith(own))
    if foreign:
        allowed = ", ".join([*(f"{name}*" for name in own), *late])
        raise UserError(
            f"{foreign} of run {path.name!r} cannot change any more (only {allowed}); "
            "start a new run instead."
        )
    return [f"{name}={json.dumps(value)}" for name, value in changed.items()]


def existing(name: str | None, runs: Path) -> Path:
    """The run folder that run=… names, by name or by path."""
    if name is None:
        raise UserError(
            f"give run=NAME (a folder below paths.runs={runs}) or run=PATH of a run folder."
        )
    for path in (runs / name, Path(name)):
        if (path / "config.yaml").exists():
            return path.absolute()
    names = sorted(path.parent.name for path in runs.glob("*/config.yaml"))
    raise registry.unknown(f"no run {name!r} below {runs}", name, names)


def help_of(job: str, preset: str | None, arguments: list[str], pair: bool = False) -> str:
    """All keys, or the options of the components that were named."""
    # named components
    lines = []
    for argument in arguments:
        part, _, name = argument.partition(".name=")
        if name and part in ("model", "objective"):
            meaning = registry.module(f"{part}s", name).Component.__doc__ or ""
            lines += [meaning.strip(), ""]
            for option in registry.options(f"{part}s", name).values():
                lines.append(f"  {part}.{option.name}={option.default}")
    if lines:
        return "\n".join(lines)

    # all keys
    what = "works on the run folder named by run=…"
    if preset:
        presets = ", ".join(sorted(path.stem for path in (JOBS / "presets").glob("*.yaml")))
        what = f"presets: {presets} (this job's default: {preset})"
    if pair:
        what += ", or on data=FOLDER and reference=FOLDER (folders, zips, tars, packed sets)"
    lines = [
        f"usage: python jobs/{job}.py [config=PRESET or FILE.yaml] [key=value …]",
        "",
        what,
        f"models: {', '.join(registry.names('models'))}",
        f"objectives: {', '.join(registry.names('objectives'))}",
        "",
        "keys:",
        config.help_text(Run),
    ]
    return "\n".join(lines)
