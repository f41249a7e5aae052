"""From a model's name to a plugin that has planned it; nothing large is in memory so far."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from inference_pio.config import Profile
from inference_pio.errors import PluginError
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import Progress, RuntimeOptions
from inference_pio.runtime.local import LocalRuntime
from inference_pio.runtime.opened import model_store, open_model
from inference_pio.runtime.settle import Settled, settle
from inference_pio.security import ResourceLimits


@dataclass(frozen=True)
class Started:
    """`plugin` is ready for `load_model`; `name` is what the model is called."""

    name: str
    plugin: ModelPlugin
    runtime: LocalRuntime
    settled: Settled


def start(
    model: str,
    *,
    plugin: str | None,
    options: Mapping[str, Any],
    config: Mapping[str, Any],
    profile: str | Profile | None,
    tuned: bool,
    limits: ResourceLimits | None,
    progress: Progress | None,
) -> Started:
    """Find the model, choose its plugin and its options, plan its memory.

    Args:
        options, config: fields of `RuntimeOptions` and of the model's configuration that the caller named.

    Raises:
        InferencePIOError: the model cannot be found, read or run here.
    """
    store = model_store(limits)
    with ExitStack() as undo:
        opened = open_model(model, RuntimeOptions(**options), progress, store)
        undo.callback(opened.checkpoint.close)
        name, path = opened.source.name, str(opened.source.path)
        manifest = default_registry().choose(opened.raw, path, plugin)
        runtime = LocalRuntime(opened)
        made = default_registry().create(manifest.name, runtime=runtime)
        undo.callback(made.cleanup)
        settled = settle(opened, store, options, config, profile=profile, tuned=tuned, limits=limits)
        asked = made.config_class(model_path=path, model_name=name, **settled.config)
        limited = {} if limits is None else {"resource_limits": limits}
        if not made.initialize(config=asked, progress=progress, **limited, **settled.options):
            raise made.last_error or PluginError(f"{manifest.name!r} could not be initialised")
        undo.pop_all()
    return Started(name, made, runtime, settled)
