"""AUROC of every code for every label: how often a face with it has the larger code than one without; equal codes count half.

One ranking of the codes serves all labels that the same faces have (Mann & Whitney 1947), so the matrix is a product.
"""

import numpy as np

from facefactory.metrics import Array

TOGETHER = 16  # dimensions whose ranks are held at once


def score(codes: Array, labels: Array) -> Array:
    """Codes [N, D], labels [N, L] in {0, 1}, NaN = missing -> AUROC [D, L]; NaN where a label has one class only."""
    found = np.empty((codes.shape[1], labels.shape[1]))
    known = np.isfinite(labels)
    alike: dict[bytes, list[int]] = {}
    for number, faces in enumerate(known.T):
        alike.setdefault(faces.tobytes(), []).append(number)

    # labels that the same faces have go together
    for members in alike.values():
        faces = known[:, members[0]]
        cases = labels if known.all() else labels[faces][:, members]
        there = codes if known.all() else codes[faces]
        ones = cases.sum(0)
        pairs = ones * (len(cases) - ones)
        for start in range(0, codes.shape[1], TOGETHER):
            part = slice(start, start + TOGETHER)
            ranks = np.stack([midranks(code) for code in there[:, part].T])
            wins = ranks @ cases - ones * (ones + 1) / 2
            found[part, members] = wins / np.where(pairs > 0, pairs, np.nan)
    return found


def midranks(code: Array) -> Array:
    """Ranks [n] from 1 on; equal codes share the mean of theirs."""
    order = np.argsort(code)
    in_order = code[order]
    new = np.r_[True, in_order[1:] != in_order[:-1]]
    places = np.arange(1, len(code) + 1, dtype=np.float64)
    if not new.all():
        ends = np.r_[np.flatnonzero(new), len(code)]
        places = np.repeat((ends[:-1] + 1 + ends[1:]) / 2, np.diff(ends))
    ranks = np.empty(len(code))
    ranks[order] = places
    return ranks
