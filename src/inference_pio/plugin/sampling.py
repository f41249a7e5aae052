"""A configuration's generation fields as sampling parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from inference_pio.errors import SamplingError
from inference_pio.sampling_params import SamplingParams

if TYPE_CHECKING:
    from inference_pio.config import BaseModelConfig

_NAMES = frozenset(field.name for field in fields(SamplingParams) if field.init)


def sampling_params_of(
    config: BaseModelConfig, max_new_tokens: int, overrides: Mapping[str, Any]
) -> SamplingParams:
    """`temperature`, `top_p`, `top_k`, `repetition_penalty` and `do_sample` of `config`, then `overrides`.

    Raises:
        SamplingError: an override is not a field of `SamplingParams` (or `do_sample`), or has a wrong value.
    """
    unknown = sorted(set(overrides) - _NAMES - {"do_sample"})
    if unknown:
        raise SamplingError(
            f"unknown generation options: {', '.join(unknown)}; known: {', '.join(sorted(_NAMES))}"
        )
    values: dict[str, Any] = {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k,
        "repetition_penalty": config.repetition_penalty,
        "max_tokens": max_new_tokens,
    }
    values.update({name: value for name, value in overrides.items() if name != "do_sample"})
    do_sample = overrides.get("do_sample", config.do_sample)
    if not do_sample and "temperature" not in overrides:
        values["temperature"] = 0.0
    return SamplingParams(**values)
