"""Which device and number format a model runs in, from what the caller asked and what the machine has."""

from __future__ import annotations

import re

import torch

from inference_pio.errors import ConfigError, ResourceError

_DTYPES = {
    "float32": torch.float32,
    "float": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "half": torch.float16,
}


_KV_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve_device(asked: str) -> torch.device:
    """ "cpu", "cuda", "cuda:N" or "auto" (the first GPU if there is one).

    Raises:
        ConfigError: another word.
        ResourceError: this machine has no such device.
    """
    if not isinstance(asked, str) or not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", asked):
        raise ConfigError(f"device must be cpu, cuda, cuda:N or auto, got {asked!r}")
    if asked == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(asked)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ResourceError(
                f"device {asked} is not here: torch sees {count} CUDA devices; use cpu or auto"
            )
    return device


def resolve_dtype(asked: str | torch.dtype, device: torch.device) -> torch.dtype:
    """A torch dtype or its name; "auto" is bfloat16 where the device computes in it, else float32.

    Raises:
        ConfigError: not one of float32, bfloat16, float16, auto.
    """
    if asked == "auto":
        return torch.bfloat16 if device.type == "cuda" or computes_bfloat16() else torch.float32
    dtype = _DTYPES.get(asked.removeprefix("torch.")) if isinstance(asked, str) else asked
    if dtype is None or dtype not in _DTYPES.values():
        raise ConfigError(f"dtype must be one of auto, {', '.join(_DTYPES)}, got {asked!r}")
    return dtype


def resolve_kv_dtype(asked: str, dtype: torch.dtype, device: torch.device, *, packed: bool) -> torch.dtype:
    """What caches hold without compression: "float32" or "bfloat16" where one is asked for, else what activations are
    in; where weights are packed bfloat16, since activations are float32 then, which keys and values need not be.

    Raises:
        ConfigError: keys and values of that dtype cannot be read beside these activations.
    """
    kv_dtype = _KV_DTYPES.get(asked)
    if kv_dtype is None:
        return torch.bfloat16 if packed else dtype
    if kv_dtype != dtype and (device.type != "cpu" or dtype != torch.float32):
        activations = str(dtype).removeprefix("torch.")
        raise ConfigError(
            f"kv_cache_dtype {asked} goes with float32 activations on a CPU, not with {activations} on {device}: use "
            f"kv_cache_dtype auto, or dtype float32 on device cpu"
        )
    return kv_dtype


def computes_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware."""
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
