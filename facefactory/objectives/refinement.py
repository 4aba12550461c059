"""Two players, and images that come back when they are refined towards their own attributes, again and again."""

from typing import Annotated, Any

from torch import Tensor

from facefactory import UserError
from facefactory.objectives import Batch, Phase
from facefactory.objectives.adversarial import Component as Adversarial
from facefactory.objectives.critics import Seen
from facefactory.objectives.terms import Term
from facefactory.registry import Nested
from facefactory.schedule import Scheduled, at, least


class Component(Adversarial):
    """The generator's loss has λ · mean over r of |x - x_r|² beside its own; x_0 = x, x_r = refine(x_{r-1}, c).

    Args:
        critic: how logits are judged: a name of objectives/critics, or {name: …, its options}.
        terms: regularisers: names of objectives/terms and their options.
        strength: how likely each of training.augment is applied: a name of objectives/strengths, or {name: …, its options}.
        weight: λ, a number or a schedule in kimg.
        rounds: how often an image is refined.
    """

    phases = (
        Phase("discriminator", ("discriminator",)),
        Phase("generator", ("generator", "encoder")),
    )
    needs = (*Adversarial.needs, "encoder", "refine")
    averaged = ("generator", "encoder")

    def __init__(
        self,
        *,
        critic: Annotated[Any, Nested("objectives.critics")] = "non_saturating",
        terms: Annotated[Any, Nested("objectives.terms", many=True)] = {},  # noqa: B006
        strength: Annotated[Any, Nested("objectives.strengths")] = "scheduled",
        weight: Scheduled = 1.0,
        rounds: int = 1,
    ) -> None:
        super().__init__(critic=critic, terms=terms, strength=strength)
        if least(weight) < 0 or rounds < 1:
            raise UserError(
                f"refinement: weight={weight}, rounds={rounds}; at least 0 and at least 1 are allowed."
            )
        self.weight = weight
        self.rounds = rounds

    def _generator(
        self, model: Any, batch: Batch, due: dict[str, Term]
    ) -> tuple[Seen, Tensor, dict[str, Tensor]]:
        seen, value, shown = super()._generator(model, batch, due)
        refined = batch.images
        error = batch.images.new_zeros(())
        for _ in range(self.rounds):
            refined = model.refine(refined, batch.c)
            error = error + (refined - batch.images).square().mean() / self.rounds
        return seen, value + at(self.weight, batch.kimg) * error, {**shown, "refined": error}
