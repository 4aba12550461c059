"""What many tests need: a cache folder of their own, a small set of drawn faces, and the same set as shards.

The faces are drawn with ellipses, not photographed: 12 people x 5 images, gray, 40 x 48 pixels.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from facefactory import runner
from facefactory.cluster.local import STOPS
from facefactory.data import Pack
from facefactory.data.packing import pack, recipes
from facefactory.data.sets.index import Index
from facefactory.data.sources import orl as source
from facefactory.evaluation import blindness
from facefactory.rundir import RunDir

PEOPLE = 12
EACH = 5
RECIPE = """\
name: drawn
source: folder
root: {root}
labels: labels.csv
kinds: {{Person: identity}}
group: Person
crop: square
splits: {{train: 0.75, test: 0.25}}
origin: drawn by tests/conftest.py
licence: none needed
"""


# tests that share a dear set-up: one worker runs them, and those that take longest begin first
TOGETHER = ("tests/slurm/", "tests/test_planted.py", "tests/test_jobs.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests come first, so that no worker ends with one of them while the others wait."""
    items.sort(key=lambda item: item.path.name != "test_survival.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Workers take a test at a time, except what is to stay together.

    xdist's own mark for this, `xdist_group`, is without effect in 3.8 under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((group for group in TOGETHER if nodeid.startswith(group)), nodeid)

    return Scheduling(config, log)


@dataclass(frozen=True)
class Faces:
    """Drawn faces: `root`/p00/0.png … p11/4.png, `recipe`, `labels` (file, Person, Glasses, Beard, some missing)."""

    root: Path
    labels: Path
    recipe: Path


def has_glasses(number: int) -> bool:
    """Everybody wears glasses on two of their five images, so both sides hold all 12 people."""
    return number >= 3


def has_beard(person: int, number: int) -> bool | None:
    """Every other person; unknown on the first image of every fourth."""
    return None if person % 4 == 3 and number == 0 else person % 2 == 1


def draw_face(person: int, number: int) -> Image.Image:
    """A face whose shape is the person's and whose place, glasses and smile are the image's."""
    image = Image.new("L", (40, 48), 30 + 8 * (person % 3))
    pen = ImageDraw.Draw(image)
    x, y = 20 + (number - 2), 25 + (number * 2) % 3 - 1  # centre
    wide = 11 + person % 4
    high = 15 + person // 4
    pen.ellipse((x - wide, y - high, x + wide, y + high), fill=130 + 9 * person)
    pen.chord((x - wide, y - high, x + wide, y + 4), 190, 350, fill=20 + 15 * (person % 5))  # hair
    for eye in (x - 5, x + 5):
        if has_glasses(number):
            pen.ellipse((eye - 4, y - 6, eye + 4, y + 2), outline=0, width=2)
        pen.ellipse((eye - 1, y - 3, eye + 1, y - 1), fill=10)
    if has_beard(person, 1):
        pen.chord((x - 9, y, x + 9, y + high), 0, 180, fill=50)
    pen.arc((x - 5, y + 3, x + 5, y + 9), 20 + 4 * number, 160 - 4 * number, fill=90, width=2)
    return image


# as in a shell's foreground; what is started behind an ampersand ignores SIGINT
HANDLERS = dict.fromkeys(STOPS, signal.SIG_DFL) | {signal.SIGINT: signal.default_int_handler}


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """No test is stopped, or kept from being stopped, by what a job in this process has set up."""
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)
    runner.stop.asked = False
    yield
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)


LEFT = ("CUBLAS_WORKSPACE_CONFIG", "FACEFACTORY_OWNER")  # by jobs that ran in this process


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test uses the cache folder of the person who runs it, nor sees what another has left in the environment."""
    before = dict(os.environ)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in LEFT:
        monkeypatch.delenv(name, raising=False)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs work below the current folder, so no test stands in the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def few_spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """What scores see is asked of few faces: most of the time of a small set's first scores."""
    monkeypatch.setattr(blindness, "SPOILT", 8)


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Faces:
    """The drawn faces with label table and recipe."""
    top = tmp_path_factory.mktemp("drawn")
    rows = []
    for person in range(PEOPLE):
        (top / "faces" / f"p{person:02d}").mkdir(parents=True)
        for number in range(EACH):
            name = f"p{person:02d}/{number}.png"
            draw_face(person, number).save(top / "faces" / name)
            beard = has_beard(person, number)
            rows.append(
                [name, person, int(has_glasses(number)), "" if beard is None else int(beard)]
            )
    with open(top / "labels.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["file", "Person", "Glasses", "Beard"], *rows])
    (top / "drawn.yaml").write_text(RECIPE.format(root=top / "faces"))
    return Faces(top / "faces", top / "labels.csv", top / "drawn.yaml")


@pytest.fixture(scope="session")
def orl(tmp_path_factory: pytest.TempPathFactory) -> Faces:
    """A copy of the ORL faces (a judge needs more people than we draw), with the project's labels and recipe."""
    top = tmp_path_factory.mktemp("orl")
    shards = Path(__file__).parents[1] / "shards"
    found = source.find({}, None)
    for name, path in zip(found.names, found.items, strict=True):
        (top / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, top / "faces" / name)
    shutil.copyfile(shards / "orl_labels.csv", top / "labels.csv")
    recipe = (shards / "orl.yaml").read_text().replace(
        "orl_labels.csv", "labels.csv"
    ) + f"root: {top / 'faces'}\n"
    (top / "recipe.yaml").write_text(recipe)
    return Faces(top / "faces", top / "labels.csv", top / "recipe.yaml")


@pytest.fixture(scope="session")
def index(faces: Faces, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """The faces as shards: 16 x 16 gray, train 45 images in 3 shards, test 15 in 1. Shared: do not write in it."""
    plan = recipes.plan(Pack(recipe=str(faces.recipe), resolution=16, shard_images=16))
    return pack.pack(plan, tmp_path_factory.mktemp("shards"))


CAPTURES = Path(__file__).parent / "captures"


def captured(command: str, name: str) -> str:
    """What a command of Slurm 22.05.8 printed (captures/<command>.txt)."""
    for section in re.split(r"^== ", (CAPTURES / f"{command}.txt").read_text(), flags=re.M)[1:]:
        title, _, text = section.partition("\n")
        if title == name:
            return text
    raise KeyError(name)


class Pretended:
    """Slurm commands that do what a line of shell says and note how they were called; PATH holds nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "calls"
        (folder / "bin").mkdir(parents=True)
        for tool in ("cat", "env", "rm"):
            (folder / "bin" / tool).symlink_to(str(shutil.which(tool)))

    def command(self, name: str, shell: str = "") -> None:
        """Make or replace a command."""
        path = self.folder / "bin" / name
        path.write_text(
            f"#!/bin/sh\ncd {self.folder}\nprintf '%s\\n' \"{name} $*\" >>calls\n{shell}\n"
        )
        path.chmod(0o755)

    def prints(self, name: str, text: str, code: int = 0) -> None:
        """Make a command that prints a text."""
        (self.folder / f"{name}.txt").write_text(text)
        self.command(name, f"cat {name}.txt; exit {code}")

    def calls(self, start: str = "") -> list[str]:
        """How they were called, in order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith(start)]


@pytest.fixture(autouse=True)
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the Slurm job that it runs in, nor the profiles of the person who runs it."""
    for name in [
        name for name in os.environ if name.startswith(("SLURM_", "SBATCH_", "SUBMITIT_"))
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretended:
    """sbatch that gives ids from 101 on, scontrol, scancel and srun that say nothing, and no sacct or squeue."""
    made = Pretended(tmp_path / "slurm")
    monkeypatch.setenv("PATH", str(tmp_path / "slurm" / "bin"))
    (made.folder / "last").write_text("100\n")
    made.command("sbatch", BATCH.format(refuse="", refuse_test=""))
    for name in ("scontrol", "scancel", "srun"):
        made.command(name)
    return made


BATCH = """\
read last <last
if [ "$1" = --test-only ]; then cat >>tested; {refuse_test}
exit 0; fi
{refuse}
last=$((last + 1)); echo $last >last
case "$*" in *--parsable*) cat >copy; echo $last;; *) echo "Submitted batch job $last";; esac"""


def refusal(text: str) -> str:
    """Shell that refuses as sbatch does."""
    return f"cat >&2 <<'END'\n{text}END\nexit 1"


@pytest.fixture
def folder(tmp_path: Path) -> RunDir:
    """A run folder `r` that this process owns."""
    made = RunDir(tmp_path / "runs" / "r")
    made.path.mkdir(parents=True)
    made.claim()
    return made
