"""Which images and labels of a set are packed: conditions, equal classes, sparse labels; and pictures that lie in two splits."""

import ast
import itertools
import keyword
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from facefactory import UserError
from facefactory.data.sets import order
from facefactory.registry import nearest, unknown

COMPARE: dict[type[ast.cmpop], Callable[..., Any]] = {
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Lt: np.less,
}
COMPARE |= {ast.LtE: np.less_equal, ast.Gt: np.greater, ast.GtE: np.greater_equal}
MARK = 36  # bytes that know an image again: 32 of a difference hash, 4 of a checksum of its pixels
# of 256 bits: on ORL, recompressed and resized copies differ in at most 16, other shots of a person in 17 or more, others in 52
NEAR = 16
PASSES, NEIGHBOURS = 16, 8
MOST = 100_000  # pairs beyond which no more are looked for


def where(
    expression: str, table: pd.DataFrame, schema: dict[str, dict[str, Any]]
) -> npt.NDArray[np.bool_]:
    """Images of an encoded table for which a condition holds: `and`, `or`, `not`, comparisons and `in` over label names.

    Words on the right need quotes, and names on the left `backticks`, only if they are no Python names. A label that is
    missing makes a comparison unknown, and `not unknown` is unknown (Kleene's logic). Nothing is evaluated as Python.

    Raises:
        UserError: not of that form, or a label or class that does not exist.
    """
    quoted, number = re.findall("`([^`]+)`", expression), itertools.count()
    text = re.sub("`[^`]+`", lambda _: f"quoted{next(number)}", expression)

    def wrong(reason: str) -> UserError:
        allowed = 'allowed are label names, and, or, not, ( ), == != < <= > >= and in, e.g. "Smiling and not Male" or \'age == "20-29"\''
        return UserError(f"where={expression!r}: {reason}; {allowed}.")

    def word(node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return quoted[int(node.id[6:])] if re.fullmatch(r"quoted\d+", node.id) else node.id
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise wrong(f"{ast.unparse(node)!r} is not understood") from None

    def compared(node: ast.expr, operator: ast.cmpop, value: Any) -> npt.NDArray[np.float64]:
        """1 where it holds, 0 where not, 0.5 where the label is missing."""
        name = word(node)
        if name not in schema:
            raise wrong(
                f"there is no label {name!r}.{nearest(str(name), schema)} There are {', '.join(schema)}"
            )
        codes, classes, kind = (
            table[name].to_numpy(np.float64),
            schema[name].get("classes"),
            schema[name]["kind"],
        )
        known = ~np.isnan(codes) & ((codes >= 0) | (classes is None))
        try:
            scale: npt.NDArray[Any] | None = (
                None if classes is None else np.array(classes, np.float64)
            )
            value = float(value)
            if kind == "binary" and value not in (-1, 0, 1):
                raise ValueError(value)
            value = max(value, 0.0) if kind == "binary" else value  # CelebA's -1
        except (ValueError, TypeError, OverflowError):  # classes are words, or the value is one
            if classes is None or str(value) not in classes:
                raise wrong(
                    f"{name} is never {value!r}, only {', '.join((classes or ['a number'])[:20])}"
                ) from None
            if kind != "ordinal" and not isinstance(operator, ast.Eq | ast.NotEq):
                raise wrong(
                    f"the classes of {name} have no order (a recipe may give one: kind ordinal)"
                ) from None
            scale, value = np.arange(len(classes)), classes.index(str(value))
        values = codes if scale is None else np.append(scale, 0)[codes.astype(int)]
        return np.where(known, COMPARE[type(operator)](values, value), 0.5)

    def truth(node: ast.expr) -> npt.NDArray[np.float64]:
        match node:
            case ast.BoolOp(op, parts):
                join = np.minimum if isinstance(op, ast.And) else np.maximum
                return join.reduce([truth(part) for part in parts])
            case ast.UnaryOp(ast.Not(), part):
                return 1 - truth(part)
            case ast.Compare(left, [ast.In() | ast.NotIn() as op], [right]) if parts := getattr(
                right, "elts", [right]
            ):
                found = np.maximum.reduce([compared(left, ast.Eq(), word(part)) for part in parts])
                return found if isinstance(op, ast.In) else 1 - found
            case ast.Compare(left, [op], [right]) if type(op) in COMPARE:
                return compared(left, op, word(right))
            case ast.Name() if schema.get(word(node), {"kind": "binary"})["kind"] == "binary":
                return compared(node, ast.Eq(), 1)
        raise wrong(f"{ast.unparse(node)!r} is not understood")

    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        odd = [
            f"`{name}`"
            for name in schema
            if (not name.isidentifier() or keyword.iskeyword(name)) and name in expression
        ]
        raise wrong(
            f"{', '.join(odd)} needs such quotes" if odd else "it is not readable"
        ) from None
    return truth(tree) == 1


def balanced(codes: npt.NDArray[Any], splits: npt.NDArray[Any], classes: list[str]) -> order.Ids:
    """Positions that leave each class of each split with as many images as its smallest has; UserError: one has none."""
    kept = []
    for split in dict.fromkeys(splits.tolist()):
        members = {
            number: np.flatnonzero((splits == split) & (codes == number))
            for number in np.unique(codes[codes >= 0])
        }
        if not members:
            raise UserError(
                f"balance: no image of split {split!r} has that label; balance by another, or select others."
            )
        least, rarest = min((len(its), number) for number, its in members.items())
        if not least:
            raise UserError(
                f"balance: split {split!r} has no image of class {classes[rarest]!r}; balance by another label."
            )
        kept += [its[order.permute(np.arange(least), len(its), 0)] for its in members.values()]
    return np.sort(np.concatenate(kept))


def counts(
    codes: npt.NDArray[Any], splits: npt.NDArray[Any], classes: list[str]
) -> dict[str, dict[str, int]]:
    """Images per split and class; those whose class is missing are not counted."""
    return {
        str(split): {
            name: int(((splits == split) & (codes == number)).sum())
            for number, name in enumerate(classes)
        }
        for split in dict.fromkeys(splits.tolist())
    }


def left_out(
    table: pd.DataFrame, schema: dict[str, dict[str, Any]], recipe: dict[str, Any]
) -> dict[str, str]:
    """Label -> why it is not packed: `keep`, `drop` and `min_prevalence` of the recipe. The group always is."""
    keep, drop, least = (
        recipe["keep"] or list(schema),
        recipe["drop"] or [],
        recipe["min_prevalence"],
    )
    for name in {*keep, *(recipe["drop"] or [])} - schema.keys():
        raise unknown(f"keep or drop: {name!r} is not a label", name, schema)
    found = {name: "dropped" for name in schema if name not in keep or name in drop}
    for name, entry in schema.items():
        known = table[name].dropna() if entry["kind"] == "real" else table[name][table[name] >= 0]
        if not len(known):
            found[name] = "no image has a value"
        elif entry["kind"] == "binary" and (share := min(known.mean(), 1 - known.mean())) < least:
            found[name] = f"its rarer side has {share:.2%} of {len(known)} images"
    return {name: reason for name, reason in found.items() if name != recipe["group"]}


def _near(marks: npt.NDArray[np.uint8], pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which pairs [n, 2] of marks are of one picture; flat pictures have few bits and are all near, so they must be equal."""
    words = np.ascontiguousarray(marks[:, :32]).view(np.uint64)
    one, other = words[pairs[:, 0]], words[pairs[:, 1]]
    apart = np.bitwise_count(one ^ other).sum(1)
    equal = (marks[pairs[:, 0]] == marks[pairs[:, 1]]).all(1)
    return equal | ((apart <= NEAR) & (np.bitwise_count(one).sum(1) > 2 * NEAR))


def _orders(marks: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.int64]]:
    """PASSES orders of marks, each by another choice of 8 of their 32 bytes: near ones come side by side in some."""
    for number in range(PASSES):
        chosen = marks[:, order.permute(np.arange(32), 32, number)[:8]]
        keys = (
            np.ascontiguousarray(chosen).view(">u8")[:, 0].astype(np.uint64)
        )  # NumPy sorts its own kind faster
        yield np.argsort(keys, kind="stable")


def different(marks: npt.NDArray[np.uint8]) -> int:
    """How many of some pictures are no copies, or near copies, of one before them; from one mark an image [N, MARK]."""
    copies = np.zeros(len(marks), bool)
    for rank in _orders(marks):
        for start in range(0, len(rank) - 1, 2**16):  # memory for some pairs at a time
            some = rank[start : start + 2**16 + 1]
            pairs = np.sort(np.stack([some[:-1], some[1:]], 1), 1)
            copies[pairs[_near(marks, pairs), 1]] = True
    return len(marks) - int(copies.sum())


def duplicates(
    marks: npt.NDArray[np.uint8], splits: npt.NDArray[Any]
) -> dict[tuple[int, int], str]:
    """Pairs of positions in different splits -> "exact" or "near", from one mark an image [N, MARK].

    Difference hashes at most NEAR bits apart, found among neighbours in orders by several choices of 8 of their 32 bytes
    (as of Charikar, STOC 2002): memory and time grow with N, not with its square, and a rare pair is missed.
    """
    found = dict[tuple[int, int], str]()
    for rank in _orders(marks) if (splits != splits[:1]).any() else ():
        sides = splits[rank]
        for step in range(1, NEIGHBOURS + 1):
            places = np.flatnonzero(sides[:-step] != sides[step:])
            pairs = np.stack([rank[places], rank[places + step]], 1)
            if len(found) > MOST:
                return dict(sorted(found.items()))
            alike = pairs[_near(marks, pairs)][: MOST + 1 - len(found)]
            for a, b in np.sort(alike, 1).tolist():
                found[a, b] = "exact" if (marks[a] == marks[b]).all() else "near"
    return dict(sorted(found.items()))
