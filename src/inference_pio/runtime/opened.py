"""A model that was found and whose headers were read, or of which there is a description; no weights are in memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from inference_pio.errors import UnavailableError
from inference_pio.loader import catalogue
from inference_pio.loader.checkpoint import Checkpoint, CheckpointHeader, open_checkpoint
from inference_pio.loader.described import STORED
from inference_pio.loader.known import find_known
from inference_pio.loader.raw_config import raw_config
from inference_pio.loader.resolve import ModelSource, configuration_alone, resolve
from inference_pio.loader.store import ModelStore
from inference_pio.loader.strict_json import read_json_object
from inference_pio.plugin.runtime import Progress, RuntimeOptions
from inference_pio.security import ResourceLimits
from inference_pio.security.held import limits_here


@dataclass(frozen=True)
class OpenedModel:
    """`raw` is what the checkpoint says about its architecture: config.json, or GGUF metadata."""

    source: ModelSource
    checkpoint: Checkpoint
    raw: Mapping[str, Any]

    @property
    def header(self) -> CheckpointHeader:
        """Names, shapes and kinds of its tensors."""
        return self.checkpoint


@dataclass(frozen=True)
class DescribedModel:
    """A model of which no file is at hand but its configuration.

    header  names, shapes and kinds of its tensors; None: what the model needs, in the type that `raw` states
    """

    source: ModelSource
    raw: Mapping[str, Any]
    header: CheckpointHeader | None

    @property
    def stored(self) -> str:
        """The type of the weights, as config.json names it; published models are bfloat16 where it is silent."""
        stated = self.raw.get("dtype", self.raw.get("torch_dtype"))
        return stated if isinstance(stated, str) and stated in STORED else "bfloat16"


def describe_model(model: str, store: ModelStore) -> DescribedModel | None:
    """`model` by its configuration alone, where that is all there is: a config.json, a folder that holds one and no
    weights, a name whose configuration is known and whose files are not on this machine. None: there is more to open.
    """
    if (config := configuration_alone(model)) is not None:
        name = config.parent.name if config.name == "config.json" else config.stem
        return DescribedModel(ModelSource(name, config, "file"), read_json_object(config), None)
    entry = catalogue.find(model)
    known = find_known(entry.name if entry is not None else model)
    if known is None or _is_here(model, store):
        return None
    return DescribedModel(ModelSource(known.name, known.path, "known", entry), known.raw(), known.header())


def _is_here(name: str, store: ModelStore) -> bool:
    try:
        resolve(name, store=store, download=False)
    except UnavailableError:
        return False
    return True


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
    limits = limits or limits_here()
    return ModelStore(limit_bytes=int(limits.disk_space_gb * 1e9) if limits is not None else None)
