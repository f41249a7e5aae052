"""What a caller asks for, as data that crosses to a worker, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from inference_pio.errors import PluginError
from inference_pio.plugin.registry import External
from inference_pio.sampling_params import SamplingParams
from inference_pio.security.levels import ResourceLimits
from inference_pio.worker.messages import Load, Plain

if TYPE_CHECKING:
    from inference_pio.config import BaseModelConfig
    from inference_pio.plugin.runtime import RuntimeOptions
    from inference_pio.security import ResourceLimits

_PLAIN = (str, int, float, bool, type(None))
_KINDS: Mapping[str, Any] = {"word": str, "switch": bool, "number": (int, float)}  # a switch is a number too
_MOST_SHOWN = 60
_LIMITS = ("memory_gb", "cpu_percent", "disk_space_gb", "gpu_memory_gb")  # that a worker plans within


def load_within(
    asked: Load, name: str, path: Path, external: External | None, limits: ResourceLimits | None
) -> Load:
    """The same of the files that were found, by the plugin that was, within limits."""
    return msgspec.structs.replace(
        asked,
        model=str(path),
        plugin=asked.plugin if external is None else external.name,
        external=external,
        config={**asked.config, "model_name": asked.config.get("model_name") or name},
        **({} if limits is None else {name: getattr(limits, name) for name in _LIMITS}),
    )


def options_as_data(config: BaseModelConfig) -> dict[str, Any]:
    """Of a configuration what its caller decided: every option, and what of the architecture is not as the class has
    it. Dtypes are named.
    """
    architecture = config.architecture_fields()
    plain = type(config)()
    found = {}
    for each in fields(config):
        value = getattr(config, each.name)
        if each.name == "model_path" or (each.name in architecture and value == getattr(plain, each.name)):
            continue
        found[each.name] = value if isinstance(value, _PLAIN) else str(value)
    return found


def writers(config: Mapping[str, Any], options: RuntimeOptions) -> list[str]:
    """What was asked for that needs files of its own, in words."""
    asked = {
        "prefix_cache_disk_gb": options.prefix_cache_disk_gb > 0,
        "resident_weights_gb": options.resident_weights_gb is not None,
        "experts disk": options.experts == "disk",
        "device_map disk": config.get("device_map") == "disk",
    }
    return [name for name, wanted in asked.items() if wanted]


def with_figures(config: BaseModelConfig, told: Mapping[str, Plain]) -> BaseModelConfig:
    """A caller's configuration with the numbers and words of the checkpoint, as its worker read them.

    Raises:
        PluginError: one is of another kind than here.
    """
    made: dict[str, Any] = {each.name: getattr(config, each.name) for each in fields(config)}
    for name, value in told.items():
        if name not in made:
            continue
        if (kind := _kind(made[name])) and _kind(value) not in (kind, ""):
            raise PluginError(f"the worker says {str(value)[:_MOST_SHOWN]!r} for {name}, which is no {kind}")
        made[name] = value
    return type(config)(**made)


def _kind(value: object) -> str:
    """Empty: of any kind."""
    return next((name for name, kind in _KINDS.items() if isinstance(value, kind)), "")


def params_as_data(params: SamplingParams) -> dict[str, Any]:
    """As `SamplingParams` takes it."""
    plain = {each.name: getattr(params, each.name) for each in fields(params) if each.init}
    bias = plain["logit_bias"]
    data = {
        **plain,
        "stop": list(params.stop_strings),
        "stop_token_ids": list(params.stop_token_ids),
        "logit_bias": None if bias is None else dict(bias),
    }
    return {name: exact(value) for name, value in data.items()}


def exact(value: Any) -> Any:
    """The same in Python's own types, which alone can be sent, whatever a class derived from them does."""
    if isinstance(value, Mapping):
        return {exact(key): exact(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [exact(each) for each in value]
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__pos__(value)
    return float.__pos__(value) if isinstance(value, float) else value
