"""A plugin of others: found without importing it, and run in a worker unless its operator says otherwise."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_pio import LLM, SamplingParams, SecurityLevel, create_plugin, initialize_plugin
from inference_pio.conformance.subject import Subject
from inference_pio.errors import PluginError
from inference_pio.packages.store import Package, PackageStore
from inference_pio.plugin import registry
from inference_pio.plugin.registry import External, Registry, default_registry
from inference_pio.security import landlock
from inference_pio.worker.runtime import WorkerRuntime
from support.plugin_wheels import wheel

pytestmark = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")

_INIT = """
from inference_pio.plugin.manifest import Manifest
MANIFEST = Manifest("stranger", 1, ("StrangerForCausalLM",), "stranger_plugin.plugin:Plugin", "a llama of others")
"""
_PLUGIN = """
from inference_pio.models.llama.plugin import LlamaPlugin
from stranger_plugin import MANIFEST
class Plugin(LlamaPlugin):
    manifest = MANIFEST
"""
SHORT = SamplingParams(temperature=0, max_tokens=12)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """The package in a home of its own, and a registry that knows it."""
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(registry, "_defaults", [])
    monkeypatch.setattr(sys, "path", [*sys.path])
    files = {
        "weather_plugin/__init__.py": None,
        "weather_plugin/model.py": None,
        "stranger_plugin/__init__.py": _INIT,
        "stranger_plugin/plugin.py": _PLUGIN,
        "weather-1.0.dist-info/entry_points.txt": "[inference_pio.models]\nstranger = stranger_plugin:MANIFEST\n",
    }
    path = wheel(tmp_path, files)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    yield PackageStore(tmp_path / "home").install(path, digest)
    for name in [name for name in sys.modules if name.startswith("stranger_plugin")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Subject.of("llama", tmp_path_factory.mktemp("llama"), collected={}).checkpoint("grouped")


@pytest.fixture
def checkpoint(llama: Path, tmp_path: Path) -> Path:
    """The llama's, by another name."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in llama.iterdir():
        os.link(file, folder / file.name)
    stated = json.loads((llama / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**stated, "architectures": ["StrangerForCausalLM"]}))
    return folder


def said(model: Path, **more: Any) -> tuple[str, bool]:
    """The answer, and whether it comes from a worker."""
    with LLM(str(model), dtype="float32", kv_cache_memory_gb=0.02, **more) as llm:
        return llm.generate("the cat", SHORT)[0].outputs[0].text, llm._running.plugin is None


def test_it_runs_in_a_worker_by_itself(installed: Package, llama: Path, checkpoint: Path) -> None:
    assert default_registry().get("stranger").origin == installed.receipt.name
    wanted, apart = said(llama)
    assert not apart
    assert said(checkpoint) == (wanted, True)
    assert said(checkpoint, plugin="stranger", security_level=SecurityLevel.MEDIUM_TRUST) == (wanted, True)
    assert "stranger_plugin" not in sys.modules
    # Its operator trusts it to the most.
    assert said(checkpoint, security_level=SecurityLevel.MAXIMUM_TRUST) == (wanted, False)
    assert "stranger_plugin" in sys.modules


@pytest.mark.usefixtures("installed")
def test_its_plugin_object_stands_for_it(checkpoint: Path) -> None:
    plugin = create_plugin("stranger")
    assert plugin.manifest.description == "a llama of others"
    config = plugin.config_class(model_path=str(checkpoint))
    assert plugin.initialize(config=config)
    assert isinstance(plugin.runtime, WorkerRuntime)
    assert plugin.runtime.model.pid
    alone = plugin.generate_text("the cat", 8, temperature=0)
    assert initialize_plugin(plugin, config=config), plugin.last_error
    assert plugin.generate_text("the cat", 8, temperature=0) == alone
    assert {fact["name"] for fact in plugin.get_optimization_report()} > {"CUDA kernels"}
    with pytest.raises(PluginError, match="runs in a worker: nothing of it can be asked for here"):
        plugin.build_model(config, None)  # type: ignore[arg-type]
    assert plugin.cleanup()
    assert "stranger_plugin" not in sys.modules


def test_a_changed_package_does_not_run(installed: Package, checkpoint: Path) -> None:
    default_registry().get("stranger")
    (installed.folder / "stranger_plugin" / "plugin.py").write_text(_PLUGIN + "\nchanged = True\n")
    with pytest.raises(
        PluginError, match=r"plugin\.py is not what was installed; remove it and install it again"
    ):
        said(checkpoint)
    (installed.folder / "installed.json").unlink()
    with pytest.raises(PluginError, match=r"installed\.json: is no receipt of a plugin package"):
        said(checkpoint)


def test_one_that_does_not_load_is_in_nobodys_way(llama: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = External("broken", "no_such_package:MANIFEST", "somebody")
    plugins = Registry(("llama",), (broken,))
    raw = json.loads((llama / "config.json").read_text())
    with caplog.at_level(logging.WARNING, "inference_pio"):
        assert [plugins.for_checkpoint(raw, "x").name for _ in range(2)] == ["llama", "llama"]
    assert len(caplog.records) == 1
    assert "plugin broken is left out: no_such_package:MANIFEST of somebody does not load" in caplog.text


def test_a_broken_receipt_is_in_nobodys_way(installed: Package, caplog: pytest.LogCaptureFixture) -> None:
    (installed.folder / "installed.json").write_text("{")
    assert "llama" in default_registry().names()
    assert "stranger" not in default_registry().names()
    assert "is no receipt of a plugin package" in caplog.text


@pytest.mark.usefixtures("installed")
def test_what_needs_it_here_says_so() -> None:
    with pytest.raises(PluginError, match=r"'stranger' of weather runs in a worker.*maximum_trust"):
        default_registry().create("stranger")
