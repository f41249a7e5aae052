"""Every test that docs/promises.md names is there, and no promise is without one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (P\d+) \| (.+?) \| (.+?) \|$", (ROOT / "docs/promises.md").read_text(), re.MULTILINE)
PROMISED = [2, *range(7, 19), *range(20, 23), 24]


def test_every_promise_has_tests_that_are_there() -> None:
    assert [number for number, _, _ in ROWS] == [f"P{number}" for number in PROMISED]
    for number, _, tests in ROWS:
        named = re.findall(r"`([\w/.]+)::(\w+)`", tests)
        assert named, number
        assert " ".join(f"`{file}::{test}`" for file, test in named) == tests
        for file, test in named:
            functions = [
                node.name
                for node in ast.walk(ast.parse((ROOT / file).read_text()))
                if isinstance(node, ast.FunctionDef)
            ]
            assert test in functions, f"{number}: {file}::{test}"
