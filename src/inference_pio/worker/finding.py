"""A model that a worker is to run: its files, the plugin of others that runs it, and where that will live."""

from __future__ import annotations

from dataclasses import dataclass

from inference_pio.loader.headers import check_headers
from inference_pio.loader.rate import Bucket
from inference_pio.loader.resolve import resolve
from inference_pio.loader.store import ModelStore
from inference_pio.packages.choice import external_for
from inference_pio.plugin.runtime import Progress, RuntimeOptions
from inference_pio.security.levels import ResourceLimits, SecurityLevel
from inference_pio.worker.as_data import load_within, writers
from inference_pio.worker.booting import Cell
from inference_pio.worker.messages import Load


@dataclass(frozen=True)
class Found:
    name: str
    cell: Cell
    load: Load


def find(
    asked: Load,
    options: RuntimeOptions,
    level: SecurityLevel | None,
    limits: ResourceLimits | None,
    progress: Progress | None,
) -> Found:
    """Its headers are read, and nothing of it runs so far.

    Args:
        level: None is the most for a built-in plugin, and the least for one of others.

    Raises:
        InferencePIOError: the model cannot be found or read, or may not be fetched.
    """
    store = ModelStore(limit_bytes=None if limits is None else int(limits.disk_space_gb * 1e9))
    source = resolve(
        asked.model,
        store=store,
        progress=progress,
        download=options.download and (limits is None or limits.network_bandwidth_mbps > 0),
        accept_licence=options.accept_licence,
        bucket=Bucket.of(limits),
    )
    check_headers(source.path)
    external = external_for(source.path, asked.plugin)
    level = level or (SecurityLevel.MAXIMUM_TRUST if external is None else SecurityLevel.LOW_TRUST)
    path = source.path.absolute()  # a worker stands in another folder
    cell = Cell.of(level, limits, path, store, writers(asked.config, options), external)
    return Found(source.name, cell, load_within(asked, source.name, path, external, limits))
