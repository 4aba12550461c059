"""The configuration tree: what is merged, what is refused, and in which words."""

from __future__ import annotations

import dataclasses
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from omegaconf import OmegaConf

from facefactory import UserError, config, rundir
from facefactory.config import key, section
from facefactory.run import Run
from facefactory.training import Training


@dataclass(frozen=True)
class Optics:
    """A section of the tests' own."""

    lens: str = key("wide", "lens")
    focal_mm: float = key(
        35.0,
        "focal length, mm",
        low=1.0,
        high=600.0,
    )
    shots: int = key(
        3,
        "pictures",
        low=1,
        resumes=True,
    )
    stops: list[float] = key(
        [2.8, 4.0],
        "f-numbers",
        low=1.0,
    )
    colour: Literal["gray", "rgb"] = key("rgb", "channels")
    title: str | None = key(None, "name of the set")
    quiet: bool = key(False, "say nothing", identity=False)
    body: dict[str, Any] = key({"name": "box"}, "camera and its options")


@dataclass(frozen=True)
class Studio:
    """A tree of the tests' own."""

    optics: Optics = section(Optics)
    seed: int = key(0, "seed", low=0)


def load(*arguments: str, layers: list[dict[str, Any]] | None = None) -> Studio:
    return config.load(Studio, list(arguments), layers or [])


def test_arguments_win_over_files_and_files_over_defaults() -> None:
    layers = [{"optics": {"focal_mm": 50, "shots": 7}}, {"optics": {"shots": 8, "lens": "tele"}}]
    loaded = load("optics.lens=macro", "seed=4", layers=layers)
    optics = loaded.optics
    assert (optics.lens, optics.focal_mm, optics.shots, optics.colour, loaded.seed) == (
        "macro",
        50.0,
        8,
        "rgb",
        4,
    )


def test_values_take_the_type_of_their_key() -> None:
    loaded = load(
        "optics.stops=[1.4,2]",
        "optics.title=null",
        "optics.quiet=true",
        "optics.focal_mm=1e2",
        "optics.body.name=a=b",
    )
    assert loaded.optics.stops == [1.4, 2.0]
    assert loaded.optics.title is None
    assert loaded.optics.quiet is True
    assert loaded.optics.focal_mm == 100.0
    assert loaded.optics.body == {"name": "a=b"}


def test_defaults_are_not_shared_between_trees() -> None:
    Studio().optics.stops.append(99.0)
    assert load().optics.stops == [2.8, 4.0]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "optics.focal_m=3",
            r"unknown key 'optics\.focal_m'\. Did you mean 'optics\.focal_mm'\?.*--help",
        ),
        ("optic.lens=x", r"unknown key 'optic'.*Did you mean.*optics"),
        ("shots=3", r"unknown key 'shots'.*Did you mean 'optics\.shots'\?"),
        ("optics.shots=many", r"optics\.shots is 'many'; it takes a whole number \(pictures\)"),
        ("optics.shots=1.5", r"optics\.shots is 1\.5; it takes a whole number"),
        ("optics.quiet=maybe", r"optics\.quiet is 'maybe'; it takes true or false"),
        ("optics.shots=null", r"optics\.shots is None; it takes a whole number"),
        ("optics.shots=0", r"optics\.shots is 0; it must be at least 1 \(pictures\)"),
        (
            "optics.focal_mm=700",
            r"optics\.focal_mm is 700; it must be at least 1 and at most 600 \(focal length, mm\)",
        ),
        ("optics.stops=[2,0.5]", r"optics\.stops is 0\.5; it must be at least 1"),
        ("optics.colour=sepia", r"optics\.colour is 'sepia'; allowed are gray, rgb \(channels\)"),
        ("optics.lens", r"'optics\.lens' is not of the form key=value, e\.g\. "),
        ("--shots", r"'--shots' is not of the form key=value"),
        ("optics.focal_mm=nan", r"optics\.focal_mm is 'nan'; it takes a number"),
        ("optics.focal_mm=.nan", r"optics\.focal_mm is nan; it must be a finite number"),
        ("optics.stops=[.inf]", r"optics\.stops is inf; "),
        ("optics.stops=[1", r"'optics\.stops=\[1'.*not"),
        ("optics=3", r"optics is 3; a section takes no value.*e\.g\. optics\.lens="),
        ("optics.body=3", r"optics\.body is 3; it takes a mapping \(camera"),
        ("optics.stops=3", r"optics\.stops is 3; it takes a list, e\.g\. \[a, b\], each a number"),
        ("optics.shots.x=3", r"optics\.shots is \{'x': 3\}; it takes a whole number"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(argument: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(argument)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("optics.lens=caf\udce9", r"'optics\.lens=caf\\udce9' is not text in UTF-8"),
        ("optics.lens=${", r"'\$\{' names a variable that is not set"),
        ("optics.shots=${seed}", r"'\$\{' names a variable that is not set"),
        ("optics.body=" + "[" * 600 + "]" * 600, r"nested too deeply"),
        ("optics.body=&a [*a]", r"stands for 100000 values or more"),
        (
            "optics.body={a: [.nan]}",
            r"optics\.body is .*; nan must be a finite number",
        ),
        (
            "optics.body={a: 99999999999999999999}",
            r"optics\.body is .*; 99999999999999999999… is too large: whole numbers reach",
        ),
        (
            "seed=9223372036854775808",
            r"seed is 9223372036854775808; .*too large: whole numbers reach",
        ),
        ("seed=" + "9" * 3000, r"seed is 9+…; 9{20}… is too large"),
        ("=3", r"not of the form key=value"),
        ("optics..lens=3", r"not of the form key=value"),
    ],
)
def test_a_hostile_argument_is_one_short_line(argument: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(argument)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "optics.shots: 4",
            r"^optics\.shots: in a file write it as optics: \{shots: …\}; dots are for the command line",
        ),
        (
            "optics:\nseed: 3",
            r"^optics: is empty; give its keys, e\.g\. optics: \{lens: …\}, or remove that line",
        ),
        ("optics: {lens: '${oops'}", r"'\$\{' begins a reference|not readable YAML"),
        ("optics: {lens: '${seat}'}", r"'seat' not found.*'\$\{' begins a reference"),
        ("optics: {body: " + "[" * 600 + "]" * 600 + "}", r"nested too deeply"),
    ],
)
def test_a_hostile_file_is_one_short_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load(layers=[config.read_yaml(tmp_path / "a.yaml")])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_file_of_aliases_is_not_unfolded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    with pytest.raises(
        UserError, match=r"a\.yaml.*stands for 100000 values or more \(aliases count each time\)"
    ):
        config.read_yaml(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("a: &a {x: 1}\nb: [*a, *a]\n")
    assert config.read_yaml(tmp_path / "b.yaml") == {"a": {"x": 1}, "b": [{"x": 1}, {"x": 1}]}


def test_an_unknown_key_of_a_file_is_refused_like_an_argument() -> None:
    with pytest.raises(
        UserError, match=r"unknown key 'optics\.lense'.*Did you mean 'optics\.lens'"
    ):
        load(layers=[{"optics": {"lense": "x"}}])


def test_a_yaml_file_is_read_as_plain_containers(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("optics: {shots: 4, stops: [1, 2]}\n7: x\n")
    assert config.read_yaml(tmp_path / "a.yaml") == {
        "optics": {"shots": 4, "stops": [1, 2]},
        "7": "x",
    }


def test_a_missing_yaml_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "dcgan-orl32.yaml").touch()
    (tmp_path / "vae-orl32.yaml").touch()
    with pytest.raises(
        UserError,
        match=r"no file .*dcgan-orl64\.yaml; .*dcgan-orl32, vae-orl32\. Did you mean 'dcgan-orl32'\?",
    ):
        config.read_yaml(tmp_path / "dcgan-orl64.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "not readable YAML"), ("- 1\n- 2\n", "must hold 'key: value' lines, found list")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        config.read_yaml(tmp_path / "a.yaml")


def test_a_dumped_tree_loads_as_itself(tmp_path: Path) -> None:
    tree = load(
        "optics.focal_mm=1e1",
        "optics.title=on",
        "optics.stops=[1.25]",
        "optics.body.width=8",
        "seed=12",
    )
    (tmp_path / "config.yaml").write_text(config.dump(tree))
    assert load(layers=[config.read_yaml(tmp_path / "config.yaml")]) == tree
    assert list(yaml.safe_load(config.dump(tree))) == ["optics", "seed"]  # reading order


def test_flat_names_what_decides_a_result() -> None:
    flat = config.flat(load("optics.quiet=true"))
    assert "optics.quiet" not in flat
    assert flat["optics.shots"] == 3
    assert flat["seed"] == 0
    assert len(flat) == 8
    assert set(flat) - set(config.flat(load(), resumes=False)) == {"optics.shots"}


def test_a_digest_forgets_the_order_of_keys_only() -> None:
    assert rundir.digest({"a": 1, "b": [1, 2]}) == rundir.digest({"b": [1, 2], "a": 1})
    assert rundir.digest({"a": [1, 2]}) != rundir.digest({"a": [2, 1]})
    assert re.fullmatch("[0-9a-f]{64}", rundir.digest({}))


def test_help_shows_every_key_with_default_type_and_meaning() -> None:
    text = config.help_text(Studio)
    assert "optics.focal_mm=35.0\n      focal length, mm [float]" in text
    assert "optics.colour=rgb\n      channels [Literal['gray', 'rgb']]" in text
    assert text.count("=") >= len(list(config.leaves(Studio)))


def test_a_batch_that_ranks_cannot_share_evenly_is_refused_with_a_size_that_fits() -> None:
    assert Training(batch_size=12, ranks=2, accumulate=3).batch_per_rank() == 6
    with pytest.raises(
        UserError,
        match=r"training\.batch_size=10 .*ranks=4 x training\.accumulate=1; give a multiple of 4, e\.g\. 8\.",
    ):
        Training(batch_size=10, ranks=4).batch_per_rank()


@pytest.mark.parametrize("text", ["no", "007", "1e3", "a: b", "x=y", "[1]"])
def test_a_name_on_the_command_line_is_taken_as_it_is_written(text: str) -> None:
    assert config.load(Run, [f"run={text}"], []).run == text


def test_files_alone_are_merged_as_omegaconf_merges_them() -> None:
    presets = sorted((Path(__file__).parents[1] / "jobs" / "presets").glob("*.yaml"))
    layers = [config.read_yaml(path) for path in presets[::6]]
    for pair in itertools.pairwise(layers):
        merged = OmegaConf.merge(dataclasses.asdict(Run()), *pair)
        wanted = OmegaConf.to_container(merged)
        assert config._merged(Run, pair, [], []) == wanted
    with pytest.raises(UserError, match=r"training is 3; a section takes no value"):
        config.load(Run, [], [{"training": 3}])
