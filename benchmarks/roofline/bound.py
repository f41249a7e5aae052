"""The roofline: the least time in which a machine can do a row's work.

A step takes at least as long as reading its bytes, and at least as long as computing its operations; whichever is more
bounds it (Williams, Waterman, Patterson: Roofline, Communications of the ACM 52(4), 2009).
"""

from __future__ import annotations

from dataclasses import dataclass

from inference_pio.benchmarks.bandwidth import decode_reads
from inference_pio.benchmarks.workload import Workload
from inference_pio.metrics.rates import Rates
from peers.rows import Row
from roofline.shapes import Shape


@dataclass(frozen=True)
class Step:
    """Bytes read, and operations of the matrices with weights and of attention (two per multiply-add)."""

    read_bytes: float
    linear: float
    attention: float

    def least_seconds(self, machine: Rates) -> float:
        reading = self.read_bytes / machine.read_bytes
        return max(reading, self.computing(machine))

    def computing(self, machine: Rates) -> float:
        return self.linear / machine.linear_operations + self.attention / machine.bfloat16_operations


@dataclass(frozen=True)
class Bound:
    """`seconds` at least; `by` is what most of them are spent on."""

    seconds: float
    by: str


def bound(row: Row, shape: Shape, machine: Rates) -> Bound | None:
    """None for a row that is not about computing (a start)."""
    if row.counts == "start":
        return None
    steps = [prefill(row.workload, shape)] if row.counts != "output after the first" else []
    if row.counts != "prompt":
        steps += decode(row.workload, shape)
    seconds = sum(step.least_seconds(machine) for step in steps)
    reading = sum(
        step.least_seconds(machine)
        for step in steps
        if step.computing(machine) < step.read_bytes / machine.read_bytes
    )
    return Bound(seconds, "memory" if reading > seconds / 2 else "arithmetic")


def prefill(workload: Workload, shape: Shape) -> Step:
    """All prompts, as if in one step: every weight once; a token attends to itself and those before it."""
    prompts, length = workload.concurrency, workload.prompt_len
    pairs = prompts * length * (length + 1) / 2
    return Step(
        read_bytes=shape.weight_bytes + prompts * length * shape.kv_bytes,
        linear=2 * prompts * (length * shape.body_parameters + shape.head_parameters),
        attention=4 * pairs * shape.attention_width,
    )


def decode(workload: Workload, shape: Shape) -> list[Step]:
    """One step for each token after the first: every weight once, and the keys and values of all sequences."""
    sequences = workload.concurrency
    parameters = shape.body_parameters + shape.head_parameters
    reads = decode_reads(workload, shape.weight_bytes, shape.kv_bytes)
    return [
        Step(
            read_bytes=read_bytes,
            linear=2 * sequences * parameters,
            attention=4 * sequences * (workload.prompt_len + made) * shape.attention_width,
        )
        for made, read_bytes in enumerate(reads, 1)
    ]
