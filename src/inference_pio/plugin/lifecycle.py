"""The standard's plugin lifecycle."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from inference_pio.errors import UsageError
from inference_pio.plugin.base import ModelPlugin
from inference_pio.security import ResourceLimits, SecurityLevel


def initialize_plugin(plugin: ModelPlugin, **kwargs: Any) -> bool:
    """Validate the configuration, set limits, initialise, load.

    Keywords: `config`, `security_level` (MEDIUM_TRUST), `resource_limits` (`ResourceLimits.default()`), and whatever
    `plugin.initialize` takes.

    Returns:
        False, with `plugin.last_error` set, where this machine or a limit does not allow the model.

    Raises:
        ValueError: the plugin does not support the configuration.
    """
    config = kwargs.get("config")
    if config and not plugin.supports_config(config):
        raise UsageError(
            f"Plugin does not support provided configuration: {plugin.manifest.name!r} takes "
            f"{plugin.config_class.__name__}, got {type(config).__name__}"
        )
    security = {"security_level": SecurityLevel.MEDIUM_TRUST, "resource_limits": ResourceLimits.default()}
    success = plugin.initialize(**{**security, **kwargs})
    if success:
        plugin.load_model(config=config)
    return success


def manage_resources(plugin: ModelPlugin, operation: str, **kwargs: Any) -> Any:
    """The standard's resource management: "cleanup", "monitor" or "optimize".

    Returns:
        cleanup: what `plugin.cleanup()` returns. monitor: measured memory, compute and disk use, the
        standard's `PerformanceMetrics` since the model was loaded, and the state of each limit. optimize: what was
        done, with figures before and after, as `plugin.apply_resource_optimizations` does it: a model that
        `initialize_plugin` refused can be loaded afterwards.
    """
    if operation == "cleanup":
        return plugin.cleanup()
    if operation == "monitor":
        return {
            "memory_usage": plugin.get_memory_stats(),
            "compute_usage": plugin.get_compute_stats(),
            "disk_usage": plugin.get_disk_stats(),
            "performance": asdict(plugin.get_performance_metrics()),
            "limits": plugin.get_security_report(),
        }
    if operation == "optimize":
        return plugin.apply_resource_optimizations(**kwargs)
    raise UsageError(f"unknown operation {operation!r}; there are cleanup, monitor and optimize")
