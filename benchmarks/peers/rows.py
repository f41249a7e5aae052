"""The rows of the comparison: what is timed, what of it counts, and how we must stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from inference_pio.benchmarks.workload import Workload
from inference_pio.errors import UsageError
from peers.replies import Reply

OURS = "inference-pio"
LLAMA, OPENVINO, TRANSFORMERS, VLLM = "llama.cpp", "openvino", "transformers", "vllm"
SMOLLM2, QWEN = "smollm2-135m-instruct", "qwen2.5-coder-1.5b-instruct"

Counts = Literal["prompt", "output", "output after the first", "start"]


@dataclass(frozen=True)
class Bar:
    """Ours must be at least `least` times as fast as `peer`; without a peer, take `least` seconds at most."""

    peer: str | None
    least: float

    def __str__(self) -> str:
        return f"≤ {self.least:g} s" if self.peer is None else f"≥ {self.least:g} × {self.peer}"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    counts  whose tokens a rate counts: the prompt's; those generated, by the whole time; those after the first, by
            the time after it (so that the prompt costs nothing); "start" is seconds from the start of a new process
            to its first token
    """

    name: str
    model: str
    title: str
    workload: Workload
    counts: Counts
    bar: Bar

    @property
    def unit(self) -> str:
        return "s" if self.counts == "start" else "tok/s"

    def seconds(self, reply: Reply) -> float:
        """The part of a run that counts."""
        if self.counts == "output after the first":
            return reply.seconds - reply.first
        return reply.seconds

    def figure(self, seconds: float) -> float:
        """What is shown: tokens per second; seconds of a start."""
        if self.counts == "start":
            return seconds
        tokens = {
            "prompt": self.workload.prompt_tokens,
            "output": self.workload.output_tokens,
            "output after the first": self.workload.concurrency * (self.workload.output_len - 1),
        }[self.counts]
        return tokens / seconds

    def quick(self) -> Row:
        """A small one of the same kind: shows that it runs, says nothing about speed."""
        return replace(self, workload=self.workload.quick())


# Whom a model's rows are measured against where the caller names nobody. In bfloat16 a round of the larger model takes
# minutes: whoever wants it names the peer.
USUAL_PEERS = {SMOLLM2: (LLAMA, OPENVINO, TRANSFORMERS, VLLM), QWEN: (LLAMA, OPENVINO)}

ROWS = (
    Row(
        "smollm2-decode",
        SMOLLM2,
        "decode, one sequence",
        Workload(prompt_len=16, output_len=128),
        "output",
        Bar(LLAMA, 2.2),
    ),
    Row(
        "smollm2-prefill",
        SMOLLM2,
        "prefill of 1024",
        Workload(prompt_len=1024, output_len=1),
        "prompt",
        Bar(OPENVINO, 1.5),
    ),
    Row(
        "smollm2-batch",
        SMOLLM2,
        "32 requests",
        Workload(prompt_len=256, output_len=128, concurrency=32),
        "output",
        Bar(OPENVINO, 2.0),
    ),
    Row(
        "smollm2-long",
        SMOLLM2,
        "decode after 4096 tokens",
        Workload(prompt_len=4096, output_len=65),
        "output after the first",
        Bar(LLAMA, 1.5),
    ),
    Row(
        "smollm2-start",
        SMOLLM2,
        "process start to first token",
        Workload(prompt_len=16, output_len=1),
        "start",
        Bar(None, 2.5),
    ),
    Row(
        "qwen-decode",
        QWEN,
        "decode, one sequence",
        Workload(prompt_len=16, output_len=64),
        "output",
        Bar(LLAMA, 1.05),
    ),
    Row(
        "qwen-prefill",
        QWEN,
        "prefill of 512",
        Workload(prompt_len=512, output_len=1),
        "prompt",
        Bar(OPENVINO, 1.25),
    ),
    Row(
        "qwen-batch",
        QWEN,
        "16 requests",
        Workload(prompt_len=128, output_len=64, concurrency=16),
        "output",
        Bar(OPENVINO, 1.5),
    ),
)


def chosen(names: str) -> tuple[Row, ...]:
    """Rows by name, in the table's order; a name may be the beginning of several; all of them where `names` is empty.

    Raises:
        UsageError: a name that no row has.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if not any(row.name.startswith(name) for row in ROWS):
            raise UsageError(f"no row is called {name!r}; there are {', '.join(row.name for row in ROWS)}")
    return tuple(row for row in ROWS if not wanted or any(row.name.startswith(name) for name in wanted))


def by_model(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each model, so that only one model's workers are in memory at a time."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.model, []).append(row)
    return grouped
