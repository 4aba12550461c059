"""How densely the package reads, counted; the ceilings are those of the codebases that it learns from."""

from __future__ import annotations

import ast
import functools
import io
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "facefactory"
LONG = 100  # columns of a line that is long
WHOLE = 25  # lines of a function that needs paragraphs
NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
UNTYPED = 2.5  # signatures with dict[str, Any] in a hundred code lines


@functools.cache
def files() -> dict[Path, str]:
    return {path: path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def nodes() -> Iterator[ast.AST]:
    for text in files().values():
        yield from ast.walk(ast.parse(text))


def docstring_lines(text: str) -> set[int]:
    """Numbers of the lines that strings take which stand for themselves."""
    found = set[int]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


@functools.cache
def counted() -> tuple[int, int]:
    """Of the package."""
    return counted_in(files())


def counted_in(texts: dict[Path, str]) -> tuple[int, int]:
    """Tokens of code, and the lines that have some."""
    tokens = lines = 0
    for text in texts.values():
        prose = docstring_lines(text)
        of_code = [
            token.start[0]
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type not in NO_CODE and token.start[0] not in prose
        ]
        tokens += len(of_code)
        lines += len(set(of_code))
    return tokens, lines


def per_hundred(count: int) -> float:
    return 100 * count / counted()[1]


def test_a_line_of_code_has_few_tokens() -> None:
    tokens, lines = counted()
    assert tokens / lines <= 9.5


def test_few_lines_are_long() -> None:
    lines = [line for text in files().values() for line in text.splitlines()]
    assert 100 * sum(len(line) >= LONG for line in lines) / len(lines) <= 4


def is_pair(node: ast.AST) -> bool:
    """Whether it gives two things two names in one go."""
    if not isinstance(node, ast.Assign):
        return False
    return isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)


def test_a_statement_says_one_thing() -> None:
    assert per_hundred(sum(map(is_pair, nodes()))) <= 0.5


@pytest.mark.parametrize(("kinds", "most"), [((ast.NamedExpr,), 0.3), (COMPREHENSIONS, 4.5)])
def test_expressions_are_short(kinds: tuple[type[ast.AST], ...], most: float) -> None:
    assert per_hundred(sum(isinstance(node, kinds) for node in nodes())) <= most


def without_paragraphs(texts: dict[Path, str]) -> list[str]:
    """Long functions whose lines follow each other without a gap or a head."""
    bare = []
    for path, text in texts.items():
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef):
                continue
            first = node.body[0]
            documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            start = (first.end_lineno or 0) if documented else node.lineno
            body = [line.strip() for line in lines[start : node.end_lineno]]
            if len(body) >= WHOLE and not any(line == "" or line.startswith("#") for line in body):
                bare.append(f"{path.name}:{node.name}")
    return bare


def test_long_functions_have_paragraphs() -> None:
    assert len(without_paragraphs(files())) <= 3


def test_signatures_have_types() -> None:
    untyped = [
        node
        for node in nodes()
        if isinstance(node, ast.FunctionDef) and "dict[str, Any]" in ast.unparse(node.args)
    ]
    assert per_hundred(len(untyped)) <= UNTYPED


# -- tests are prose too ---------------------------------------------------------------------------------------------

TESTS = {path: path.read_text() for path in sorted(Path(__file__).parent.rglob("*.py"))}


def in_tests(kind: Callable[[ast.AST], bool]) -> float:
    """How often a node stands in a hundred lines of the tests."""
    found = 0
    lines = 0
    for text in TESTS.values():
        found += sum(map(kind, ast.walk(ast.parse(text))))
        lines += sum(line.strip() != "" for line in text.splitlines())
    return 100 * found / lines


def test_statements_of_tests_say_one_thing() -> None:
    assert in_tests(lambda node: isinstance(node, ast.NamedExpr)) <= 0.3
    assert in_tests(is_pair) <= 0.5


def test_a_line_of_a_test_has_few_tokens() -> None:
    tokens, lines = counted_in(TESTS)
    assert tokens / lines <= 9.5


def test_long_tests_have_paragraphs() -> None:
    assert len(without_paragraphs(TESTS)) <= 2


def test_few_lines_of_tests_are_long() -> None:
    lines = [line for text in TESTS.values() for line in text.splitlines()]
    assert 100 * sum(len(line) >= LONG for line in lines) / len(lines) <= 4
