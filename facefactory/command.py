"""The command line: what every script in jobs/ and every process of a chain does before and after its stages."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from facefactory import UserError, cluster, config, pipeline, rundir, sweep
from facefactory.cluster.local import INTERRUPTED
from facefactory.pipeline import JOBS, STAGES, Interrupted, Run, RunDir, say


def check(run: Run, stages: tuple[str, ...]) -> None:
    """Find what cannot work before anything starts: images, labels, batch sizes, network shapes, search space.

    Raises:
        UserError: the first thing that is wrong.
    """
    from facefactory import checkpoint, registry
    from facefactory.data import index, pack
    from facefactory.models import Facts
    from facefactory.training import augment

    if "pack" in stages and run.data.shards is None:
        planned = pack.plan(run.pack)
        pack.split_of(planned)
        schema = planned.schema
        classes = {name: len(entry["classes"]) for name, entry in schema.items() if "classes" in entry}
        facts = Facts(run.pack.resolution, 1 if run.pack.color == "gray" else 3, classes)
    elif run.data.shards is not None:
        found = index.read(Path(run.data.shards))
        found.verify()
        schema, facts = found.content["labels"], Facts(**found.facts)
    else:
        return
    if run.data.balance is not None and run.data.balance not in facts.classes:
        raise UserError(
            f"data.balance={run.data.balance!r} is no label with classes; there are {', '.join(facts.classes) or 'none'}."
        )
    protocols = registry.names("evaluation.protocols")
    if run.evaluation.protocol not in protocols:
        raise UserError(f"evaluation.protocol={run.evaluation.protocol!r}; allowed are {', '.join(protocols)}.")
    trained = [run] if {"train", "sweep"} & set(stages) else []
    if "sweep" in stages:
        space = pipeline.space_of(run)
        if run.sweep.sampler == "grid":
            sweep.grid(space)
        run.sweep.rungs()
        trained += [pipeline.with_params(run, params) for params in sweep.examples(space)]
    judged = [(run.judge.model, run.judge.objective, run.judge.training)] if "judge" in stages else []
    for model, objective, training in [(one.model, one.objective, one.training) for one in trained] + judged:
        training.batch_per_rank()
        augment.check(training.augment)
        registry.build("objectives", objective, schema)
        checkpoint.build(model, facts)


def main(job: str, stages: tuple[str, ...], preset: str | None = None) -> None:
    """What every script in jobs/ calls: read the command line, check it, run the stages here.

    With a preset the job makes or continues a run; without, it works on the run folder named by run=….
    """
    sys.exit(guarded(lambda: start(job, stages, preset, sys.argv[1:])))


def guarded(work: Callable[[], None]) -> int:
    """Run `work`; a person's mistake is one line and exit code 2, a stop 75, a lost owner 3, any other error 1."""
    try:
        work()
    except UserError as error:
        say(f"error: {error}")
        return 2
    except Interrupted:
        say("interrupted; what was done is saved. The same command goes on with it.")
        return INTERRUPTED
    except rundir.OwnerLost as error:
        say(f"stopped: {error}")
        return 3
    except (RuntimeError, FloatingPointError) as error:
        say(f"failed: {error}")
        return 1
    return 0


def start(job: str, stages: tuple[str, ...], preset: str | None, arguments: list[str]) -> None:
    """Read, check, prepare and run."""
    if "--help" in arguments or "-h" in arguments:
        return print(help_of(job, preset, [a for a in arguments if a not in ("--help", "-h")]))
    given = dict(
        argument.split("=", 1)
        for argument in arguments
        if argument.startswith(("config=", "run=", "paths.runs=")) and "=" in argument
    )
    rest = [argument for argument in arguments if not argument.startswith("config=")]
    if preset is None:
        path = existing(given)
        layers = [config.read_yaml(path / "config.yaml")]
    else:
        path, layers = None, preset_layers(preset, given.get("config", preset))
    run = pipeline.resolve(config.load(Run, rest, layers))
    where = cluster.choose(run.cluster)
    check(run, stages)
    identity = config.flat(run)
    if path is None:
        stem = Path(given.get("config", preset or "")).stem
        path = Path(run.paths.runs) / (run.run or f"{job}-{stem}-{config.digest(identity)[:8]}")
    say(f"run folder: {path} (cluster: {where})")
    if run.dry_run:
        plan = "\n".join(f"  {name}: {describe(run, RunDir(path), name)}" for name in stages)
        return print(f"# stages\n{plan}\n# resolved config\n{config.dump(run)}")
    running = RunDir(path).running()
    if running is not None:
        return say(f"already running: pid {running['pid']} on {running['host']}; nothing was started.")
    command = shlex.join(["python", f"jobs/{job}.py", *arguments])
    if preset is None:
        folder = finished_run(path, identity, command)
    else:
        folder = rundir.prepare(path, config.dump(run), identity, command, run.changed == "accept")
    pipeline.stop.listen()
    folder.claim()
    pipeline.execute(run, folder, stages)
    if (path / "report.html").exists():
        print(f"report: {path / 'report.html'}")


def preset_layers(default: str, chosen: str) -> list[dict[str, Any]]:
    """The chosen preset (a name or a path) over the names of what the job's default preset trains, scores and searches."""
    wanted = [Path(name) if name.endswith((".yaml", ".yml")) else JOBS / "presets" / f"{name}.yaml" for name in (default, chosen)]
    base, found = (config.read_yaml(path) for path in wanted)
    names = {"model": "name", "objective": "name", "evaluation": "protocol", "sweep": "space"}
    family = {part: {name: base[part][name]} for part, name in names.items() if name in base.get(part, {})}
    return [family, {name: value for name, value in found.items() if name not in ("run", "dry_run", "changed")}]


def finished_run(path: Path, identity: dict[str, Any], command: str) -> RunDir:
    """The folder of a run that exists, for a job that may change its own sections only; the run's config stays as it was."""
    made = rundir.read_json(path / "identity.json")
    own = ("judge.", "evaluation.", "interpret.", "generate.")
    foreign = [name for name in identity if made.get(name) != identity[name] and not name.startswith(own)]
    if foreign:
        allowed = ", ".join(f"{name}*" for name in own)
        raise UserError(
            f"{', '.join(foreign)} of run {path.name!r} cannot change any more (only {allowed}); start a new run instead."
        )
    with open(path / "command.txt", "a") as commands:
        commands.write(command + "\n")
    return RunDir(path)


def existing(given: dict[str, str]) -> Path:
    """The run folder that run=… names, by name or by path."""
    from facefactory.registry import nearest

    if "run" not in given:
        raise UserError("give run=NAME (a folder below paths.runs) or run=PATH of a run folder.")
    runs = Path(given.get("paths.runs", "runs"))
    for path in (runs / given["run"], Path(given["run"])):
        if (path / "config.yaml").exists():
            return path.absolute()
    known = [path.parent.name for path in runs.glob("*/config.yaml")]
    raise UserError(
        f"no run {given['run']!r} below {runs}; there are {', '.join(sorted(known)) or 'none'}.{nearest(given['run'], known)}"
    )


def describe(run: Run, folder: RunDir, name: str) -> str:
    """Whether a stage would run."""
    try:
        complete = folder.is_complete(name, STAGES[name].config(run), STAGES[name].inputs(run, folder))
    except UserError:
        complete = False
    return "complete" if complete else "to run"


def help_of(job: str, preset: str | None, arguments: list[str]) -> str:
    """All keys, or the options of the components that were named."""
    from facefactory import registry

    named = [a for a in arguments if a.split("=")[0] in ("model.name", "objective.name") and "=" in a]
    if named:
        lines = []
        for argument in named:
            where, name = argument.split("=", 1)
            package = f"{where.split('.')[0]}s"
            lines.append(f"{(registry.module(package, name).Component.__doc__ or '').strip()}\n")
            lines += [f"  {where.split('.')[0]}.{p.name}={p.default}" for p in registry.options(package, name).values()]
        return "\n".join(lines)
    presets = ", ".join(sorted(path.stem for path in (JOBS / "presets").glob("*.yaml")))
    models, objectives = registry.names("models"), registry.names("objectives")
    return (
        f"usage: python jobs/{job}.py [config=PRESET or FILE.yaml] [key=value …]\n\n"
        + (f"presets: {presets} (this job's default: {preset})\n" if preset else "works on the run folder named by run=…\n")
        + f"models: {', '.join(models)}\nobjectives: {', '.join(objectives)}\n\nkeys:\n{config.help_text(Run)}"
    )


def process(arguments: list[str]) -> int:
    """`stages FOLDER NAME…`: a run of its own; `rank FOLDER`: one rank of the train stage, in its launcher's name."""
    from facefactory.training import distributed

    mode, path, *names = arguments
    folder = RunDir(Path(path))
    distributed.die_with_parent()
    pipeline.stop.listen()

    def work() -> None:
        run = pipeline.load_run(folder.path)
        if mode == "rank":
            return pipeline.train_rank(run, folder, folder.path.name)
        folder.claim()
        pipeline.execute(run, folder, names)

    return guarded(work)
