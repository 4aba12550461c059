"""Pictures that are scored in place of what a model draws: a folder, zip, tar or packed set of anybody's."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facefactory import UserError, rundir
from facefactory.run import Run
from facefactory.rundir import RunDir
from facefactory.stages import Outputs, Plan, Stage, outputs_of
from facefactory.stages._sets import index_of, packed, with_workers

if TYPE_CHECKING:
    from facefactory.data.packing import recipes
    from facefactory.data.sets.loader import Shards

LEAST = 8  # pictures on a side


class Component(Stage):
    """Leaves `checkpoint`, `kimg` (none) and `path`: digest of the pixels, and where they lie packed."""

    sections = ("compare.", "pack.")
    needs = ("pack.images",)
    kind = "cpu"
    share = "prepare"

    def check(self, run: Run, folder: RunDir, plan: Plan) -> None:
        """There are enough pictures on both sides."""
        if run.compare.data is None:
            raise UserError("compare.data is not given; give data=FOLDER and reference=FOLDER.")
        counts = {f"data={run.compare.data}": len(_names(run, folder))}
        if plan.faces is not None:
            counts["reference"] = plan.faces.faces.images(run.evaluation.reference)
        for name, count in counts.items():
            if count < LEAST:
                raise UserError(f"{name} has {count} pictures; scores need {LEAST} at least.")

    def inputs(self, run: Run, folder: RunDir) -> dict[str, Any]:
        """The reference, to whose size they are brought, and digests of the pictures."""
        found = super().inputs(run, folder)
        if _is_packed(run):
            return {**found, "index": rundir.digest(_packed_before(run).content)}
        return {**found, **_plan(run, folder).fingerprint}

    def work(self, run: Run, folder: RunDir) -> Outputs:
        """Pack them as the reference was, or take them as they are packed.

        UserError: they are of another size than the reference.
        """
        if _is_packed(run):
            found = _packed_before(run)
            found.verify(run.data.verify == "full")
        else:
            plan = with_workers(_plan(run, folder))
            found = packed(run, plan, Path(run.paths.data) / "packed" / plan.folder_name)
        reference = index_of(folder).content
        for name in ("resolution", "channels"):
            here = getattr(found.content, name)
            there = getattr(reference, name)
            if here != there:
                raise UserError(
                    f"data has {name} {here}, the reference {there}; "
                    "pack one of them as the other is."
                )
        outputs = {"checkpoint": found.images_digest, "kimg": None, "path": str(found.folder)}
        return outputs, []

    def made(self, run: Run, folder: RunDir) -> "Shards":
        """The pictures, all splits of theirs."""
        from facefactory.data.sets import index
        from facefactory.data.sets.loader import Shards

        place = outputs_of(folder, f"{self.name}.path")[f"{self.name}.path"]
        found = index.read(Path(place))
        return Shards(found, list(found.content.splits))


def _is_packed(run: Run) -> bool:
    return (Path(str(run.compare.data)) / "index.json").is_file()


def _packed_before(run: Run) -> Any:
    from facefactory.data.sets import index

    return index.read(Path(str(run.compare.data)))


def _names(run: Run, folder: RunDir) -> Any:
    """A name a picture."""
    if _is_packed(run):
        splits = _packed_before(run).content.splits.values()
        return range(sum(split.count for split in splits))
    return _plan(run, folder).places


def _plan(run: Run, folder: RunDir) -> "recipes.Plan":
    """What is to be packed, with the size, colours and crop of the reference; listed once a command."""
    from facefactory.data.packing import recipe_file, recipes

    if "data" not in folder.kept:
        recipe, path = recipes.read_recipe(run.pack)
        given = {
            "name": "data",
            "source": "folder",
            "splits": {"train": 1.0},
            "group": None,
            "split": None,
            "crop": recipe["crop"],
            "max_bad": recipe["max_bad"],
            "origin": "your own",
        }
        options = dataclasses.replace(run.pack, root=run.compare.data, labels=None)
        folder.kept["data"] = recipes.plan(options, recipe_file.whole(given, path))
    plan: recipes.Plan = folder.kept["data"]
    return plan
