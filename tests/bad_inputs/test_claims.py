"""What a file only claims costs its reader nothing: 500 GB in a header of 300 bytes, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bad_inputs.files import Row, gguf, safetensors
from inference_pio import ResourceLimits, SecurityLevel, create_plugin, initialize_plugin
from inference_pio.children.beginning import import_paths
from inference_pio.errors import ModelFileError
from inference_pio.security import landlock

pytestmark = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")

_MOST_KILOBYTES = 5000
_LOADS = """
import json, subprocess, sys
sys.path[:0] = {paths!r}
from inference_pio import LLM, ResourceLimits, SecurityLevel
from inference_pio.errors import ModelFileError
started = []
class Watched(subprocess.Popen):
    def __init__(self, words, *more, **named):
        started.append(words)
        super().__init__(words, *more, **named)
subprocess.Popen = Watched
def memory():
    lines = [line.split() for line in open("/proc/self/status")]
    return {{words[0]: int(words[1]) for words in lines if words[0] in ("VmRSS:", "VmHWM:")}}
limits = ResourceLimits(memory_gb=1.0, cpu_percent=100, gpu_memory_gb=0, network_bandwidth_mbps=0)
def load(path):
    try:
        LLM(path, security_level=SecurityLevel.LOW_TRUST, resource_limits=limits)
    except ModelFileError as error:
        return str(error)
load({honest!r})
before = memory()
said = load({lying!r})
print(json.dumps([before, memory(), said, len(started), "torch" in sys.modules]))
"""
_HUGE: dict[str, Row] = {
    "safetensors": {
        "header": '{"a": {"dtype": "F32", "shape": [125000000000], "data_offsets": [0, 500000000000]}}',
        "data": 200,
    },
    "gguf": {"tensors": [{"name": "a", "sizes": [1000000, 125000], "type": 0, "offset": 0}], "data": 150},
    "gguf strings": {"pairs": [{"key": "s", "type": 9, "value": [["<IQ", 8, 500000000000]]}], "data": 50},
    "gguf text": {"pairs": [{"key": "s", "type": 8, "value": [["<Q", 500000000000]]}], "data": 50},
}


@pytest.mark.parametrize("kind", _HUGE)
def test_500_gb_in_300_bytes_take_no_memory_and_no_process(kind: str, tmp_path: Path) -> None:
    lying, honest = (tmp_path / f"{name}.{kind.partition(' ')[0]}" for name in ("lying", "honest"))
    make = safetensors if kind == "safetensors" else gguf
    lying.write_bytes(make(_HUGE[kind]))
    honest.write_bytes(make({"data": 1}))  # as much code is run for one that is merely cut off
    assert lying.stat().st_size <= 320
    before, after, said, started, torch = _told(str(honest), str(lying))
    assert said.startswith(f"{lying}: ")
    assert "500000000" in said
    assert (started, torch) == (0, False)
    for name in ("VmRSS:", "VmHWM:"):
        assert after[name] - before[name] < _MOST_KILOBYTES


def test_a_plugin_with_limits_starts_no_process_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lying.safetensors"
    file.write_bytes(safetensors(_HUGE["safetensors"]))
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, **_: started.append(words))
    plugin = create_plugin("llama")
    config = plugin.config_class(model_path=str(file))
    limits = ResourceLimits(memory_gb=1.0, gpu_memory_gb=0, network_bandwidth_mbps=0)
    for more in ({}, {"security_level": SecurityLevel.LOW_TRUST, "resource_limits": limits}):
        with pytest.raises(ModelFileError, match="500000000"):
            initialize_plugin(plugin, config=config, **more)
    assert started == []


def _told(honest: str, lying: str) -> list[Any]:
    code = _LOADS.format(paths=import_paths(), honest=honest, lying=lying)
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    told: list[Any] = json.loads(ran.stdout)
    return told
