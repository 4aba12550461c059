"""Components by name: every file that exists is tested here without a test of its own."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from registered import nested_packages, trained_by

from facefactory import UserError, registry
from facefactory.cluster import launch
from facefactory.facts import Facts, Label

LABELS = {"Glasses": Label("binary", ("0", "1")), "Age": Label("real")}
FACTS = Facts(32, 32, 1, LABELS)
PACKAGES = ("models", "objectives", *nested_packages())
COMPONENTS = [(package, name) for package in PACKAGES for name in registry.names(package)]

everything = pytest.mark.parametrize(
    ("package", "name"), COMPONENTS, ids=["/".join(pair) for pair in COMPONENTS]
)


def test_names_are_the_files() -> None:
    root = Path(registry.__file__).parent
    files = {
        path.relative_to(root / "models").with_suffix("").as_posix()
        for path in root.glob("models/*/[!_]*.py")
    }
    assert (
        set(registry.names("models")) == files >= {"gan/dcgan", "vae/conv", "classifier/convnet"}
    )
    assert set(registry.names("objectives")) == {
        path.stem for path in root.glob("objectives/[!_]*.py")
    }
    assert {"hinge", "non_saturating"} <= set(registry.names("objectives.critics"))


@everything
def test_defaults_resolve_and_build(package: str, name: str) -> None:
    resolved = registry.resolve(package, {"name": name})
    plain = {
        key: p.default
        for key, p in registry.options(package, name).items()
        if not registry.nested_in(p.annotation)
    }
    assert resolved.items() >= {"name": name, **plain}.items()
    assert resolved.keys() == {
        "name",
        *registry.options(package, name),
    }
    assert registry.resolve(package, resolved) == resolved
    objective = name if package == "objectives" else "adversarial"
    made = registry.build(package, resolved, FACTS, trained_by(objective))
    assert type(made).__name__ == "Component"


@everything
def test_options_have_types_and_meanings(package: str, name: str) -> None:
    component = registry.module(package, name).Component
    for key, parameter in registry.options(package, name).items():
        assert parameter.annotation is not inspect.Parameter.empty
        assert key in inspect.getdoc(component), f"the docstring of {name} does not explain {key}"


@everything
def test_a_wrong_option_names_the_nearest(package: str, name: str) -> None:
    for key in registry.options(package, name):
        with pytest.raises(
            UserError, match=rf"{name} has no option '{key}x'; it has .*Did you mean '{key}'\?"
        ):
            registry.resolve(package, {"name": name, f"{key}x": 1})


@everything
def test_a_value_of_the_wrong_type_is_refused(package: str, name: str) -> None:
    for key in registry.options(package, name):
        with pytest.raises(UserError, match=rf"{name}: {key} is <object .*>; "):
            registry.resolve(package, {"name": name, key: object()})


@everything
def test_a_wrong_name_names_the_nearest(package: str, name: str) -> None:
    with pytest.raises(
        UserError, match=rf"{package}: no '{name}x'; there are .*{name}.* Did you mean '"
    ):
        registry.resolve(package, {"name": f"{name}x"})


def test_values_are_checked_against_the_annotation() -> None:
    def resolve(**given: Any) -> dict[str, Any]:
        return registry.resolve("models", {"name": "gan/dcgan", **given})

    assert resolve(width=8)["width"] == 8
    with pytest.raises(UserError, match="width is True; it takes a whole number"):
        resolve(width=True)
    with pytest.raises(UserError, match=r"width is 8\.5; it takes a whole number"):
        resolve(width=8.5)
    with pytest.raises(UserError, match="g_norm is 'layer'; allowed are batch, group, none"):
        resolve(g_norm="layer")
    whole = registry.resolve("objectives.terms", {"name": "r1", "gamma": 2})["gamma"]
    assert whole == 2.0
    assert isinstance(whole, float)


def test_components_inside_components_are_resolved_and_built() -> None:
    found = registry.resolve(
        "objectives",
        {"name": "adversarial", "critic": "hinge", "terms": {"r1": {"gamma": 2}, "r2": None}},
    )
    assert found == {
        "name": "adversarial",
        "critic": {"name": "hinge"},
        "terms": {"r1": {"gamma": 2.0, "interval": 8}},
        "strength": {"name": "scheduled", "p": 1.0},
    }
    assert registry.resolve("objectives", found) == found
    made = registry.build("objectives", found)
    assert list(made.terms) == ["r1"]
    assert made.terms["r1"].gamma == 2.0
    with pytest.raises(UserError, match=r"objectives\.terms: no 'r3'; there are .*r1, r2\."):
        registry.resolve("objectives", {"name": "adversarial", "terms": {"r3": {}}})
    with pytest.raises(
        UserError, match=r"r1 has no option 'gama'; it has gamma, interval\. Did you mean 'gamma'"
    ):
        registry.resolve("objectives", {"name": "adversarial", "terms": {"r1": {"gama": 1}}})


# -- a user's own file -----------------------------------------------------------------------------------------------

OWN = '''
"""A model of the user's own."""
from __future__ import annotations
from torch import nn
from facefactory.facts import Facts


class Component(nn.Module):
    def __init__(self, facts: Facts, *, z_dim: int, slope: float = 0.1) -> None:
        super().__init__()
        self.facts, self.z_dim, self.slope = facts, z_dim, slope
'''


def test_a_users_own_file_is_a_component(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    assert registry.resolve("models", {"name": str(path), "z_dim": 3}) == {
        "name": str(path),
        "z_dim": 3,
        "slope": 0.1,
    }
    made = registry.build("models", {"name": str(path), "z_dim": 3, "slope": 1}, FACTS)
    assert (made.facts, made.z_dim, made.slope) == (FACTS, 3, 1.0)
    with pytest.raises(UserError, match=r"option 'z_dim' is missing; give z_dim="):
        registry.resolve("models", {"name": str(path)})


def test_a_users_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"models: no file '.*none\.py'\. Give the path of a Python file, or one of",
    ):
        registry.resolve("models", {"name": str(tmp_path / "none.py")})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Model: ...\n", r"own\.py.*Component"),
        (
            "class Component:\n    def __init__(self, facts, *, width=3): ...\n",
            r"own\.py.*width.*annotation",
        ),
        ("class Component\n", r"own\.py.*SyntaxError"),
    ],
)
def test_a_users_file_that_breaks_the_contract_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(UserError, match=message):
        registry.resolve("models", {"name": str(tmp_path / "own.py")})


def test_queued_jobs_read_the_copies_of_own_files_that_were_made_at_the_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.py"
    own.write_text("class Component:\n    made = 1\n")
    launch.copy_code(tmp_path / "code", [str(own)])
    own.write_text("class Component:\n    made = 2\n")
    assert registry.module("models", str(own)).Component.made == 2
    monkeypatch.setattr(
        registry, "__file__", str(tmp_path / "code" / "facefactory" / "registry.py")
    )
    assert registry.module("models", str(own)).Component.made == 1
