"""What `inference-pio tune` found best for a checkpoint on a machine: kept in the model cache, used from then on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import torch

from inference_pio import __version__
from inference_pio.errors import UsageError
from inference_pio.loader.partial import write_atomically
from inference_pio.loader.store import ModelStore
from inference_pio.plugin.runtime import RuntimeOptions

_VERSION = 1
TUNABLE = ("threads", "max_num_batched_tokens", "block_size", "kv_cache_dtype", "speculation")


class Tuned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One result.

    profile     for what kind of work: "latency", "throughput"
    dtype, device, quantize, quality  what the model was loaded with: it holds for nothing else
    options     all that are tuned; none where the defaults are best
    ratio       time with the defaults over time with `options`; `low` to `high` holds its median with `confidence`
    work        on which that was measured
    """

    version: int
    inference_pio: str
    fingerprint: str
    checkpoint: str
    model: str
    profile: str
    dtype: str
    device: str
    quantize: str | None
    quality: str
    date: str
    options: dict[str, int | str]
    ratio: float
    low: float
    high: float
    confidence: float
    work: str

    @classmethod
    def now(cls, **facts: object) -> Tuned:
        """A result of this version."""
        return msgspec.convert({"version": _VERSION, "inference_pio": __version__, **facts}, cls)


class Context(msgspec.Struct, frozen=True):
    """What a result has to fit: where, of what, and how the model is loaded."""

    fingerprint: str
    checkpoint: str
    dtype: str
    device: str
    quantize: str | None
    quality: str


def in_words(options: Mapping[str, Any], profile: Mapping[str, Any] = MappingProxyType({})) -> str:
    """`threads 1, block_size 16`: options that are not what they would be here without the result.

    Args:
        profile: options that stand in place of the defaults.
    """
    usual = {"threads": torch.get_num_threads(), **profile}
    return ", ".join(
        f"{name} {value}"
        for name, value in options.items()
        if value != usual.get(name, getattr(RuntimeOptions, name))
    )


def find_tuned(store: ModelStore, context: Context, profile: str | None) -> tuple[Tuned | None, str]:
    """(the result that fits, "") or (None, why one that is stored does not count; "" where there is none).

    Args:
        profile: None takes the newest, whatever it is for.
    """
    file = _file(store, context.fingerprint, context.checkpoint)
    if not file.is_file():
        others = sorted((store.home / "tuned").glob(f"*/{file.name}"))
        return (
            None,
            "what is stored was measured on another machine, or on what this one was" if others else "",
        )
    try:
        stored = msgspec.json.decode(file.read_bytes(), type=list[Tuned])
    except (OSError, msgspec.DecodeError) as error:
        return None, f"{file}: {error}"
    fitting, reason = [], ""
    wanted = [one for one in stored if profile in (None, one.profile)]
    for one in sorted(wanted, key=lambda one: one.date):
        why = _misfit(one, context)
        if not why:
            fitting.append(one)
        reason = why or reason
    return (fitting[-1], "") if fitting else (None, reason)


def keep_tuned(store: ModelStore, tuned: Tuned) -> Path:
    """Store a result in place of an earlier one for the same; the file it lies in. Whole, or not at all."""
    file = _file(store, tuned.fingerprint, tuned.checkpoint)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        stored = msgspec.json.decode(file.read_bytes(), type=list[Tuned])
    except (OSError, msgspec.DecodeError):
        stored = []  # of another version's form: of no use any more
    others = [one for one in stored if _purpose(one) != _purpose(tuned)]
    write_atomically(file, msgspec.json.format(msgspec.json.encode([*others, tuned])))
    return file


def _purpose(one: Tuned) -> tuple[str, str, str, str | None, str]:
    return one.profile, one.dtype, one.device, one.quantize, one.quality


def _misfit(one: Tuned, context: Context) -> str:
    """Why a stored result does not count here; empty where it does."""
    if one.version != _VERSION or one.inference_pio != __version__:
        return f"what was measured on {one.date[:10]} is of inference-pio {one.inference_pio}, this is {__version__}"
    if one.fingerprint != context.fingerprint:
        return "it was measured on another machine"
    if one.checkpoint != context.checkpoint:
        return "it was measured with another checkpoint"
    loaded = ("dtype", "device", "quantize", "quality")
    if any(getattr(one, name) != getattr(context, name) for name in loaded):
        return f"it was measured with {', '.join(f'{name} {getattr(one, name)}' for name in loaded)}"
    return _invalid(one.options)


def _invalid(options: Mapping[str, int | str]) -> str:
    foreign = sorted(set(options) - set(TUNABLE))
    if foreign:
        return f"it sets {', '.join(foreign)}, which is not tuned"
    try:
        RuntimeOptions(**options)  # type: ignore[arg-type]
    except UsageError as error:
        return str(error)
    return ""


def _file(store: ModelStore, fingerprint: str, checkpoint: str) -> Path:
    return store.home / "tuned" / fingerprint / f"{checkpoint}.json"
