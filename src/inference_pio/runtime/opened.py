"""A model that was found and whose headers were read; nothing of its weights is in memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from inference_pio.loader.checkpoint import Checkpoint, open_checkpoint
from inference_pio.loader.raw_config import raw_config
from inference_pio.loader.resolve import ModelSource, resolve
from inference_pio.loader.store import ModelStore
from inference_pio.plugin.runtime import Progress, RuntimeOptions
from inference_pio.security import ResourceLimits


@dataclass(frozen=True)
class OpenedModel:
    """`raw` is what the checkpoint says about its architecture: config.json, or GGUF metadata."""

    source: ModelSource
    checkpoint: Checkpoint
    raw: Mapping[str, Any]


def open_model(
    model: str, options: RuntimeOptions, progress: Progress | None = None, store: ModelStore | None = None
) -> OpenedModel:
    """Find `model` (fetching it if `options.download`), open its files, read its headers."""
    source = resolve(
        model,
        store=store,
        progress=progress,
        download=options.download,
        accept_licence=options.accept_licence,
    )
    with ExitStack() as undo:
        checkpoint = undo.enter_context(open_checkpoint(source.path))
        raw = raw_config(checkpoint, source.path)
        undo.pop_all()
    return OpenedModel(source, checkpoint, raw)


def model_store(limits: ResourceLimits | None) -> ModelStore:
    """The cache of downloaded models, bounded by `disk_space_gb` where limits are given."""
    return ModelStore(limit_bytes=int(limits.disk_space_gb * 1e9) if limits is not None else None)
