"""Auxiliary heads: the discriminator reads the labels of real images, and the generator draws what it reads (AC-GAN: Odena et al., ICML 2017).

It does not learn to read generated images, as the paper's does: a generator that is read well where it is unreal would
be led there.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facefactory import UserError
from facefactory.facts import Facts
from facefactory.models import Shows
from facefactory.objectives import Batch
from facefactory.objectives.critics import Seen
from facefactory.objectives.terms import Term
from facefactory.schedule import Scheduled, at, least


class Component(nn.Module, Term):
    """λ · -log p(c | x), by a linear layer on the discriminator's features; nothing where a label is missing.

    The labels count as independent: their nats are added (§3, L_C).

    Args:
        facts: the set's labels.
        model: has `conditions`, and a discriminator that gives its features.
        weight: λ, a number or a schedule in kimg.
    """

    trains = "both"
    needs = ("conditions", "feature_dim")
    reads = True
    learns = ("heads",)

    def __init__(self, facts: Facts, model: Shows, *, weight: Scheduled = 1.0) -> None:
        super().__init__()
        if least(weight) < 0:
            raise UserError(f"auxiliary: weight={weight}; at least 0 is allowed.")
        self.scale = weight
        # what has neither is refused by `needs`
        told = getattr(model, "conditions", ())
        inputs = getattr(model, "feature_dim", ()) or 1
        self.columns = [facts.labels[name].columns for name in told]
        self.heads = nn.Linear(inputs, sum(self.columns) or 1)

    def weight(self, kimg: float) -> float:
        """λ."""
        return at(self.scale, kimg)

    def __call__(self, seen: Seen, model: Any, batch: Batch) -> Tensor:
        """[b], nats."""
        assert seen.features is not None
        logits = self.heads(seen.features)
        parts = zip(logits.split(self.columns, 1), batch.c.split(self.columns, 1), strict=True)
        nats = torch.zeros_like(logits[:, 0])
        for read, told in parts:
            if told.shape[1] == 1:  # -1 or 1
                nats = nats + (F.softplus(-told * read) * told.abs()).flatten()
            else:
                nats = nats - (read.log_softmax(1) * told).sum(1)
        return nats
