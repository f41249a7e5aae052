"""C15: what code must not do, and how long it may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

FILE_LINES = 350
FUNCTION_LINES = 60
_BROAD = {"Exception", "BaseException"}
# Where any exception at all has to be caught, and why.
BROAD_EXCEPT_ALLOWED = {
    "bridge/foreign.py": "whatever Transformers raises about a configuration is told as what it says",
    "cli/main.py": "the one place where a fault of ours becomes a line for people",
    "conformance/verdict.py": "whatever a stranger's plugin raises in a check is the verdict on it",
    "imports.py": "whatever a stranger's module raises while it is imported is a fault of that module, told as such",
    "text/backend.py": "a panic of the tokenizer library derives from BaseException; anything else is raised again",
}
# Functions that rightly do nothing.
NOTHING_ON_PURPOSE = {
    "cli/app.py _common": "carries the options of the whole program",
    "loader/progress.py silent": "the callback of a caller that wants no progress",
}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(source: Any) -> Iterator[_Function]:
    return (node for node in ast.walk(source.tree) if isinstance(node, _Function))


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return body[1:] if documented and isinstance(first.value.value, str) else body


def test_files_are_short(sources: list[Any]) -> None:
    long = [f"{source.where}: {len(source.text.splitlines())}" for source in sources]
    long = [entry for entry in long if int(entry.rpartition(" ")[2]) > FILE_LINES]
    assert not long, f"more than {FILE_LINES} lines: {long}"


def test_functions_are_short(sources: list[Any]) -> None:
    long = [
        f"{source.where}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1}"
        for source in sources
        for node in _functions(source)
        if (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES
    ]
    assert not long, f"more than {FUNCTION_LINES} lines: {long}"


def test_every_body_does_something(sources: list[Any]) -> None:
    """No body is `pass` or `...` alone, except a protocol's or an abstract method's; classes may consist of a name."""
    empty = []
    for source in sources:
        stated = _stated(source.tree)
        for node in _functions(source):
            rest = _without_docstring(node.body)
            if all(_does_nothing(statement) for statement in rest) and node not in stated:
                empty.append(f"{source.where} {node.name}")
    assert sorted(empty) == sorted(NOTHING_ON_PURPOSE), "bodies that do nothing, found and listed"


def _stated(tree: ast.Module) -> set[_Function]:
    """Methods that only state a signature: of protocols, and abstract ones."""
    found: set[_Function] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            protocol = any("Protocol" in ast.unparse(base) for base in node.bases)
            found |= {
                item
                for item in node.body
                if isinstance(item, _Function)
                and (protocol or any("abstractmethod" in ast.unparse(mark) for mark in item.decorator_list))
            }
    return found


def _does_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and statement.value.value is ...
    )


def test_no_except_is_broad(sources: list[Any]) -> None:
    """`except Exception`, `except BaseException` and a bare `except` only where they raise again or are listed."""
    broad = [
        f"{source.where}:{node.lineno}"
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler) and _is_broad(node) and not _raises_again(node)
    ]
    unlisted = [place for place in broad if place.partition(":")[0] not in BROAD_EXCEPT_ALLOWED]
    assert not unlisted, f"broad except: {unlisted}"
    unused = set(BROAD_EXCEPT_ALLOWED) - {place.partition(":")[0] for place in broad}
    assert not unused, f"listed as allowed, but there is none: {unused}"


def _is_broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(kind, ast.Name) and kind.id in _BROAD for kind in kinds)


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_no_attribute_is_read_with_a_default(sources: list[Any]) -> None:
    """`getattr(x, name, default)` hides a missing field; a configuration's field is there or it is an error."""
    guesses = [
        f"{source.where}:{node.lineno}"
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "getattr"
        and len(node.args) == 3
        and "config" in ast.unparse(node.args[0])
    ]
    assert not guesses, f"getattr with a default: {guesses}"


def test_nothing_is_left_to_do(sources: list[Any]) -> None:
    for source in sources:
        for mark in ("TODO", "FIXME", "XXX"):
            assert mark not in source.text, f"{source.where}: {mark}"
        for node in ast.walk(source.tree):
            stub = isinstance(node, ast.Raise) and node.exc and "NotImplementedError" in ast.unparse(node.exc)
            assert not stub, f"{source.where}:{node.lineno}: a stub"
