"""Every technique does something, and what it does it does by `apply`."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path

import pytest

from inference_pio.conformance.subject import Subject
from inference_pio.layers import Linear
from inference_pio.ops import PackedWeight, QuantizedWeight
from inference_pio.optimizations.hardware.weight_quantization import WeightsInt8
from inference_pio.optimizations.registry import TECHNIQUES
from support import effects
from support.effects import EFFECTS, Tiny
from support.effects.models import loaded, model_of

for _module in pkgutil.iter_modules(effects.__path__):
    importlib.import_module(f"support.effects.{_module.name}")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    subject = Subject.of("llama", tmp_path_factory.mktemp("effects"), collected={})
    wide = {**subject.case.tiny["grouped"], "vocab_size": 4096}
    subject.case = replace(subject.case, tiny={**subject.case.tiny, "wide-vocabulary": wide})
    return lambda name: Path(subject.checkpoint(name))


def test_every_technique_has_an_effect() -> None:
    assert set(EFFECTS) == set(TECHNIQUES)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_it_has_its_effect(name: str, tiny: Tiny) -> None:
    EFFECTS[name](tiny)


def test_the_option_quantize_acts_by_apply(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []
    for acts in (True, False):
        if not acts:
            monkeypatch.setattr(WeightsInt8, "apply", lambda _self, model, _config: model)
        with loaded(tiny("grouped"), fields={"torch_dtype": "auto"}, quantize="int8") as plugin:
            found = (module for module in model_of(plugin).modules() if isinstance(module, Linear))
            kinds.append({type(module.packed) for module in found})
    assert kinds == [{QuantizedWeight}, {PackedWeight}]


@pytest.mark.parametrize("name", TECHNIQUES)
def test_doing_nothing_has_none(name: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(TECHNIQUES[name]), "apply", lambda _self, model, _config: model)
    with pytest.raises(AssertionError):
        EFFECTS[name](tiny)
