"""Numbers that a model learns, without those of its objective."""

from facefactory import checkpoint
from facefactory.training.costs import Planned

QUICK = True


def estimate(planned: Planned) -> float:
    """Counted without memory, on torch's meta device; 0: the model's code cannot tell."""
    return checkpoint.parameters(planned.model, planned.facts) or 0
