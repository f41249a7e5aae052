"""The package's source as syntax trees."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

import inference_pio

ROOT = Path(inference_pio.__file__).parent


@dataclass(frozen=True)
class Source:
    """One module: its dotted name, where it is, and its tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def where(self) -> str:
        return str(self.path.relative_to(ROOT))


@pytest.fixture(scope="session")
def sources() -> list[Source]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("inference_pio", *path.relative_to(ROOT).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text()
        found.append(Source(name, path, text, ast.parse(text)))
    return found
