"""What a caller asks for, as data that crosses to a worker, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from inference_pio.plugin.registry import External
from inference_pio.sampling_params import SamplingParams
from inference_pio.security.levels import ResourceLimits
from inference_pio.worker.messages import Load

if TYPE_CHECKING:
    from inference_pio.config import BaseModelConfig

_PLAIN = (str, int, float, bool, type(None))
_NAMES = ("model_path", "model_name")


def load_within(
    asked: Load, name: str, path: Path, external: External | None, limits: ResourceLimits | None
) -> Load:
    """The same of the files that were found, by the plugin that was, within limits."""
    return msgspec.structs.replace(
        asked,
        model=str(path),
        plugin=asked.plugin if external is None else external.name,
        external=external,
        config={"model_name": name, **asked.config},
        memory_gb=None if limits is None else limits.memory_gb,
        cpu_percent=None if limits is None else limits.cpu_percent,
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
        if each.name in _NAMES or (each.name in architecture and value == getattr(plain, each.name)):
            continue
        found[each.name] = value if isinstance(value, _PLAIN) else str(value)
    return found


def with_figures(config: BaseModelConfig, told: dict[str, Any]) -> BaseModelConfig:
    """A caller's configuration with the numbers and words of the checkpoint, as its worker read them."""
    known = {each.name for each in fields(config)}
    made: dict[str, Any] = {name: getattr(config, name) for name in known}
    made |= {name: value for name, value in told.items() if name in known and isinstance(value, _PLAIN)}
    return type(config)(**made)


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
