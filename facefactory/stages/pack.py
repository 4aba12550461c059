"""Images become shards, or shards that were packed elsewhere are taken as they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facefactory import UserError, rundir, say
from facefactory.cluster.launch import Job
from facefactory.run import Run
from facefactory.rundir import RunDir
from facefactory.stages import Outputs, Plan, Stage
from facefactory.stages._sets import (
    index_of,
    packed,
    plan_of,
    progress,
    usable_data,
    with_workers,
)

if TYPE_CHECKING:
    from facefactory.data.packing import recipes
    from facefactory.data.sets.index import Index


class Component(Stage):
    """Leaves `folder`, `images` and `labels`: where the set lies, and the digests of its pixels and its labels."""

    sections = ("pack.", "data.shards")
    kind = "cpu"
    share = "prepare"
    job_name = "prepare"

    def check(self, run: Run, folder: RunDir, plan: Plan) -> None:
        """The set can be planned, and its folder written."""
        if run.data.shards is None:
            usable_data(run, _planned(run, folder)[1])

    def inputs(self, run: Run, folder: RunDir) -> dict[str, Any]:
        """Digests of recipe, labels and images, or of the index of shards that were packed elsewhere."""
        from facefactory.data.sets import index

        if run.data.shards:
            return {"index": index.read(Path(run.data.shards)).digest}
        return dict(plan_of(run, folder).fingerprint)

    def intact(self, run: Run, folder: RunDir) -> bool:
        """The shards are there and undamaged."""
        index_of(folder)
        return True

    def work(self, run: Run, folder: RunDir) -> Outputs:
        """Pack the set, or find it packed already; a page of what is in it."""
        from facefactory.data.sets import index

        if run.data.shards:
            found = index.read(Path(run.data.shards))
            found.verify(run.data.verify == "full")
        else:
            plan, target = _planned(run, folder)
            try:  # where it is complete nothing is locked or written: such folders may be read-only
                found = index.read(target)
                found.verify(run.data.verify == "full")
            except UserError:
                found = packed(run, plan, target)
        _write_page(found)
        outputs = {
            "folder": str(found.folder),
            "images": found.images_digest,
            "labels": found.labels_digest,
        }
        return outputs, []

    def part(self, run: Run, folder: RunDir, arguments: Sequence[str]) -> None:
        """`K/N`: every N-th shard from the K-th; the stage itself ends the work."""
        from facefactory.data.packing import pack

        number, _, parts = arguments[0].partition("/")
        plan, target = _planned(run, folder)
        if (target / "index.json").exists():
            return
        rundir.usable(target.parent, "paths.data")
        target.parent.mkdir(parents=True, exist_ok=True)
        with progress() as told:
            pack.shards(plan, target, told, (int(number), int(parts)))

    def jobs(self, run: Run, folder: RunDir, options: Sequence[str]) -> list[Job]:
        """An array of parts where the set is packed by several jobs, and one job that ends the work."""
        whole = self.job(run, folder, options)
        tasks = run.pack.tasks
        if tasks == 1 or run.data.shards:
            return [whole]
        parts = [
            ["part", str(folder.path), self.name, f"{number}/{tasks}"] for number in range(tasks)
        ]
        return [Job(self.name, parts, "cpu", gpus=False, sized_by="pack.tasks"), whole]


def _planned(run: Run, folder: RunDir) -> tuple["recipes.Plan", Path]:
    """What is to be packed, by as many processes as there are CPUs for it, and the folder for it."""
    plan = with_workers(plan_of(run, folder))
    return plan, Path(run.paths.data) / "packed" / plan.folder_name


def _write_page(found: "Index") -> None:
    """The page of what is in a set, unless it is there; a folder that cannot be written costs the page only."""
    from facefactory.data.packing import survey

    try:
        page = survey.place(found) / "report.html"
        packed = (found.folder / "index.json").stat().st_mtime
        if not page.exists() or page.stat().st_mtime < packed:
            from facefactory.report import dataset

            survey.survey(found)
            dataset.write(found.folder, page.parent)
        say(f"pack: what is in the set: {page}")
    except OSError as error:
        say(f"pack: there is no page of what is in the set: {error}")
