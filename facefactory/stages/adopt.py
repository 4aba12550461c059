"""A generator of other people, in place of one that is trained here."""

from typing import TYPE_CHECKING, Any

from facefactory import UserError, registry, rundir
from facefactory.run import Run
from facefactory.rundir import RunDir
from facefactory.stages import Outputs, Plan, Stage
from facefactory.stages._networks import device_of
from facefactory.stages._sets import index_of

if TYPE_CHECKING:
    from facefactory.facts import Facts

PROBED = 16  # images that are drawn to look at
LOW, HIGH = -1.05, 1.05  # a generator may overshoot its range a little
SHARE = 0.99  # of the pixels within it, at least


class Component(Stage):
    """Leaves `checkpoint`, `kimg` (none) and `path`: a digest of weights and options, and where the weights lie."""

    sections = ("foreign",)
    needs = ("pack.images",)
    share = "scores"

    def check(self, run: Run, folder: RunDir, plan: Plan) -> None:
        """It can be loaded, and draws images of the set's size in the range that was said."""
        _require_foreign(run)
        if plan.faces is not None:
            _drawn(self._built(run, plan.faces.facts), plan.faces.facts)

    def work(self, run: Run, folder: RunDir) -> Outputs:
        """Load it once, and leave what it draws."""
        from facefactory.data.sets import pixels

        facts = index_of(folder).facts
        images = _drawn(self._built(run, facts), facts)
        target = folder.stage(self.name) / "samples.png"
        with rundir.atomic(target) as temporary:
            pixels.grid(pixels.to_uint8(images), 8).save(temporary, "PNG")
        digest = rundir.digest(run.foreign)
        return {"checkpoint": digest, "kimg": None, "path": run.foreign["weights"]}, [target]

    def product(self, run: Run) -> Any:
        """Its class; UserError: none is named."""
        _require_foreign(run)
        return registry.module("foreign", run.foreign["name"]).Component

    def made(self, run: Run, folder: RunDir) -> Any:
        """The generator, where this process computes."""
        return self._built(run, index_of(folder).facts).to(device_of(run.training))

    def _built(self, run: Run, facts: "Facts") -> Any:
        return registry.build("foreign", run.foreign, facts).eval().requires_grad_(False)


def _require_foreign(run: Run) -> None:
    if not run.foreign:
        raise UserError(
            "foreign is not given; a YAML for config=… needs foreign: {name: torchscript, weights: …}; "
            "jobs/README.md has one."
        )


def _drawn(model: Any, facts: "Facts") -> Any:
    """Some images of it; UserError: they are of another size than the set's, or in another range than was said."""
    import torch

    from facefactory import conditions
    from facefactory.draws import normal

    c = torch.zeros(PROBED, conditions.width(model.conditions, facts.labels))
    wanted = (facts.channels, facts.height, facts.width)
    with torch.inference_mode():
        try:
            images = model.sample(normal(0, 0, "adopt", PROBED, model.z_dim), c).float()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(
                f"foreign: it draws nothing from z [{PROBED}, {model.z_dim}]: {reason}"
            ) from None
    if tuple(images.shape) != (PROBED, *wanted):
        raise UserError(
            f"foreign: it draws {list(images.shape)}, the set has {[PROBED, *wanted]} "
            "(images, channels, height, width); give pack.resolution and pack.color that fit."
        )
    inside = ((images >= LOW) & (images <= HIGH)).float().mean()
    if inside < SHARE:
        low, high = float(images.min()), float(images.max())
        raise UserError(
            f"foreign.range: {100 * (1 - float(inside)):.0f} % of its pixels lie outside of the range that was said "
            f"(as -1 to 1 they go from {low:.3g} to {high:.3g}); allowed are minus_one_to_one and zero_to_one."
        )
    return images
