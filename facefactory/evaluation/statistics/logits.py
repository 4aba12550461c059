"""The network's class scores by the position of their image."""

from facefactory.evaluation.statistics import sample


class Component(sample.Component):
    """Rows of logits [N, K] with the positions of their images."""

    field = "logits"
