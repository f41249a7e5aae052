"""New packages, generated into a temporary folder and registered as if they were installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inference_pio.conformance.subject import load_case
from inference_pio.plugin.registry import default_registry, forget_registry
from inference_pio.scaffold.package import new_package
from support.installed import metadata_of

Make = Callable[[str, str], Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """`make(name, source)`: the folder of a new plugin that the registry knows until the test ends."""

    def call(name: str, source: str) -> Path:
        folder = new_package(name, source, tmp_path, default_registry())
        monkeypatch.syspath_prepend(str(metadata_of(folder)))
        monkeypatch.setenv("PYTHONPATH", str(folder / "src"), prepend=":")
        _forget()
        return folder

    yield call
    _forget()


def _forget() -> None:
    forget_registry()
    load_case.cache_clear()
    for module in [name for name in sys.modules if name.startswith("inference_pio_")]:
        del sys.modules[module]
