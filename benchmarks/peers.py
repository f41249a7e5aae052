"""Our engine against Transformers' `generate`: same weights, same prompts, same threads, in turns.

    python benchmarks/peers.py [--model smollm2-135m-instruct] [--rounds 3] [--quick] [--json] [--check]

Both run in this one process, so that they share torch, its threads and its memory allocator, and meet the same state
of the machine; the one that is not measured sleeps (our engine waits on a condition variable, `generate` has returned).
How each side is set up is written into the result.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from inference_pio.benchmarks.environment import environment
from inference_pio.benchmarks.harness import Timed, interleave
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.samples import Summary
from inference_pio.benchmarks.workload import Workload
from inference_pio.errors import InferencePIOError
from inference_pio.loader.resolve import resolve
from transformers_peer import TransformersPeer

OURS, THEIRS = "inference-pio", "transformers"
Tokens = list[list[int]]


@dataclass(frozen=True)
class Bar:
    """One row of the table: what is timed, and how many times as fast we must be."""

    name: str
    workload: Workload
    least: float
    counts: str

    @property
    def tokens(self) -> int:
        """What a rate counts: the prompt's tokens in a prefill, else those generated."""
        return self.workload.prompt_tokens if self.counts == "prompt" else self.workload.output_tokens


BARS = (
    Bar("prefill", Workload(prompt_len=1024, output_len=1), 1.0, "prompt"),
    Bar("decode, one sequence", Workload(prompt_len=16, output_len=64), 1.0, "output"),
    Bar("batch", Workload(prompt_len=256, output_len=128, concurrency=32), 3.0, "output"),
)


@dataclass(frozen=True)
class Outcome:
    """One bar as measured: rates in tokens per second, and how often both sides chose the same first token."""

    bar: Bar
    ours: Summary
    theirs: Summary
    same_first_tokens: float

    @property
    def ratio(self) -> float:
        return self.ours.median / self.theirs.median

    @property
    def met(self) -> bool:
        return self.ratio >= self.bar.least

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.bar.name,
            "workload": str(self.bar.workload),
            "unit": f"{self.bar.counts} tokens per second",
            "inference_pio": vars(self.ours) | {"interval": vars(self.ours.interval)},
            "transformers": vars(self.theirs) | {"interval": vars(self.theirs.interval)},
            "ratio": self.ratio,
            "bar": self.bar.least,
            "met": self.met,
            "same_first_tokens": self.same_first_tokens,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """0; with --check 1 where a bar is not met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--model", default="smollm2-135m-instruct", help="a llama: name, GGUF file or directory"
    )
    parser.add_argument("--plugin", default="llama", help="the plugin that runs it")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds per bar, after one to warm up")
    parser.add_argument("--quick", action="store_true", help="small workloads: does it run at all?")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bar is not met")
    chosen = parser.parse_args(arguments)
    if chosen.rounds < 1:
        parser.error(f"--rounds must be 1 or more, got {chosen.rounds}")
    try:
        path = resolve(chosen.model).path
        outcomes, method = measure(chosen.plugin, path, chosen.rounds, quick=chosen.quick)
    except InferencePIOError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if chosen.json:
        result = {
            "model": chosen.model,
            "bars": [outcome.as_dict() for outcome in outcomes],
            "method": method,
            "environment": environment(),
        }
        print(json.dumps(result, indent=2))
    else:
        print_table(chosen.model, outcomes, method)
    return 1 if chosen.check and not all(outcome.met for outcome in outcomes) else 0


def measure(plugin: str, path: Path, rounds: int, *, quick: bool) -> tuple[list[Outcome], list[str]]:
    """Every bar, and in words how it was measured."""
    bars = [Bar(bar.name, bar.workload.quick(), bar.least, bar.counts) for bar in BARS] if quick else BARS
    peer = TransformersPeer(path)
    with LoadedModel(
        plugin, str(path), [bar.workload for bar in bars], dtype="bfloat16", device="cpu"
    ) as ours:
        if ours.vocab_size != peer.vocab_size:
            raise SystemExit(f"not the same model: {ours.vocab_size} and {peer.vocab_size} tokens")
        outcomes = [_measure_bar(bar, ours, peer, rounds) for bar in bars]
    return outcomes, [
        f"the same file on both sides ({path.name}), computed in bfloat16, on the CPU, in one process",
        f"{rounds} rounds after one to warm up, the two taking turns (A B, B A, …); the ratio is that of the medians",
        "random token ids as prompts, new ones every round (no prefix cache can help); greedy; no end of text",
        "a rate is tokens by the time from the call to the last token of all sequences, the prompts' share included",
        f"{THEIRS}: {peer.described}",
        f"{OURS}: its defaults, through the engine's background loop",
    ]


def _measure_bar(bar: Bar, ours: LoadedModel, peer: TransformersPeer, rounds: int) -> Outcome:
    runs = interleave(
        {
            OURS: partial(_ours, ours, bar.workload),
            THEIRS: partial(_theirs, peer, ours.vocab_size, bar.workload),
        },
        rounds=rounds,
    )
    return Outcome(
        bar, _rate(bar, runs[OURS]), _rate(bar, runs[THEIRS]), _same_first(runs[OURS], runs[THEIRS])
    )


def _ours(model: LoadedModel, workload: Workload, turn: int) -> Tokens:
    return [output.outputs[0].token_ids for output in model.run(workload, turn)]


def _theirs(peer: TransformersPeer, vocab_size: int, workload: Workload, turn: int) -> Tokens:
    [prompts] = workload.waves(vocab_size, turn)
    return peer.generate(prompts, workload.output_len)


def _rate(bar: Bar, runs: Sequence[Timed[Tokens]]) -> Summary:
    return Summary.of([bar.tokens / run.seconds for run in runs])


def _same_first(ours: Sequence[Timed[Tokens]], theirs: Sequence[Timed[Tokens]]) -> float:
    """Share of answers that begin alike: both sides ran the same model. Rounding parts some, on random prompts."""
    pairs = [
        a[0] == b[0]
        for one, other in zip(ours, theirs, strict=True)
        for a, b in zip(one.result, other.result, strict=True)
    ]
    return sum(pairs) / len(pairs)


def print_table(model: str, outcomes: Sequence[Outcome], method: Sequence[str]) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=150)
    title = f"{model}, bfloat16: tokens per second, median (min – max)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("", "tokens", OURS, THEIRS, "ratio", "bar", "", "same first token"):
        table.add_column(name)
    for outcome in outcomes:
        table.add_row(
            f"{outcome.bar.name} ({outcome.bar.counts} tokens)",
            str(outcome.bar.workload),
            _shown(outcome.ours),
            _shown(outcome.theirs),
            f"{outcome.ratio:.2f}",
            f"≥ {outcome.bar.least:.1f}",
            "met" if outcome.met else "not met",
            f"{outcome.same_first_tokens:.0%}",
        )
    console.print(table)
    for line in [*method, *(f"{name}: {value}" for name, value in environment().items())]:
        console.print(f"  {line}", highlight=False)


def _shown(rate: Summary) -> str:
    return f"{rate.median:.1f} ({rate.minimum:.1f} – {rate.maximum:.1f})"


if __name__ == "__main__":
    sys.exit(main())
