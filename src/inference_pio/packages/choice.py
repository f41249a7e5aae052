"""Whether it is a plugin of others that runs a model: then it runs in a worker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference_pio.loader.checkpoint import open_checkpoint
from inference_pio.loader.raw_config import raw_config, read_json_object
from inference_pio.plugin.registry import External, default_registry


def external_for(model: Path, asked: str | None) -> External | None:
    """The one that runs the model at a path, by its name where one is asked for; None: a built-in one does.

    Raises:
        PluginError: no plugin is called so, or two claim the model.
        ModelFileError: the model's files do not say what it is.
        UnsupportedArchitecture: no plugin claims it.
    """
    registry = default_registry()
    if asked is not None:
        return registry.get(asked).external
    if not registry.has_external:
        return None
    return registry.get(registry.for_checkpoint(_raw(model), str(model)).name).external


def _raw(model: Path) -> Mapping[str, Any]:
    if model.is_dir() and (model / "config.json").is_file():  # nothing of weights has to be opened
        return read_json_object(model / "config.json")
    checkpoint = open_checkpoint(model)
    try:
        return raw_config(checkpoint, model)
    finally:
        checkpoint.close()
