"""Code without what only the plugin it comes from can say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

_EMPTY = {("PluginCase", "claims"): "frozenset()"}


def pruned(code: str, description: str) -> str:
    """A module's code without tests on published weights and collected configurations, the manifest described anew.

    The new plugin can have neither before somebody adds them, and what the old one runs the new one does not.
    """
    tree = ast.parse(code)
    lines = code.encode().splitlines(keepends=True)
    changes = [
        *_arguments(tree, {**_EMPTY, ("Manifest", "description"): f'"{description}"'}),
        *_weighed(tree),
    ]
    for node, first_line, new in sorted(changes, key=lambda change: -change[1]):
        if new:
            before, after = lines[first_line][: node.col_offset], lines[_last(node)][node.end_col_offset :]
            lines[first_line : _last(node) + 1] = [before + new.encode() + after]
        else:
            lines[first_line : _last(node) + 1] = []
    text = b"".join(lines).decode().rstrip("\n") + "\n"
    return re.sub(r"\n{4,}", "\n\n\n", text) if any(not new for *_, new in changes) else text


_Change = tuple[ast.expr | ast.FunctionDef, int, str]


def _arguments(tree: ast.Module, values: dict[tuple[str, str], str]) -> Iterator[_Change]:
    """Keyword arguments to be given another value, by the function and the keyword."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            for keyword in node.keywords:
                new = values.get((node.func.id, keyword.arg or ""))
                if new is not None:
                    yield keyword.value, keyword.value.lineno - 1, new


def _weighed(tree: ast.Module) -> Iterator[_Change]:
    """Test functions that are marked as needing a model's published weights."""
    for node in tree.body:
        marks = (
            [ast.unparse(mark) for mark in node.decorator_list] if isinstance(node, ast.FunctionDef) else []
        )
        if isinstance(node, ast.FunctionDef) and "pytest.mark.weights" in marks:
            yield node, node.decorator_list[0].lineno - 1, ""


def _last(node: ast.expr | ast.FunctionDef) -> int:
    return (node.end_lineno or node.lineno) - 1
