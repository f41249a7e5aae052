"""The memory plan of a model that nobody means to load."""

from __future__ import annotations

from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import Progress, RuntimeOptions
from inference_pio.runtime.opened import model_store, open_model
from inference_pio.runtime.prepared import Prepared, prepare_model
from inference_pio.security import ResourceLimits


def plan_only(
    model: str,
    dtype: str,
    device: str,
    options: RuntimeOptions,
    limits: ResourceLimits | None,
    progress: Progress | None,
    plugin_name: str | None = None,
) -> Prepared:
    """What `LLM` would do, up to the plan; unlike there a plan that does not fit is no error. The files are closed."""
    opened = open_model(model, options, progress, model_store(limits))
    try:
        path = str(opened.source.path)
        registry = default_registry()
        plugin = registry.create(registry.choose(opened.raw, path, plugin_name).name)
        config = plugin.config_class(
            model_path=path, model_name=opened.source.name, device=device, torch_dtype=dtype
        )
        return prepare_model(plugin, config, options, limits, progress, opened)
    finally:
        opened.checkpoint.close()
