"""Spaces of models that only draw: what the judge sees in the faces is what their codes are held against."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from facefactory.data.sets import pixels
from facefactory.data.sets.loader import chunked
from facefactory.evaluation import features
from facefactory.interpret import Context
from facefactory.interpret.sharing import Item
from facefactory.metrics import Array

METHOD = (
    "AUROC of {code} for what the judge sees in generated faces: of a label with two classes, the half of them with the "
    "higher logits; of others, the most likely class, or the expected one of an order; numbers are read off its features, where "
    "that works on held-out faces. The judge's own errors are in the figures."
)


def labels_of(
    context: Context,
    name: str,
    codes: Tensor,
    asked: Tensor,
    draw: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, Array]:
    """What the judge sees: label -> [N] in {0, 1}, whether a face is in the upper half of its logits, or class numbers.

    `name`: of the space. `draw`: codes [n, D] and conditions [n, columns] -> images [n, C, H, W] in -1…1.
    """
    # numbers that it can tell, by their columns
    told = context.witnesses
    columns = {}
    if told is not None:
        for number, contrast in enumerate(told.contrasts):
            is_number = not context.index.content.labels[contrast.label].classes
            if is_number and told.trusts(told.judge, number):
                columns[contrast.label] = number

    chunks = chunked(len(codes))

    # the judge looks at what people would see: 8 bits
    def look(number: int) -> Item:
        rows = chunks[number]
        with torch.inference_mode():
            faces = pixels.to_uint8(draw(codes[rows], asked[rows])).cpu()
        verdicts = features.verdicts(context.judge, faces)
        seen: Item = {f"logits of {label}": logits.numpy() for label, logits in verdicts.items()}
        if told is not None and columns:
            seen["answers"] = told.judge.ask(faces)
        return seen

    parts = context.sharing.items(f"{name}-judged", range(len(chunks)), look).values()
    seen = {key: np.concatenate([part[key] for part in parts]) for key in next(iter(parts), {})}
    labels = {label: seen["answers"][:, number] for label, number in columns.items()}
    for label in context.labels:
        if f"logits of {label}" not in seen:  # numbers have no logits
            continue
        logits = torch.from_numpy(seen[f"logits of {label}"]).double()
        ordered = context.index.content.labels[label].kind == "ordinal"
        labels[label] = _answers(logits, ordered).double().numpy()
    return labels


def _answers(logits: Tensor, ordered: bool) -> Tensor:
    """Of a label's classes [N, K] -> [N]."""
    if logits.shape[1] == 2:
        margin = logits[:, 1] - logits[:, 0]
        return margin > margin.median()
    if ordered:
        return logits.softmax(1) @ torch.arange(logits.shape[1]).to(logits)
    return logits.argmax(1)
