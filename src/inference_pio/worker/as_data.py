"""What a caller asks for, as data that crosses to a worker, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from inference_pio.sampling_params import SamplingParams

if TYPE_CHECKING:
    from inference_pio.config import BaseModelConfig
    from inference_pio.plugin.runtime import RuntimeOptions
    from inference_pio.security import ResourceLimits

_PLAIN = (str, int, float, bool, type(None))
_NAMES = ("model_path", "model_name")


def options_as_data(config: BaseModelConfig) -> dict[str, Any]:
    """Of a configuration what its caller decided: every option, and what of the architecture is not as the class has
    it. Dtypes are named.
    """
    architecture = config.architecture_fields()
    plain = type(config)()
    found = {}
    for each in fields(config):
        value = getattr(config, each.name)
        if each.name in _NAMES or (each.name in architecture and value == getattr(plain, each.name)):
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


def with_figures(config: BaseModelConfig, told: dict[str, Any]) -> BaseModelConfig:
    """A caller's configuration with the numbers and words of the checkpoint, as its worker read them."""
    known = {each.name for each in fields(config)}
    made: dict[str, Any] = {name: getattr(config, name) for name in known}
    made |= {name: value for name, value in told.items() if name in known and isinstance(value, _PLAIN)}
    return type(config)(**made)


def limits_as_data(limits: ResourceLimits | None) -> tuple[float | None, ...]:
    """The last fields of Load."""
    if limits is None:
        return (None,) * 4
    return limits.memory_gb, limits.cpu_percent, limits.disk_space_gb, limits.gpu_memory_gb


def params_as_data(params: SamplingParams) -> dict[str, Any]:
    """As `SamplingParams` takes it."""
    plain = {each.name: getattr(params, each.name) for each in fields(params) if each.init}
    bias = plain["logit_bias"]
    return {
        **plain,
        "stop": list(params.stop_strings),
        "stop_token_ids": list(params.stop_token_ids),
        "logit_bias": None if bias is None else dict(bias),
    }
