"""Every technique does something, and what it does it does by `apply`."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

from inference_pio.conformance.subject import Subject
from inference_pio.optimizations.registry import TECHNIQUES
from support import effects
from support.effects import EFFECTS, Tiny

for _module in pkgutil.iter_modules(effects.__path__):
    importlib.import_module(f"support.effects.{_module.name}")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    subject = Subject.of("llama", tmp_path_factory.mktemp("effects"), collected={})
    return lambda name: Path(subject.checkpoint(name))


def test_every_technique_has_an_effect() -> None:
    assert set(EFFECTS) == set(TECHNIQUES)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_it_has_its_effect(name: str, tiny: Tiny) -> None:
    EFFECTS[name](tiny)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_doing_nothing_has_none(name: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(TECHNIQUES[name]), "apply", lambda _self, model, _config: model)
    with pytest.raises(AssertionError):
        EFFECTS[name](tiny)
