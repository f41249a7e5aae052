"""Tiny models under techniques."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from inference_pio import create_plugin
from inference_pio.models.llama.plugin import LlamaPlugin


@contextmanager
def loaded(path: Path, *, fields: dict[str, Any] | None = None, **options: Any) -> Iterator[LlamaPlugin]:
    """A plugin with its model, in float32: `fields` of the configuration, `options` of the engine."""
    config = LlamaPlugin.config_class(model_path=str(path), **{"torch_dtype": "float32", **(fields or {})})
    plugin = create_plugin("llama", config=config)
    assert isinstance(plugin, LlamaPlugin)
    usual: dict[str, Any] = {"kv_cache_memory_gb": 0.02, "block_size": 16}
    assert plugin.initialize(config=config, **{**usual, **options}), plugin.last_error
    try:
        plugin.load_model()
        yield plugin
    finally:
        plugin.cleanup()


def model_of(plugin: LlamaPlugin) -> nn.Module:
    return plugin.load_model()
