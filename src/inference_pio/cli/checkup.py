"""What `doctor` finds out. Every section is data: names to values, names of byte counts end in `_bytes`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import psutil

from inference_pio import __version__
from inference_pio.cli.plugins import bridge_line, registered_plugins
from inference_pio.errors import InferencePIOError
from inference_pio.loader.store import ModelStore, free_bytes, is_writable
from inference_pio.metrics.hardware import read_machine
from inference_pio.metrics.memory import available_bytes
from inference_pio.security import ResourceLimits, SecurityLevel
from inference_pio.worker.booting import Cell

_COMPILERS = ("c++", "g++", "clang++", "cl")
_HUB_SETTINGS = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE")


def report() -> dict[str, Any]:
    """Sections by title; `problems` holds what keeps any model from running, `operations` what runs each kernel."""
    problems: list[str] = []
    torch_facts, operations = _torch(problems)
    return {
        "software": {
            "inference_pio": __version__,
            "python": f"{platform.python_version()} ({sys.executable})",
            "system": f"{platform.system()} {platform.release()}",
            **torch_facts,
            "compiler": _compiler(),
        },
        "processor": _processor(),
        "memory": _memory(),
        "models": _models(),
        "downloads": _downloads(),
        "plugins": _plugins(problems),
        "isolation": _isolation(),
        "operations": operations,
        "problems": problems,
    }


def _isolation() -> dict[str, Any]:
    """What holds of the standard's default limits here, by level, as a locked child found out."""
    limits, store = ResourceLimits(gpu_memory_gb=0), ModelStore()
    levels = [level for level in SecurityLevel if level is not SecurityLevel.MAXIMUM_TRUST]
    return {level.value: Cell.of(level, limits, None, store).report().as_dict()["limits"] for level in levels}


def _torch(problems: list[str]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    try:
        import torch

        from inference_pio.ops import table
        from inference_pio.runtime.devices import computes_bfloat16
    except ImportError as error:
        problems.append(f"torch does not import: {error}")
        return {"torch": "does not import"}, []
    facts = {
        "torch": torch.__version__,
        "compute_threads": torch.get_num_threads(),
        "bfloat16_in_hardware": computes_bfloat16(),
        "gpus": [
            f"cuda:{index} {torch.cuda.get_device_name(index)}, "
            f"{torch.cuda.get_device_properties(index).total_memory / 1e9:.1f} GB"
            for index in range(torch.cuda.device_count())
        ],
    }
    return facts, [asdict(choice) for choice in table()]


def _processor() -> dict[str, Any]:
    processor = read_machine("", ()).processor
    return {
        "name": processor.name,
        "instructions": list(processor.instructions),
        "cores": processor.cores or "unknown",
        "hardware_threads": processor.threads,
        "usable_by_this_process": processor.usable,
    }


def _memory() -> dict[str, Any]:
    machine = psutil.virtual_memory()
    return {
        "installed_bytes": machine.total,
        "free_for_models_bytes": available_bytes(),
        "limited_by_a_control_group": available_bytes() < machine.available * 0.99,
        "swap_bytes": psutil.swap_memory().total,
    }


def _models() -> dict[str, Any]:
    try:
        store = ModelStore()
        return {
            "folder": str(store.home),
            "writable": is_writable(store.home),
            "complete_models": [receipt.name for receipt in store.installed()],
            "used_bytes": store.disk_usage_bytes(),
            "free_disk_bytes": free_bytes(store.home),
        }
    except (InferencePIOError, OSError) as error:
        return {"folder": f"cannot be used: {error}"}


def _downloads() -> dict[str, Any]:
    """What downloads would use. Nothing is contacted."""
    stated = [f"{name}={os.environ[name]}" for name in _HUB_SETTINGS if os.environ.get(name)]
    return {
        "hub_settings": stated or "none: the public hub",
        "hub_token": bool(os.environ.get("HF_TOKEN")),
        "pip": _has_pip(),
        "npm": shutil.which("npm") or "not found (some models come as npm packages)",
    }


def _has_pip() -> bool:
    from importlib.util import find_spec

    return find_spec("pip") is not None


def _compiler() -> str:
    asked = os.environ.get("CXX")
    found = [path for name in ((asked,) if asked else _COMPILERS) if (path := shutil.which(name))]
    return found[0] if found else "not found (needed only to build native kernels)"


def _plugins(problems: list[str]) -> Mapping[str, str]:
    try:
        found, broken = registered_plugins()
    except InferencePIOError as error:
        problems.append(f"plugins cannot be read: {error}")
        return {}
    if not found:
        problems.append("no plugin loads")
    return {
        **{plugin.manifest.name: plugin.origin for plugin in found},
        **{name: f"does not load: {reason}" for name, reason in broken.items()},
        "other architectures": bridge_line(),
    }
