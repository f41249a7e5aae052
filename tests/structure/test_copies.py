"""What plugins share is written once: exact copies are declared as twins, or few.

A copy is a run of at least `RUN` lines that stands in another plugin as well. Lines are compared without their
indentation, with each plugin's names replaced by one; blank lines, imports and lines without a letter or digit are left
out, docstrings count. What is counted is a plugin's own code and its benchmarks. Tests are left out: each plugin's
tests say by themselves what they compare with what, and the checks that are the same for all are in `conformance`.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest

import inference_pio
from inference_pio.plugin.registry import BUILT_IN, default_registry
from inference_pio.scaffold.source import Source

MODELS = Path(inference_pio.__file__).parent / "models"
TWINS = tomllib.loads(Path(__file__).with_name("twins.toml").read_text())["twins"]
RUN = 6
SHARE = 0.08

Window = tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """The lines of one file that count."""

    plugin: str
    file: str
    lines: tuple[str, ...]

    def windows(self) -> Iterator[tuple[int, Window]]:
        for begin in range(len(self.lines) - RUN + 1):
            yield begin, self.lines[begin : begin + RUN]


def _renamed(plugin: str, text: str) -> str:
    """A file's text with every name of the plugin replaced: its own, its package's, how its classes' names begin."""
    source = Source.of(default_registry().get(plugin))
    names = sorted({*source.stems(), source.manifest.name}, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, names)), "PLUGIN", text)


def _code(plugin: str, path: Path) -> Code:
    text = path.read_text()
    imports: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imports |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    kept = [
        line.strip()
        for number, line in enumerate(_renamed(plugin, text).splitlines(), 1)
        if number not in imports and re.search(r"\w", line)
    ]
    return Code(plugin, str(path.relative_to(MODELS / plugin)), tuple(kept))


@pytest.fixture(scope="module")
def codes() -> list[Code]:
    return [
        _code(plugin, path)
        for plugin in BUILT_IN
        for path in sorted((MODELS / plugin).rglob("*.py"))
        if path.relative_to(MODELS / plugin).parts[0] != "tests"
    ]


def _declared(code: Code, other: Code) -> bool:
    return any(
        code.file == other.file == twins["file"] and {code.plugin, other.plugin} <= set(twins["plugins"])
        for twins in TWINS
    )


def _copied(codes: list[Code]) -> dict[str, dict[str, int]]:
    """Plugin -> file -> lines of it that are part of a run standing in another plugin, and are not declared."""
    places: dict[Window, list[Code]] = {}
    for code in codes:
        for _, window in code.windows():
            places.setdefault(window, []).append(code)
    found: dict[str, dict[str, int]] = {}
    for code in codes:
        marked: set[int] = set()
        for begin, window in code.windows():
            others = [other for other in places[window] if other.plugin != code.plugin]
            if others and not any(_declared(code, other) for other in others):
                marked |= set(range(begin, begin + RUN))
        found.setdefault(code.plugin, {})[code.file] = len(marked)
    return found


def test_few_lines_are_copies(codes: list[Code]) -> None:
    copied = _copied(codes)
    lines = sum(len(code.lines) for code in codes)
    total = sum(sum(files.values()) for files in copied.values())
    listed = [
        f"{plugin}/{file}: {count}"
        for plugin, files in copied.items()
        for file, count in files.items()
        if count
    ]
    assert total < SHARE * lines, f"{total} of {lines} lines ({total / lines:.1%}) are copies: {listed}"


def test_copies_are_found() -> None:
    """Under other names, with other indentation and other lines around; a run one line shorter is none."""
    body = "\n".join(f"    x = work({number})" for number in range(RUN))
    one = Code("one", "a.py", tuple(line.strip() for line in body.splitlines()))
    two = Code("two", "b.py", ("begin", *one.lines, "end"))
    three = Code("three", "c.py", one.lines[1:])
    assert _copied([one, two, three]) == {"one": {"a.py": RUN}, "two": {"b.py": RUN}, "three": {"c.py": 0}}
    assert _renamed("llama", "class LlamaConfig: # of inference_pio.models.llama") == (
        "class PLUGINConfig: # of inference_pio.models.PLUGIN"
    )


@pytest.mark.parametrize(
    ("file", "one", "other"),
    [
        (twins["file"], one, other)
        for twins in TWINS
        for one, other in combinations(twins["plugins"], 2)
        if {one, other} <= set(BUILT_IN)
    ],
)
def test_twins_are_equal(file: str, one: str, other: str) -> None:
    first, second = (_without_docstring(plugin, MODELS / plugin / file) for plugin in (one, other))
    assert first == second, f"{file} of {one} and of {other} are declared twins and differ"


def _without_docstring(plugin: str, path: Path) -> str:
    text = path.read_text()
    head = ast.parse(text).body[0]
    assert ast.get_docstring(ast.parse(text)), f"{path}: no docstring"
    return _renamed(plugin, "".join(text.splitlines(keepends=True)[head.end_lineno :]))


def test_declarations_say_why_and_name_files_that_are_there() -> None:
    for twins in TWINS:
        assert set(twins) == {"file", "plugins", "why"}
        assert len(set(twins["plugins"])) >= 2
        assert twins["why"].strip()
        for plugin in set(twins["plugins"]) & set(BUILT_IN):
            assert (MODELS / plugin / twins["file"]).is_file(), f"{plugin} has no {twins['file']}"
