"""This machine's facts and measured rates, kept in the model cache: `inference-pio probe` prints them."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import torch

from inference_pio.loader.partial import write_atomically
from inference_pio.loader.store import ModelStore, existing
from inference_pio.metrics import rates
from inference_pio.metrics.hardware import Gpu, Machine, Reasons, read_machine, told
from inference_pio.metrics.rates import Rates
from inference_pio.ops import native

_VERSION = 1
# A smaller file is read before a clock can tell how fast.
_LEAST_FILE_BYTES = 2**25
_WEIGHTS = (".gguf", ".safetensors")


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `hardware.json` holds: rates with one and with all threads, and of the disk in bytes per second.

    load  processes that ran or waited to, on average over the minute before; None where the system does not say
    """

    version: int
    fingerprint: str
    date: str
    rates: tuple[Rates, ...]
    disk_read_bytes: float | None
    load: float | None
    unknown: Reasons


class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the model cache lies; `read_bytes` per second as measured, None where it could not be."""

    folder: str
    total_bytes: int
    free_bytes: int
    read_bytes: float | None


class Hardware(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`unknown` maps a fact that is None or empty to the reason; `measured_on` and `load` are those of the rates."""

    fingerprint: str
    machine: Machine
    disk: Disk
    rates: tuple[Rates, ...]
    measured_on: str
    load: float | None
    unknown: Reasons


def this_machine() -> Machine:
    """Facts alone, in milliseconds."""
    return read_machine(native.ISA, _gpus())


def hardware_specs() -> dict[str, float | int | str]:
    """This machine as `DynamicConfigManager.get_optimal_config` takes it: `gpu_memory_gb`, `cpu_cores`, …"""
    return this_machine().specs


def probe(store: ModelStore, *, refresh: bool = False) -> Hardware:
    """Facts as they are now; rates as they were measured, which takes a few seconds once.

    Args:
        refresh: measure again.
    """
    machine = this_machine()
    measured = None if refresh else _stored(store, machine)
    unknown = dict(machine.unknown)
    if measured is None:
        measured = _measure(store, machine)
        told(unknown, "stored", lambda: _keep(store, measured))
    usage = shutil.disk_usage(existing(store.home))
    return Hardware(
        fingerprint=machine.fingerprint,
        machine=machine,
        disk=Disk(str(store.home), usage.total, usage.free, measured.disk_read_bytes),
        rates=measured.rates,
        measured_on=measured.date,
        load=measured.load,
        unknown=unknown | measured.unknown,
    )


def known_rates(store: ModelStore, threads: int) -> Rates | None:
    """Rates with so many threads as they were measured on this machine; None where nobody has. Measures nothing."""
    measured = _stored(store, this_machine())
    return next((one for one in measured.rates if one.threads == threads), None) if measured else None


def _gpus() -> tuple[Gpu, ...]:
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return tuple(Gpu(gpu.name, gpu.total_memory) for gpu in found)


def _measure(store: ModelStore, machine: Machine) -> Measured:
    unknown: Reasons = {}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    cache = rates.last_level_cache(machine)
    counts = sorted({1, machine.processor.usable})
    measured = tuple(rates.measure(count, cache) for count in counts)
    file = told(unknown, "disk.read_bytes", lambda: _largest_file(store))
    disk = None
    if file is not None:
        disk = told(unknown, "disk.read_bytes", lambda: rates.disk_read_bytes(file))
    else:
        unknown.setdefault("disk.read_bytes", f"no model of 34 MB or more under {store.home} to read from")
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Measured(_VERSION, machine.fingerprint, date, measured, disk, load, unknown)


def _largest_file(store: ModelStore) -> Path | None:
    sizes = {
        path: path.stat().st_size for path in (store.home / "models").rglob("*") if path.suffix in _WEIGHTS
    }
    large = max(sizes, key=lambda path: sizes[path], default=None)
    return large if large is not None and sizes[large] >= _LEAST_FILE_BYTES else None


def _file(store: ModelStore) -> Path:
    return store.home / "hardware.json"


def _stored(store: ModelStore, machine: Machine) -> Measured | None:
    """None where nothing was measured yet, or elsewhere, or in another version's form: it is measured again."""
    try:
        measured = msgspec.json.decode(_file(store).read_bytes(), type=Measured)
    except (OSError, msgspec.DecodeError):
        return None
    same = measured.version == _VERSION and measured.fingerprint == machine.fingerprint
    return measured if same else None


def _keep(store: ModelStore, measured: Measured) -> None:
    store.home.mkdir(parents=True, exist_ok=True)
    write_atomically(_file(store), msgspec.json.format(msgspec.json.encode(measured)))
