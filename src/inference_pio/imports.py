"""Objects by name, so that a list of plugins costs nothing until one is used."""

from __future__ import annotations

import importlib
from typing import Any

from inference_pio.errors import ConfigError, PluginError


def import_object(name: str) -> Any:
    """The object that "package.module:attribute" names.

    Raises:
        PluginError: the module does not import, whatever it raises, or lacks the attribute; says which and why.
        ConfigError: a variable of the environment, which it reads, is wrong.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise PluginError(f"{name}: {error}") from error
    except ConfigError:  # of a variable of the environment, not of the module
        raise
    except Exception as error:
        raise PluginError(f"{name}: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        raise PluginError(f"{name}: module {module_name} has no {attribute}")
    return getattr(module, attribute)
