"""Whether it is a plugin of others that runs a model: then it runs in a worker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference_pio.loader.gguf_header import read_header
from inference_pio.loader.regular_file import RegularFile
from inference_pio.loader.strict_json import read_json_object
from inference_pio.loader.weight_files import find_weights
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
    """What `raw_config` reads, without torch."""
    file, kind = find_weights(model)
    if kind != "gguf":
        return read_json_object((model if model.is_dir() else model.parent) / "config.json")
    with RegularFile(file) as opened:
        return read_header(opened).metadata
