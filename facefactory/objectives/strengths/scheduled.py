"""A probability that is given, and may change with the clock."""

from facefactory import UserError
from facefactory.objectives.strengths import Strength
from facefactory.schedule import Scheduled, at, least, most


class Component(Strength):
    """p = what is given.

    Args:
        p: probability of each augmentation, a number or a schedule in kimg; 1 = always.
    """

    def __init__(self, *, p: Scheduled = 1.0) -> None:
        if least(p) < 0 or most(p) > 1:
            raise UserError(f"scheduled: p={p}; allowed are 0 to 1.")
        self.given = p

    def p(self, kimg: float) -> float:
        """p."""
        return at(self.given, kimg)
