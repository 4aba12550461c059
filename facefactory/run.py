"""The config tree `Run`: read from a run folder, resolved, and as a trial of a search has it."""

import dataclasses
import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from facefactory import UserError, config, registry, rundir
from facefactory.config import key, section
from facefactory.data import Data, Pack
from facefactory.evaluation import Evaluation, subjects
from facefactory.interpret import Interpret
from facefactory.results import Goal
from facefactory.search.space import CONSTRAINTS, Space, check_space, with_families
from facefactory.search.study import Sweep
from facefactory.training import Training

SEARCHED = ("model.", "objective.", "training.", "data.flip", "data.shift", "data.balance")

# What a training depends on
TRAINS = (
    *("seed", "model", "objective", "init_from", *SEARCHED),
    *("data.weights", "data.window_images", "data.draws"),
)
FIXED = ("training.total_kimg", "training.ranks", "training.threads", "training.device")
JOBS = Path(__file__).parents[1] / "jobs"


@dataclass(frozen=True)
class Paths:
    """Where things lie."""

    runs: str = key("runs", "folder of the run folders", identity=False)
    data: str = key("shards", "folder of packed sets and judges", identity=False)


@dataclass(frozen=True)
class Judge:
    """The classifier whose features and verdicts score everything else.

    There is one per dataset, shared by all runs.
    """

    model: dict[str, Any] = key({"name": "classifier/convnet"}, "network of the judge")
    objective: dict[str, Any] = key({"name": "classification"}, "its loss")
    training: Training = section(
        Training,
        total_kimg=35.0,
        batch_size=32,
        lr=1e-3,
        betas=[0.9, 0.99],
        ema_half_lives_kimg=[2.0],
        sample_kimg=0.0,
    )
    folds: int = key(5, "parts of the out-of-fold check, cut between people", low=2)
    fold_kimg: float = key(20.0, "budget of each fold, thousands of images", low=0.001)


@dataclass(frozen=True)
class Compare:
    """With what a run is compared, or what is scored in place of what a model draws."""

    data: str | None = key(
        None, "pictures: a folder, zip, tar or packed set; data=… of jobs/evaluate.py sets it"
    )
    claims: str | None = key(
        None,
        "another run (name or folder), whose claims about latent dimensions jobs/report.py sets beside this one's",
        late=True,
    )


@dataclass(frozen=True)
class Generate:
    """What jobs/generate.py draws."""

    images: int = key(64, "how many; frames of a walk, columns of a grid of truncations", low=1)
    psi: float = key(
        1.0, "truncation: towards 0 images become more typical and more alike", low=0.0
    )
    stops: int = key(4, "images that a walk goes through, and back to the first", low=2, high=256)
    out: str | None = key(None, "folder for them; default <run>/generate/images")
    format: Literal["png", "shards", "gif", "webp", "truncation"] = key(
        "png",
        "PNG files, shards as jobs/pack_shards.py makes them, a walk as gif or webp, or one grid of truncations",
    )


@dataclass(frozen=True)
class Export:
    """What jobs/export.py writes."""

    format: Literal["torch", "onnx"] = key(
        "torch", "TorchScript, safetensors and a loader; onnx: generator.onnx beside them"
    )


@dataclass(frozen=True)
class Run:
    """The whole config tree."""

    run: str | None = key(
        None,
        "name of the run folder; default: job, preset and a digest of the config",
        identity=False,
    )
    seed: int = key(0, "seed of all randomness", low=0, high=2**63 - 1)
    cluster: Literal["auto", "local", "slurm"] = key(
        "auto", "auto: Slurm where there is one, else this machine", identity=False
    )
    profile: str | None = key(
        None,
        "cluster profile: a name in slurm/ or ~/.config/facefactory/, or a path",
        identity=False,
    )
    wait: bool = key(False, "on Slurm: return when all jobs have ended", identity=False)
    changed: Literal["refuse", "accept"] = key(
        "refuse", "a run that exists with another config", identity=False
    )
    dry_run: bool = key(False, "print plan and config, start nothing", identity=False)
    subject: str = key(
        "train",
        "the stage that makes what is scored, interpreted and drawn from: train, adopt or pictures; jobs set it",
    )
    snapshot: Literal["last", "best"] = key(
        "last",
        "which weights are scored, interpreted, drawn and exported: the last, or the best of training.snapshot_kimg",
        late=True,
    )
    paths: Paths = section(Paths)
    pack: Pack = section(Pack)
    data: Data = section(Data)
    model: dict[str, Any] = key(
        {"name": "gan/dcgan"}, "network and its options; --help model.name=… lists them"
    )
    objective: dict[str, Any] = key(
        {"name": "adversarial"}, "what is minimised; --help objective.name=… lists its options"
    )
    init_from: str | None = key(
        None, "run (name or folder) whose trained weights this one starts from, as far as they fit"
    )
    training: Training = section(Training)
    judge: Judge = section(Judge)
    evaluation: Evaluation = section(Evaluation)
    interpret: Interpret = section(Interpret)
    sweep: Sweep = section(Sweep)
    generate: Generate = section(Generate)
    export: Export = section(Export)
    compare: Compare = section(Compare)
    foreign: dict[str, Any] = key(
        {}, "a generator of other people: file of facefactory/foreign and its options"
    )


def needs_judge(run: Run) -> bool:
    """Whether the protocol by which models are scored asks for the set's judge."""
    return "judge" in subjects.file(run.evaluation.scoring).needs(run.evaluation)


def goal_of(run: Run) -> Goal:
    """What a search looks for; UserError: there is no such score, or it must not rank."""
    return subjects.file(run.evaluation.scoring).goal(run.sweep.goal, run.evaluation)


def headline_of(run: Run) -> Goal:
    """The score that speaks for one model: the protocol's, else what its search looked for."""
    options = run.evaluation
    searched = None if options.goal or options.networks else run.sweep.goal
    return subjects.file(options.scoring).goal(searched, options)


def with_protocol(layer: dict[str, Any]) -> dict[str, Any]:
    """A layer of the config tree whose `evaluation.protocol` stands for all keys of that file.

    What the layer says itself comes before. UserError: there is no such protocol.
    """
    given = layer.get("evaluation") or {}
    name = given.get("protocol")
    keys = {field.name: field for field in dataclasses.fields(Evaluation)}
    if name is None or keys.keys() <= given.keys():  # a run's own config needs no file
        return layer
    path = JOBS / "protocols" / f"{name}.yaml"
    if str(name).endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
    content = config.read_yaml(path)
    for wrong in content.keys() - keys.keys() | content.keys() & {"protocol"}:
        raise registry.unknown(f"{path} has the key {wrong!r}", wrong, keys.keys() - {"protocol"})
    return {**layer, "evaluation": {**dataclasses.asdict(Evaluation()), **content, **given}}


def quick_options() -> Evaluation:
    """The keys of the protocol `quick`, whatever a run's own is."""
    layer = with_protocol({"evaluation": {"protocol": "quick"}})
    return Evaluation(**layer["evaluation"])


def config_of(path: Path) -> dict[str, Any]:
    """The content of a run folder's config.yaml.

    UserError: it lacks keys that the run was made with: it was cut, and what it lacks is not what
    defaults say.
    """
    file = path / "config.yaml"
    content = config.read_yaml(file)
    identity = rundir.read_json(path / "identity.json")
    for name in identity if isinstance(identity, dict) else ():
        part: Any = content
        for word in name.split("."):
            part = part.get(word, ...) if isinstance(part, dict) else ...
        if part is ...:
            raise UserError(
                f"{file} {rundir.DAMAGED}: it has no {name}. Give the command that made the run "
                f"again (the first line of {path / 'command.txt'}); it writes the file anew."
            )
    return content


def load_run(path: Path, options: Sequence[str] = ()) -> Run:
    """The resolved config of a run folder.

    `options`: `key=value` of a job that works on a finished run.
    """
    return config.load(Run, list(options), [config_of(path)])


def resolve(run: Run) -> Run:
    """Every default of the components filled in, every relative path made absolute.

    UserError: no such component or option.
    """
    replace = dataclasses.replace
    judge = replace(
        run.judge,
        model=_component("models", run.judge.model),
        objective=_component("objectives", run.judge.objective),
        training=run.judge.training.resolved(),
    )
    pack = replace(
        run.pack,
        resolution=run.pack.size.resolution,
        recipe=_named(run.pack.recipe),
        root=_absolute_or_none(run.pack.root),
        labels=_absolute_or_none(run.pack.labels),
    )

    # and the sections that name files, folders or components
    return replace(
        run,
        paths=Paths(_absolute(run.paths.runs), _absolute(run.paths.data)),
        pack=pack,
        sweep=replace(
            run.sweep.resolved(),
            space=_named(run.sweep.space),
            warm_start=_run_folder(run, run.sweep.warm_start),
        ),
        data=replace(run.data, shards=_absolute_or_none(run.data.shards)),
        evaluation=replace(run.evaluation, protocol=_named(run.evaluation.protocol)),
        generate=replace(run.generate, out=_absolute_or_none(run.generate.out)),
        interpret=replace(
            run.interpret, runs=[str(_run_folder(run, name)) for name in run.interpret.runs]
        ),
        compare=Compare(_absolute_or_none(run.compare.data), _run_folder(run, run.compare.claims)),
        foreign=_foreign(run.foreign),
        model=_component("models", run.model),
        objective=_component("objectives", run.objective),
        init_from=_run_folder(run, run.init_from),
        training=run.training.resolved(),
        judge=judge,
    )


def _absolute(path: str) -> str:
    """A path without variables, ~ and what it is relative to; UserError: there is no such home."""
    try:
        return str(Path(os.path.expandvars(path)).expanduser().absolute())
    except RuntimeError as error:
        raise UserError(f"{path}: {error} Write the whole path.") from None


def _absolute_or_none(path: str | None) -> str | None:
    return None if path is None else _absolute(path)


def _run_folder(run: Run, name: str | None) -> str | None:
    """The folder of another run: a name below paths.runs, or a path, which has a slash."""
    if name is None:
        return None
    if "/" in name:
        return _absolute(name)
    return str(Path(_absolute(run.paths.runs)) / name)


def _named(name: str) -> str:
    """The name of something shipped as it is; that of a file of the user's as an absolute path."""
    return _absolute(name) if str(name).endswith((".py", ".yaml", ".yml")) else name


def _component(package: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The resolved options of a component."""
    return registry.resolve(package, {**spec, "name": _named(spec["name"])})


def value_at(run: Run, name: str) -> Any:
    """What the config tree has at a dotted key; None: nothing, or no such option."""
    found: Any = run
    for word in name.split("."):
        found = found.get(word) if isinstance(found, dict) else getattr(found, word, None)
    return found


def _own_multiples(run: Run, name: str, space: Space) -> Space:
    """A space whose multiples of what the run has are choices; UserError: it has no such number."""
    return {
        param: [_multiplied(run, name, param, entry) for entry in given]
        if isinstance(given, list)
        else _multiplied(run, name, param, given)
        for param, given in space.items()
    }


def _multiplied(run: Run, name: str, param: str, entry: Any) -> Any:
    """An entry, a choice if it has multiples."""
    if not isinstance(entry, dict) or not isinstance(entry.get("times"), list):
        return entry
    own = value_at(run, param)
    if type(own) not in (int, float):
        raise UserError(
            f"space {name}: {param} is {entry!r}, and the run has {own!r} there; give it a number to multiply."
        )
    rest = {word: value for word, value in entry.items() if word != "times"}
    return {"choice": [own * factor for factor in entry["times"]], **rest}


def space_of(run: Run) -> Space:
    """The search space, checked, for a run: multiples of what that has are choices."""
    name = run.sweep.space
    content = _space_file(name)
    content.pop(CONSTRAINTS, None)
    space = _own_multiples(run, name, with_families(content, name))
    check_space(space, name)
    for param in space:
        if not param.startswith(SEARCHED) or param in FIXED:
            raise UserError(
                f"space {name}: {param} is the same for all trials; "
                f"a space may hold {', '.join(SEARCHED)} keys."
            )
    return space


def constraints_of(run: Run) -> dict[str, float]:
    """What a trial may cost at most, by names of costs; UserError: there is no such cost, or it is no number above 0."""
    name = run.sweep.space
    bounds = _space_file(name).get(CONSTRAINTS, {})
    costs = registry.names("training.costs")
    if not isinstance(bounds, dict):
        raise UserError(
            f"space {name}: {CONSTRAINTS} is {bounds!r}; give {{parameters: 5.0e+6}}, say."
        )
    for cost, most in bounds.items():
        if cost not in costs:
            raise registry.unknown(f"space {name}: {CONSTRAINTS} has {cost!r}", cost, costs)
        if type(most) not in (int, float) or not most > 0:
            raise UserError(
                f"space {name}: {CONSTRAINTS}: {cost} is {most!r}; give a number above 0."
            )
    return bounds


def _space_file(name: str) -> dict[str, Any]:
    """The content of a space's file; UserError: there is none."""
    path = JOBS / "spaces" / f"{name}.yaml"
    if name.endswith((".yaml", ".yml")):
        path = registry.own_file(name)
    return config.read_yaml(path)


def with_params(run: Run, params: dict[str, Any], **training: Any) -> Run:
    """The config tree of a trial.

    A component of another name starts from its own defaults, without settings for networks of the one before.
    """
    tree = dataclasses.asdict(run)
    for part in ("model", "objective"):
        if params.get(f"{part}.name", tree[part]["name"]) != tree[part]["name"]:
            modules = tree["training"]["modules"]
            kept = {
                path: settings
                for path, settings in modules.items()
                if path.startswith("objective.") != (part == "objective")
            }
            tree["training"]["modules"] = kept
    for param in params:
        if param.endswith(".name"):
            _rename(tree, param.split(".")[:-1], params[param])
    arguments = [
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in params.items()
    ]
    trial = config.load(Run, arguments, [tree])
    own_training = dataclasses.replace(trial.training, **training)
    return resolve(dataclasses.replace(trial, training=own_training))


def _foreign(spec: dict[str, Any]) -> dict[str, Any]:
    """The resolved options of a generator of other people, if there is one."""
    if not spec:
        return {}
    if "name" not in spec:
        known = registry.names("foreign")
        raise registry.unknown("foreign: its name is missing", "", known)
    found = registry.resolve("foreign", spec)
    return {**found, "weights": _absolute(found["weights"])}


def _rename(tree: dict[str, Any], path: list[str], name: str) -> None:
    """Take the options of the component at a path away, if it has another name."""
    *above, last = path
    for word in above:
        tree = tree.get(word, {})
    if last in tree and tree[last].get("name") != name:
        tree[last] = {"name": name}


def own_files(run: Run) -> list[str]:
    """Files of the user's that a run reads: models, objectives, search space."""
    parts = (run.model, run.objective, run.judge.model, run.judge.objective)
    names = [run.sweep.space, *(part["name"] for part in parts)]
    return sorted({name for name in names if name.endswith((".py", ".yaml", ".yml"))})


def repeat_command(path: Path, run: Run) -> str:
    """The command that trains a run folder's config again, under another name."""
    # a family may have a job of its own; any of them takes any config
    own = f"train_{run.model['name'].split('/')[0]}"
    job = own if (JOBS / f"{own}.py").is_file() else "train_gan"
    config_file = shlex.quote(str(path / "config.yaml"))
    return f"python jobs/{job}.py config={config_file} run=repeat-{path.name}"
