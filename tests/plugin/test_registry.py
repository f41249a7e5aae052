"""Plugins by name: lazy, did-you-mean, collisions are errors, versions are checked."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from inference_pio.errors import PluginError, UnsupportedArchitecture
from inference_pio.imports import import_object
from inference_pio.plugin.manifest import API_VERSION, Manifest
from inference_pio.plugin.registry import BUILT_IN, External, Registry, create_plugin


def manifest(name: str, **changes: Any) -> Manifest:
    facts: dict[str, Any] = {
        "name": name,
        "api_version": API_VERSION,
        "architectures": (f"{name.title()}ForCausalLM",),
        "plugin": f"brought_{name}.plugin:Plugin",
        "description": "for a test",
    }
    return Manifest(**(facts | changes))


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes an importable package with a manifest, and what names it."""

    def make(entry_name: str, value: Any) -> External:
        module = ModuleType(f"brought_{entry_name}")
        module.MANIFEST = value  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return External(entry_name, f"{module.__name__}:MANIFEST", "somebody")

    return make


def imported(external: External) -> Manifest:
    """Instead of a locked child."""
    found: Manifest = import_object(external.target)
    return found


def test_built_in_and_external_plugins_are_listed_without_reading_manifests() -> None:
    registry = Registry(external=(External("broken", "no_such_package:MANIFEST", "somebody"),))
    assert registry.names() == tuple(sorted(("broken", *BUILT_IN)))
    with pytest.raises(
        PluginError,
        match=r"no_such_package:MANIFEST of somebody does not load: .*No module named 'no_such_package'",
    ):
        registry.get("broken")


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(PluginError, match=r"no plugin is called 'lama'; did you mean 'llama'\?"):
        Registry().get("lama")
    with pytest.raises(PluginError, match=r"there are .*llama"):
        create_plugin("zzz")


def test_external_plugin_is_found_by_its_architecture(brought: Any) -> None:
    registry = Registry(external=(brought("ninth", manifest("ninth")),), ask=imported)
    assert registry.for_checkpoint({"architectures": ["NinthForCausalLM"]}, "x").name == "ninth"
    assert registry.for_checkpoint({"model_type": "ninth"}, "x").name == "ninth"
    assert registry.for_checkpoint({"general.architecture": "llama"}, "x").name == "llama"


def test_collisions_are_errors(brought: Any) -> None:
    with pytest.raises(PluginError, match="two plugins are called 'llama'"):
        Registry(external=(brought("llama", manifest("llama")),))
    thief = manifest("thief", architectures=("LlamaForCausalLM",))
    registry = Registry(external=(brought("thief", thief),), ask=imported)
    with pytest.raises(PluginError, match=r"two plugins claim LlamaForCausalLM: llama .* and thief"):
        registry.for_checkpoint({"architectures": ["LlamaForCausalLM"]}, "x")


def test_unknown_architectures_list_the_supported_ones() -> None:
    with pytest.raises(UnsupportedArchitecture, match=r"MambaForCausalLM.*supported: .*LlamaForCausalLM"):
        Registry().for_checkpoint({"architectures": ["MambaForCausalLM"]}, "here/config.json")
    with pytest.raises(UnsupportedArchitecture, match=r"not stated"):
        Registry().for_checkpoint({}, "here/config.json")


def test_versions_names_and_types_are_checked(brought: Any) -> None:
    with pytest.raises(
        PluginError, match=f"contract version {API_VERSION + 1}, this is version {API_VERSION}"
    ):
        manifest("newer", api_version=API_VERSION + 1)
    with pytest.raises(PluginError, match="plugin name 'Bad Name'"):
        manifest("Bad Name")
    with pytest.raises(PluginError, match="not of the form"):
        manifest("odd", plugin="os.system")
    with pytest.raises(PluginError, match="is not a Manifest but str"):
        Registry(external=(brought("text", "nothing"),), ask=imported).get("text")
    with pytest.raises(PluginError, match="registered as 'alias' but calls itself 'other'"):
        Registry(external=(brought("alias", manifest("other")),), ask=imported).get("alias")
    with pytest.raises(PluginError, match="plugin name 'Ünï'"):
        Registry(external=(External("Ünï", "x:MANIFEST", "somebody"),))
