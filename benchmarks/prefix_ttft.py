"""Time to the first token of a prompt whose beginning is known, by that of one that is new.

    python benchmarks/prefix_ttft.py [--model NAME] [--known 2000] [--new 16] [--rounds 5] [--json]

In each round a prompt of random tokens is answered three times with one token: new; with its first `--known` tokens in
memory and other ones behind; and the same again by an engine that was started anew and finds them on the disk. Ratios
are new by known, round by round: the median with the smallest and the largest. The disk's blocks lie in a temporary
folder, and most likely in the page cache of the system: what is measured is reading, checking and using them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from inference_pio import LLM, SamplingParams
from inference_pio.benchmarks.environment import environment
from inference_pio.loader.resolve import resolve
from inference_pio.loader.store import ModelStore

_DISK_GB = 2.0
_ONE_TOKEN = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)


@dataclass(frozen=True)
class Times:
    """Seconds to the first token, round by round."""

    new: list[float]
    memory: list[float]
    disk: list[float]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--known", type=int, default=2000, help="tokens at the beginning")
    parser.add_argument("--new", type=int, default=16, help="tokens behind them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    path = str(resolve(chosen.model, store=ModelStore(), download=True).path)
    with tempfile.TemporaryDirectory() as home:
        os.environ["INFERENCE_PIO_HOME"] = home
        times = measure(path, chosen.known, chosen.new, chosen.rounds)
    ratios = {
        name: [new / known for new, known in zip(times.new, found, strict=True)]
        for name, found in (("memory", times.memory), ("disk", times.disk))
    }
    if chosen.json:
        print(json.dumps({**asdict(times), "ratios": ratios, "machine": environment()}, indent=1))
        return
    print(f"{chosen.model}, {chosen.known:,} known tokens and {chosen.new} new ones, {chosen.rounds} rounds")
    print(f"new: {statistics.median(times.new) * 1000:.0f} ms")
    for name, found in (("memory", times.memory), ("disk", times.disk)):
        each = ratios[name]
        print(
            f"{name}: {statistics.median(found) * 1000:.1f} ms, {statistics.median(each):.1f} times faster "
            f"({min(each):.1f} - {max(each):.1f})"
        )


def measure(path: str, known: int, new: int, rounds: int) -> Times:
    """`rounds` of each, the prompts new in every round."""
    chance, times = random.Random(0), Times([], [], [])
    options = {
        "max_model_len": known + new + 1,
        "max_num_seqs": 1,
        "tuned": False,
        "prefix_cache_disk_gb": _DISK_GB,
    }

    def tokens(count: int) -> list[int]:
        return [chance.randrange(1000, 30_000) for _ in range(count)]

    for number in range(rounds + 1):  # the first one warms up, and does not count
        start = tokens(known)
        with LLM(path, **options) as llm:
            _first_token(llm, tokens(new))  # the engine's own first step
            found = [_first_token(llm, start + tokens(new)) for _ in range(2)]
        with LLM(path, **options) as llm:
            _first_token(llm, tokens(new))
            found.append(_first_token(llm, start + tokens(new)))
        if number:
            for each, seconds in zip((times.new, times.memory, times.disk), found, strict=True):
                each.append(seconds)
    return times


def _first_token(llm: LLM, prompt: list[int]) -> float:
    [output] = llm.generate({"prompt_token_ids": prompt}, _ONE_TOKEN, use_tqdm=False)
    assert output.metrics is not None, "the engine measures each request"
    return output.metrics.time_to_first_token


if __name__ == "__main__":
    main()
