"""What a process of its own costs a model: decode in a worker by decode in the caller's process.

    python benchmarks/isolation.py [--model NAME] [--level low_trust] [--rounds 12] [--tokens 192] [--json]

Each side runs as users run it, alone in a fresh process (A B, B A, …): two engines in one process would share its
threads. There one stream and 16 requests at once, several times; greedy, without guesses, so that every token is a
step. A ratio is that of the medians of one round, as is the difference of the times between two tokens. Answers have
to be equal. Each worker is killed under a stream at last: seconds until the next token, by those that loading takes.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from statistics import median, quantiles
from time import perf_counter
from typing import Any

from inference_pio import LLM, SamplingParams, SecurityLevel
from inference_pio.benchmarks.environment import environment
from inference_pio.worker.runtime import WorkerRuntime

_PROMPT = "The history of the lighthouse begins"
_WHAT = ("one stream", "16 requests")
_STREAMS, _BATCHES = 7, 3


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--level", default="low_trust", choices=[level.value for level in SecurityLevel][:3])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=192, help="of an answer")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=["worker", "here"], help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.side is not None:
        print(json.dumps(_measured(chosen)))
        return 0
    rounds = []
    for turn in range(chosen.rounds):
        order = ("worker", "here") if turn % 2 else ("here", "worker")
        rounds.append({side: _in_a_process(side, chosen) for side in order})
        if rounds[-1]["worker"].pop("answers") != rounds[-1]["here"].pop("answers"):
            raise SystemExit("the answers differ")
    ratios = {what: [each["worker"][what] / each["here"][what] for each in rounds] for what in _WHAT}
    more = [each["worker"]["between_tokens"] - each["here"]["between_tokens"] for each in rounds]
    back, load = ([each["worker"][what] for each in rounds] for what in ("recovery", "load"))
    if chosen.json:
        figures = {"model": chosen.model, "level": chosen.level, "rounds": rounds, "ratios": ratios}
        print(json.dumps({**figures, "environment": environment()}, indent=2))
        return 0
    for what in _WHAT:
        print(f"{what}: {_spread(ratios[what])} of the speed in the caller's process")
    print(f"between two tokens of a stream {_spread([1e6 * each for each in more], '+.0f')} µs")
    print(f"next token {median(back):.2f} s after its worker was killed; loading takes {median(load):.2f} s")
    return 0


def _spread(values: Sequence[float], form: str = ".3f") -> str:
    """The median, and between which two values half of them lie."""
    low, middle, high = quantiles(values, n=4)
    return f"{middle:{form}} ({low:{form}} – {high:{form}})"


def _in_a_process(side: str, chosen: argparse.Namespace) -> dict[str, Any]:
    options = ["--model", chosen.model, "--level", chosen.level, "--tokens", str(chosen.tokens)]
    done = subprocess.run(
        [sys.executable, __file__, "--side", side, *options], stdout=subprocess.PIPE, check=True
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _measured(chosen: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of one stream and of 16 requests, and the seconds between two tokens of the stream."""
    logging.getLogger("inference_pio").setLevel(logging.ERROR)  # that a worker was killed is no news here
    params = SamplingParams(temperature=0.0, max_tokens=chosen.tokens, ignore_eos=True)
    trust = SecurityLevel(chosen.level) if chosen.side == "worker" else SecurityLevel.MAXIMUM_TRUST
    began = perf_counter()
    with LLM(
        chosen.model, security_level=trust, speculation=0, kv_cache_memory_gb=0.5, max_model_len=2048
    ) as llm:
        figures: dict[str, Any] = {"load": perf_counter() - began}
        prompts = [f"{_PROMPT} {number}" for number in range(16)]
        figures["answers"] = [output.outputs[0].token_ids for output in llm.generate(prompts, params)]
        streams = [_stream(llm, params) for _ in range(_STREAMS)]
        figures["one stream"] = median(rate for rate, _ in streams)
        figures["between_tokens"] = median(between for _, between in streams)
        figures["16 requests"] = median(_batch(llm, prompts, params) for _ in range(_BATCHES))
        if chosen.side == "worker":
            figures["recovery"] = _recovery(llm, params)
    return figures


def _stream(llm: LLM, params: SamplingParams) -> tuple[float, float]:
    times = [perf_counter() for _ in llm.stream(_PROMPT, params)]
    gaps = [later - sooner for sooner, later in pairwise(times)]
    return (len(times) - 1) / (times[-1] - times[0]), median(gaps)


def _batch(llm: LLM, prompts: Sequence[str], params: SamplingParams) -> float:
    began = perf_counter()
    outputs = llm.generate(prompts, params)
    seconds = perf_counter() - began
    return sum(len(output.outputs[0].token_ids) for output in outputs) / seconds


def _recovery(llm: LLM, params: SamplingParams) -> float:
    runtime = llm._runtime
    assert isinstance(runtime, WorkerRuntime)
    stream = llm.stream(_PROMPT, params)
    for _ in range(10):
        next(stream)
    pid = runtime.model.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    killed = perf_counter()
    restarts = runtime.model.restarts
    for _ in stream:
        if runtime.model.restarts > restarts:
            break
    seconds = perf_counter() - killed
    stream.close()
    return seconds


if __name__ == "__main__":
    sys.exit(main())
