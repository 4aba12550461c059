"""Which images and labels of a set are packed, and which of its pictures lie in two splits."""

import ast
import itertools
import keyword
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from facefactory import UserError
from facefactory.data.sets import order
from facefactory.facts import Label
from facefactory.registry import unknown
from facefactory.validation import nearest

COMPARE: dict[type[ast.cmpop], Callable[..., Any]] = {
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
QUOTED = "`([^`]+)`"  # a label's name in an expression
MARK = 36  # bytes that know an image again: 32 of a difference hash, 4 of a checksum of its pixels
# of 256 bits: on ORL, recompressed and resized copies differ in at most 16, other shots of a
# person in 17 or more, others in 52
NEAR = 16
PASSES = 16  # orders of the marks in which copies are looked for
NEIGHBOURS = 8  # marks after each one in such an order with which it is compared
MOST = 100_000  # pairs beyond which no more are looked for

Schema = dict[str, Label]
Marks = npt.NDArray[np.uint8]  # [N, MARK], one an image
Truth = npt.NDArray[np.float64]  # 1 where a condition holds, 0 where not, 0.5 where it is unknown


def where(expression: str, table: pd.DataFrame, schema: Schema) -> npt.NDArray[np.bool_]:
    """Images of an encoded table for which a condition holds.

    It is made of `and`, `or`, `not`, comparisons and `in` over label names. Words on the right
    need quotes, and names on the left `backticks`, only if they are no Python names. A label that
    is missing makes a comparison unknown, and `not unknown` is unknown (Kleene's logic). Nothing
    is evaluated as Python.

    Raises:
        UserError: not of that form, or a label or class that does not exist.
    """
    condition = _Condition(expression, table, schema)
    return condition.truth(condition.tree()) == 1


@dataclass(frozen=True)
class _Condition:
    """An expression over the labels of an encoded table."""

    expression: str
    table: pd.DataFrame
    schema: Schema

    def error(self, reason: str) -> UserError:
        allowed = (
            "allowed are label names, and, or, not, ( ), == != < <= > >= and in, "
            """e.g. "Smiling and not Male" or 'age == "20-29"'"""
        )
        return UserError(f"where={self.expression!r}: {reason}; {allowed}.")

    def tree(self) -> ast.expr:
        """The expression as Python parses it, with quoted0, quoted1… for names in backticks."""
        number = itertools.count()
        text = re.sub(QUOTED, lambda _: f"quoted{next(number)}", self.expression)
        try:
            return ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            odd = [name for name in self.schema if _needs_quotes(name) and name in self.expression]
            reason = "it is not readable"
            if odd:
                reason = f"`{'`, `'.join(odd)}` needs such quotes"
            raise self.error(reason) from None

    def truth(self, node: ast.expr) -> Truth:
        """For which images a part of the tree holds."""
        match node:
            case ast.BoolOp(op, parts):
                join = np.minimum if isinstance(op, ast.And) else np.maximum
                return join.reduce([self.truth(part) for part in parts])
            case ast.UnaryOp(ast.Not(), part):
                return 1 - self.truth(part)
            case ast.Compare(left, [ast.In() | ast.NotIn() as op], [right]) if _elements(right):
                equal = [
                    self.compared(left, ast.Eq(), self.word(part)) for part in _elements(right)
                ]
                among = np.maximum.reduce(equal)
                return among if isinstance(op, ast.In) else 1 - among
            case ast.Compare(left, [op], [right]) if type(op) in COMPARE:
                return self.compared(left, op, self.word(right))
            case ast.Name() if self.is_binary(node):
                return self.compared(node, ast.Eq(), 1)
        raise self.error(f"{ast.unparse(node)!r} is not understood")

    def is_binary(self, node: ast.Name) -> bool:
        """Whether a name alone is a condition; one that is no label is: `compared` refuses it."""
        label = self.schema.get(self.word(node))
        return label is None or label.kind == "binary"

    def word(self, node: ast.expr) -> Any:
        """The name, word or number that a leaf of the tree stands for."""
        if isinstance(node, ast.Name):
            if not re.fullmatch(r"quoted\d+", node.id):
                return node.id
            quoted = re.findall(QUOTED, self.expression)
            return quoted[int(node.id.removeprefix("quoted"))]
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise self.error(f"{ast.unparse(node)!r} is not understood") from None

    def compared(self, node: ast.expr, operator: ast.cmpop, value: Any) -> Truth:
        """Where a label compares so with a number or a class; unknown where the label is missing."""
        name = self.word(node)
        if name not in self.schema:
            near = nearest(str(name), self.schema)
            raise self.error(
                f"there is no label {name!r}.{near} There are {', '.join(self.schema)}"
            )
        kind = self.schema[name].kind
        classes = None if kind == "real" else self.schema[name].classes
        codes = self.table[name].to_numpy(np.float64)
        given = ~np.isnan(codes)
        if classes is not None:
            given &= codes >= 0

        # as numbers; as places among the classes where those, or the value, are words
        scale: npt.NDArray[Any] | None = None
        try:
            if classes is not None:
                scale = np.array(classes, np.float64)
            value = float(value)
            if kind == "binary":
                value = _side(value)
        except (ValueError, TypeError, OverflowError):
            if classes is None or str(value) not in classes:
                only = ", ".join((classes or ("a number",))[:20])
                raise self.error(f"{name} is never {value!r}, only {only}") from None
            if kind != "ordinal" and not isinstance(operator, ast.Eq | ast.NotEq):
                raise self.error(
                    f"the classes of {name} have no order (a recipe may give one: kind ordinal)"
                ) from None
            scale = np.arange(len(classes))
            value = classes.index(str(value))

        values = codes
        if scale is not None:
            values = np.append(scale, 0)[codes.astype(int)]  # -1, a missing one, takes the last
        return np.where(given, COMPARE[type(operator)](values, value), 0.5)


def _side(value: float) -> float:
    """The side of a binary label, 0 or 1; of a table like CelebA's, -1 is 0."""
    if value not in (-1, 0, 1):
        raise ValueError(value)
    return max(value, 0.0)


def _elements(node: ast.expr) -> list[ast.expr]:
    """What stands to the right of `in`: the elements of a list, or one word."""
    return getattr(node, "elts", [node])


def _needs_quotes(name: str) -> bool:
    return not name.isidentifier() or keyword.iskeyword(name)


def balanced(
    codes: npt.NDArray[Any], splits: npt.NDArray[Any], classes: Sequence[str]
) -> order.Ids:
    """Positions that leave each class of each split with as many images as its smallest has.

    UserError: one has none.
    """
    kept = []
    for split in dict.fromkeys(splits.tolist()):
        members = {}
        for number in np.unique(codes[codes >= 0]):
            there = (splits == split) & (codes == number)
            members[number] = np.flatnonzero(there)
        if not members:
            raise UserError(
                f"balance: no image of split {split!r} has that label; "
                "balance by another, or select others."
            )

        # each class gives as many as the rarest has, drawn evenly
        rarest = min(members, key=lambda number: (len(members[number]), number))
        least = len(members[rarest])
        if not least:
            raise UserError(
                f"balance: split {split!r} has no image of class {classes[rarest]!r}; "
                "balance by another label."
            )
        for of_class in members.values():
            chosen = order.permute(np.arange(least), len(of_class), 0)
            kept.append(of_class[chosen])
    return np.sort(np.concatenate(kept))


def counts(
    codes: npt.NDArray[Any], splits: npt.NDArray[Any], classes: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Images per split and class; those whose class is missing are not counted."""
    images = {}
    for split in dict.fromkeys(splits.tolist()):
        there = codes[splits == split]
        of_class = np.bincount(there[there >= 0], minlength=len(classes)).tolist()
        images[str(split)] = dict(zip(classes, of_class, strict=True))
    return images


def left_out(table: pd.DataFrame, schema: Schema, recipe: dict[str, Any]) -> dict[str, str]:
    """Label -> why it is not packed: `keep`, `drop` and `min_prevalence` of the recipe.

    The group always is.
    """
    keep = recipe["keep"] or list(schema)
    drop = recipe["drop"] or []
    for name in {*keep, *drop} - schema.keys():
        raise unknown(f"keep or drop: {name!r} is not a label", name, schema)

    reasons = {name: "dropped" for name in schema if name not in keep or name in drop}
    for name, label in schema.items():
        values = table[name]
        known = values.dropna() if label.kind == "real" else values[values >= 0]
        if not len(known):
            reasons[name] = "no image has a value"
        elif label.kind == "binary":
            share = min(known.mean(), 1 - known.mean())
            if share < recipe["min_prevalence"]:
                reasons[name] = f"its rarer side has {share:.2%} of {len(known)} images"
    reasons.pop(recipe["group"], None)
    return reasons


def _near(marks: Marks, pairs: order.Ids) -> npt.NDArray[np.bool_]:
    """Which pairs [n, 2] of marks are of one picture.

    Flat pictures have few bits and are all near, so they must be equal.
    """
    words = np.ascontiguousarray(marks[:, :32]).view(np.uint64)
    first = words[pairs[:, 0]]
    second = words[pairs[:, 1]]
    apart = np.bitwise_count(first ^ second).sum(1)
    flat = np.bitwise_count(first).sum(1) <= 2 * NEAR
    equal = (marks[pairs[:, 0]] == marks[pairs[:, 1]]).all(1)  # in their checksums, too
    return equal | ((apart <= NEAR) & ~flat)


def _orders(marks: Marks) -> Iterator[order.Ids]:
    """PASSES orders of marks, each by another choice of 8 of their 32 bytes.

    Near ones come side by side in some.
    """
    for number in range(PASSES):
        chosen = marks[:, order.permute(np.arange(32), 32, number)[:8]]
        keys = np.ascontiguousarray(chosen).view(">u8")[:, 0]
        yield np.argsort(keys.astype(np.uint64), kind="stable")  # NumPy sorts its own kind faster


def different(marks: Marks) -> int:
    """How many of some pictures are no copies, or near copies, of one before them."""
    copies = np.zeros(len(marks), bool)
    for rank in _orders(marks):
        for start in range(0, len(rank) - 1, 2**16):  # memory for some pairs at a time
            some = rank[start : start + 2**16 + 1]
            neighbours = np.stack([some[:-1], some[1:]], 1)
            pairs = np.sort(neighbours, 1)
            near = pairs[_near(marks, pairs)]
            copies[near[:, 1]] = True
    return len(marks) - int(copies.sum())


def duplicates(marks: Marks, splits: npt.NDArray[Any]) -> dict[tuple[int, int], str]:
    """Pairs of positions in different splits -> "exact" or "near".

    Difference hashes at most NEAR bits apart, found among neighbours in orders by several choices
    of 8 of their 32 bytes (as of Charikar, STOC 2002): memory and time grow with N, not with its
    square, and a rare pair is missed.
    """
    kinds: dict[tuple[int, int], str] = {}
    if not (splits != splits[:1]).any():
        return kinds

    for rank in _orders(marks):
        sides = splits[rank]
        for step in range(1, NEIGHBOURS + 1):
            places = np.flatnonzero(sides[:-step] != sides[step:])
            pairs = np.stack([rank[places], rank[places + step]], 1)
            if len(kinds) > MOST:
                return dict(sorted(kinds.items()))
            alike = pairs[_near(marks, pairs)][: MOST + 1 - len(kinds)]
            for first, second in np.sort(alike, 1).tolist():
                equal = (marks[first] == marks[second]).all()
                kinds[first, second] = "exact" if equal else "near"
    return dict(sorted(kinds.items()))
