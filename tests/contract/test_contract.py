"""C1 to C14 and C16 over every registered plugin."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from inference_pio.conformance.case import Raw
from inference_pio.conformance.checks import CHECKS, Check
from inference_pio.conformance.subject import Subject
from inference_pio.errors import UnsupportedArchitecture
from inference_pio.packages.external import external_plugins
from inference_pio.plugin.registry import Registry, claims_checkpoint, default_registry

PLUGINS = default_registry().names()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@pytest.mark.parametrize("plugin", PLUGINS)
def test_contract(plugin: str, check: Check, subject_of: Callable[[str], Subject]) -> None:
    check.run(subject_of(plugin))


def test_every_number_is_checked() -> None:
    assert {check.number for check in CHECKS} == {f"C{number}" for number in (*range(1, 15), 16)}


def test_unclaimed_configurations_are_refused_with_the_list_of_supported_ones(
    collected: dict[str, Raw],
) -> None:
    registry = Registry(external=external_plugins())  # without the bridge
    supported = [name for found in registry.all() for name in found.manifest.architectures]
    unclaimed = {
        name: raw
        for name, raw in collected.items()
        if not any(claims_checkpoint(found.manifest, raw) for found in registry.all())
    }
    assert unclaimed, "no configuration is left that could be refused"
    for name, raw in unclaimed.items():
        with pytest.raises(UnsupportedArchitecture) as refusal:
            registry.for_checkpoint(raw, name)
        assert raw["architectures"][0] in str(refusal.value)
        assert all(architecture in str(refusal.value) for architecture in supported)
