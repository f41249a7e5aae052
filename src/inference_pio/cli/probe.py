"""`inference-pio probe`: what this machine is, and what it can do at best, measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from inference_pio.cli.options import AsJson
from inference_pio.cli.session import importing
from inference_pio.cli.tables import print_facts, print_json, print_table
from inference_pio.cli.text import size

if TYPE_CHECKING:
    from inference_pio.metrics.hardware import Memory, Processor
    from inference_pio.runtime.probe import Hardware

_BUSY = 0.5  # processes per processor


def probe(
    refresh: Annotated[bool, typer.Option("--refresh", help="Measure again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show this machine's processors, caches, memory, disk and GPUs, and its measured rates.

    Rates are measured once, in a few seconds, and kept in the model cache.
    """
    with importing():
        import msgspec

        from inference_pio.loader.store import ModelStore
        from inference_pio.runtime.probe import probe as measured
    found = measured(ModelStore(), refresh=refresh)
    if as_json:
        print_json({**msgspec.to_builtins(found), "specs": found.machine.specs})
    else:
        _show(found)


def _show(found: Hardware) -> None:
    print_facts(_processor(found.machine.processor), "processor")
    print()
    print_facts(_memory(found.machine.memory), "memory")
    print()
    speed = "" if found.disk.read_bytes is None else f", read at {size(found.disk.read_bytes)}/s"
    disk = f"{size(found.disk.free_bytes)} free of {size(found.disk.total_bytes)}{speed}"
    gpus = [
        (f"GPU {index}", f"{gpu.name}, {size(gpu.memory_bytes)}")
        for index, gpu in enumerate(found.machine.gpus)
    ]
    print_facts([(found.disk.folder, disk), *(gpus or [("GPUs", "none")])], "models' disk, and GPUs")
    print()
    print_table(
        ["threads", "memory is read at", "int8 products", "bfloat16 products"],
        [
            (
                str(one.threads),
                f"{size(one.read_bytes)}/s",
                f"{one.int8_operations / 1e9:,.0f} G operations/s",
                f"{one.bfloat16_operations / 1e9:,.0f} G operations/s",
            )
            for one in found.rates
        ],
        right=["threads", "memory is read at", "int8 products", "bfloat16 products"],
    )
    print(f"measured {found.measured_on}; machine {found.fingerprint}")
    if found.load is not None and found.load > _BUSY * found.machine.processor.usable:
        print(f"the machine was busy then (load {found.load:.1f}): --refresh measures again")
    for name, reason in found.unknown.items():
        print(f"unknown: {name}: {reason}")


def _processor(one: Processor) -> list[tuple[str, str]]:
    quota = "no quota" if one.quota is None else f"a quota of {one.quota:g} processors"
    return [
        ("name", f"{one.name} ({one.architecture})"),
        ("cores", f"{one.cores or 'unknown'}, of {one.threads} threads"),
        ("usable here", f"{one.usable} threads: {one.affinity} processors, {quota}"),
        ("instructions", ", ".join(one.instructions) or "unknown"),
        ("native kernels use", one.kernels or "none: they are not built"),
        *(
            (f"level {cache.level} cache", f"{size(cache.bytes)}, {cache.kind}, for {cache.shared_by}")
            for cache in one.caches
        ),
    ]


def _memory(one: Memory) -> list[tuple[str, str]]:
    limit = "none" if one.limit_bytes is None else size(one.limit_bytes)
    return [
        ("installed", size(one.installed_bytes)),
        ("free for models", size(one.available_bytes)),
        ("limit of the control group", limit),
        ("swap", size(one.swap_bytes)),
    ]
