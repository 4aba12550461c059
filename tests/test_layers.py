"""Layers: who may import whom. Imports only point down, and there is no cycle, not even a lazy one."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "facefactory"
FLOORS = 10  # modules on the longest way of imports, the job's script among them


@functools.cache
def modules() -> dict[str, Path]:
    """Dotted name -> file of everything below facefactory/ and jobs/."""
    found = {}
    for top in (PACKAGE, "jobs"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def imports(name: str) -> frozenset[str]:
    """Every module that a file imports, anywhere in it; `from a import b` is the module a.b where there is one."""
    found = set()
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative imports hide the layers"
            known = {f"{node.module}.{alias.name}" for alias in node.names} & modules().keys()
            found |= known
            if len(known) < len(node.names):
                found.add(str(node.module))
    return frozenset(found)


def ours(name: str) -> set[str]:
    """What a module imports of the project; the bare package (its exception and version) is free for all."""
    return {
        found
        for found in imports(name)
        if found.startswith((f"{PACKAGE}.", "jobs")) and found != PACKAGE
    }


def below(*tops: str) -> list[str]:
    """Modules that are, or lie below, `facefactory.<top>`."""
    return [name for name in modules() if any(is_in(name, top) for top in tops)]


def is_in(name: str, top: str) -> bool:
    return name == f"{PACKAGE}.{top}" or name.startswith(f"{PACKAGE}.{top}.")


def importers(library: str) -> set[str]:
    return {
        name
        for name in modules()
        if any(found.split(".")[0] == library for found in imports(name))
    }


def test_the_reader_of_imports_sees_what_is_there() -> None:
    assert {"facefactory.rundir", "facefactory.registry", "torch", "facefactory.facts"} <= imports(
        "facefactory.checkpoint"
    )
    assert "omegaconf" in imports("facefactory.config")  # a lazy one
    assert len(modules()) > 30


def test_only_cluster_knows_submitit_and_few_files_know_ray() -> None:
    assert all(is_in(name, "cluster") for name in importers("submitit"))
    there = importers("ray") - {"facefactory.cluster.ray_on_slurm"}
    assert all(is_in(name, "search.schedulers") or is_in(name, "search.engines") for name in there)


def test_training_knows_no_cluster_no_yaml_and_no_score() -> None:
    for name in below("training"):
        libraries = {found.split(".")[0] for found in imports(name)}
        assert not libraries & {"ray", "yaml", "omegaconf", "submitit"}, name


ALLOWED = {  # package -> what its files import of ours, beside their own package
    "config": {"validation"},
    "registry": {"validation"},
    "validation": set(),
    "sampling": {"data", "draws"},
    "rundir": set(),
    "starting": {"rundir"},
    "progress": set(),
    "scratch": set(),
    "surroundings": set(),
    "metrics": set(),
    "failures": set(),
    "confirmation": {"failures", "metrics", "results", "trials"},
    "report": {"confirmation", "failures", "registry", "results", "rundir", "trials"},
    "cluster": {
        "config",
        "failures",
        "registry",
        "results",
        "rundir",
        "scratch",
        "surroundings",
        "trials",
        "validation",
    },
    "trials": {"failures", "rundir"},
    "data": {"config", "facts", "registry", "rundir", "surroundings", "validation"},
    "models": {"conditions", "draws", "facts", "schedule"},
    "objectives": {"draws", "facts", "models", "registry", "schedule", "weights"},
    "facts": set(),
    "foreign": {"facts", "registry", "rundir"},
    "schedule": set(),
    "results": {"rundir"},
    "draws": {"philox"},
    "philox": set(),
    "ranks": set(),
    "conditions": {"data", "facts"},
    "checkpoint": {"facts", "registry", "rundir"},
    "training": {
        "checkpoint",
        "conditions",
        "config",
        "data",
        "draws",
        "facts",
        "objectives",
        "philox",
        "progress",
        "ranks",
        "registry",
        "rundir",
        "schedule",
        "validation",
    },
    "weights": {"config", "progress", "registry", "rundir", "surroundings"},
    "evaluation": {
        "conditions",
        "config",
        "data",
        "draws",
        "facts",
        "metrics",
        "registry",
        "results",
        "rundir",
        "sampling",
        "weights",
    },
    "interpret": {
        "conditions",
        "config",
        "data",
        "draws",
        "evaluation",
        "facts",
        "metrics",
        "registry",
        "results",
        "rundir",
    },
    "search": {"config", "registry", "results", "rundir", "scratch", "surroundings", "trials"},
}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_only_point_down(package: str) -> None:
    wrong = {
        f"{name} imports {found}"
        for name in below(package)
        for found in ours(name)
        if not any(is_in(found, top) for top in {package, *ALLOWED[package]})
    }
    assert not wrong


def test_every_module_has_its_layer() -> None:
    tops = {name.split(".")[1] for name in modules() if name.startswith(f"{PACKAGE}.")}
    assert tops - ALLOWED.keys() <= {
        "run",
        "runner",
        "stages",
        "chain",
        "process",
        "command",
        "loading",
        "__main__",
    }


READS_THE_ENVIRONMENT = {  # why: what speaks to Slurm itself, and who is told by its launcher who it is
    *(
        "facefactory.surroundings",
        "facefactory.rundir",
        "facefactory.scratch",
        "facefactory.search.engines.ray",
    ),
    *("facefactory.ranks", "facefactory.command"),
}


def test_few_read_the_environment() -> None:
    found = {name for name, path in modules().items() if "os.environ" in path.read_text()}
    assert {name for name in found if not is_in(name, "cluster")} <= READS_THE_ENVIRONMENT


@pytest.mark.parametrize("name", ["runner", "chain", "process", "command"])
def test_who_runs_stages_knows_none_by_name(name: str) -> None:
    stages = {path.stem for path in (ROOT / PACKAGE / "stages").glob("[!_]*.py")}
    tree = ast.parse(modules()[f"{PACKAGE}.{name}"].read_text())
    words = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert len(stages) >= 9
    sections = {"sweep"} if name == "command" else set()  # of the config tree, which presets fill
    assert not stages & words - sections


def test_jobs_import_the_command_line_and_nothing_else_of_ours() -> None:
    for name in modules():
        if name.startswith("jobs"):
            assert ours(name) <= {"facefactory.command"}, name
        else:
            assert not any(found.startswith("jobs") for found in ours(name)), (
                f"{name} imports a job"
            )


def test_there_is_no_cycle_of_imports_not_even_a_lazy_one() -> None:
    graph = {name: ours(name) - {name} for name in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


@functools.cache
def longest(name: str) -> tuple[str, ...]:
    """The longest way down from a module, from import to import."""
    below_it = [longest(found) for found in ours(name) - {name}]
    return (name, *max(below_it, key=len, default=()))


def test_the_house_has_few_floors() -> None:
    way = max(map(longest, modules()), key=len)
    assert len(way) <= FLOORS, " -> ".join(way)


def test_the_config_tree_and_the_contracts_load_without_torch_and_ray() -> None:
    sections = [
        name
        for name, path in modules().items()
        if name.startswith(f"{PACKAGE}.") and path.name == "__init__.py"
    ]
    known = [
        *sections,
        *(f"facefactory.{name}" for name in ("run", "runner", "process", "chain", "command")),
    ]
    assert {
        "facefactory.data",
        "facefactory.models",
        "facefactory.objectives",
        "facefactory.training",
    } <= set(known)
    heavy = ("torch", "ray", "pandas", "PIL", "matplotlib")
    code = (
        f"import {', '.join(known)}, sys; print([name for name in {heavy} if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "[]"), ran.stderr
