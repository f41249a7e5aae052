"""Which options a model runs with: the caller's, else those that were tuned, else the profile's, else the defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inference_pio.config.profiles import Profile, find_profile
from inference_pio.loader.identity import checkpoint_identity
from inference_pio.loader.store import ModelStore
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.devices import resolve_device
from inference_pio.runtime.opened import OpenedModel
from inference_pio.runtime.probe import this_machine
from inference_pio.runtime.tuned import Context, Tuned, find_tuned, in_words
from inference_pio.security import ResourceLimits
from inference_pio.security.report import threads_for

THREADS_VARIABLE = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Settled:
    """
    options  keywords of `initialize`
    config   fields of the model's configuration
    tuned    in use, where any of its options is
    note     what to tell about it, in one line; empty where there is no result, or where it changes nothing
    """

    options: dict[str, Any]
    config: dict[str, Any]
    tuned: Tuned | None
    note: str


def settle(
    opened: OpenedModel,
    store: ModelStore,
    options: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    profile: str | Profile | None,
    tuned: bool,
    limits: ResourceLimits | None,
) -> Settled:
    """
    Args:
        options, config: what the caller named, and nothing else: a default that is named stands.
        tuned: use a stored result of `inference-pio tune`.

    Raises:
        UsageError: there is no such profile.
    """
    chosen = find_profile(profile) if isinstance(profile, str) else profile or Profile("")
    base = {**chosen.engine, **options}
    fields = {"torch_dtype": "auto", "device": "auto", **flags_of(base), **chosen.config, **config}
    # Without any result there is no need to know machine and checkpoint, which takes some milliseconds.
    if not tuned or not (store.home / "tuned").is_dir():
        return Settled(base, fields, None, "")
    context = context_of(opened, fields, base)
    found, why = find_tuned(store, context, chosen.name or None)
    if found is None:
        return Settled(base, fields, None, f"not tuned: {why}; inference-pio tune measures it" if why else "")
    used = _usable(found.options, options, limits)
    words = in_words(used, base)
    return Settled(
        {**base, **used},
        fields,
        found if used else None,
        f"tuned on {found.date[:10]}: {words}" if words else "",
    )


def flags_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Flags of the configuration that options switch on: who asks for ranks wants them to be used."""
    return {"use_tensor_parallelism": True} if options.get("tensor_parallel_size", 1) > 1 else {}


def context_of(opened: OpenedModel, config: Mapping[str, Any], options: Mapping[str, Any]) -> Context:
    """What a stored result has to fit."""
    return Context(
        this_machine().fingerprint,
        checkpoint_identity(opened.checkpoint),
        str(config["torch_dtype"]).removeprefix("torch."),
        str(resolve_device(config["device"])),
        options.get("quantize"),
        options.get("quality", RuntimeOptions.quality),
    )


def _usable(
    found: Mapping[str, Any], named: Mapping[str, Any], limits: ResourceLimits | None
) -> dict[str, Any]:
    """Of the options found, those that the caller leaves open, by an environment variable too, within the limits."""
    used = {name: value for name, value in found.items() if name not in named}
    if "threads" in used and THREADS_VARIABLE in os.environ:
        del used["threads"]
    elif "threads" in used and limits is not None:
        used["threads"] = min(used["threads"], threads_for(limits.cpu_percent))
    if named.get("enable") or named.get("disable"):
        used.pop("kv_cache_dtype", None)  # it may be one of the techniques that the caller decides about
    return used
