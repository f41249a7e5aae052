"""The dynamic configuration with what the registered plugins bring to it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from inference_pio.config.dynamic import DynamicConfigManager
from inference_pio.plugin.registry import Registry, default_registry

if TYPE_CHECKING:
    from inference_pio.config import BaseModelConfig


def default_config_manager(registry: Registry | None = None) -> DynamicConfigManager:
    """A new manager with the configuration class of every plugin as a template, and the usual profiles.

    A plugin, and torch with it, is imported when its template is asked for.
    """
    plugins = registry or default_registry()
    manager = DynamicConfigManager()
    for name in plugins.names():
        manager.register_config_template(name, partial(_config_class, plugins, name))
    return manager


def _config_class(plugins: Registry, name: str) -> type[BaseModelConfig]:
    return plugins.plugin_class(name).config_class
