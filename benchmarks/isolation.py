"""What a process of its own costs a model: decode in a worker by decode in this process, in turns.

    python benchmarks/isolation.py [--model NAME] [--level low_trust] [--rounds 7] [--tokens 256] [--json]

One stream and 16 requests at once; greedy, without guesses, so that every token is a step. The ratio is that of one
round (A B, B A, …); beside it the longer time between two tokens of a stream, in microseconds. Answers have to be
equal. Afterwards the worker is killed under a stream: seconds until the next token, by those that loading takes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from time import perf_counter

from inference_pio import LLM, SamplingParams, SecurityLevel
from inference_pio.benchmarks.environment import environment
from inference_pio.worker.runtime import WorkerRuntime

_PROMPT = "The history of the lighthouse begins"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--level", default="low_trust", choices=[level.value for level in SecurityLevel][:3])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=256, help="of an answer")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    options = {"speculation": 0, "kv_cache_memory_gb": 0.5, "max_model_len": 2048}
    began = perf_counter()
    apart = LLM(chosen.model, security_level=SecurityLevel(chosen.level), **options)
    load = perf_counter() - began
    sides = {"worker": apart, "here": LLM(chosen.model, **options)}
    params = SamplingParams(temperature=0.0, max_tokens=chosen.tokens, ignore_eos=True)
    found = {
        "one stream": _compare(sides, lambda llm: _stream(llm, params), chosen.rounds),
        "16 requests": _compare(sides, lambda llm: _batch(llm, params), chosen.rounds),
    }
    extra = median(found["one stream"]["between_tokens_worker"]) - median(
        found["one stream"]["between_tokens_here"]
    )
    back = _recovery(apart, params)
    for llm in sides.values():
        llm.close()
    figures = {
        "model": chosen.model,
        "level": chosen.level,
        "ratios": {name: each["ratios"] for name, each in found.items()},
        "microseconds_per_token": 1e6 * extra,
        "recovery_seconds": back,
        "load_seconds": load,
    }
    if chosen.json:
        print(json.dumps({**figures, "environment": environment()}, indent=2))
        return 0
    for name, each in found.items():
        ratios = sorted(each["ratios"])
        print(f"{name}: {median(ratios):.3f} of the speed here ({ratios[0]:.3f} – {ratios[-1]:.3f})")
    print(f"between two tokens of a stream {1e6 * extra:+.0f} µs")
    print(f"next token {back:.2f} s after its worker was killed; loading takes {load:.2f} s")
    return 0


def _compare(
    sides: dict[str, LLM], run: Callable[[LLM], tuple[list[list[int]], float, float]], rounds: int
) -> dict[str, list[float]]:
    """Tokens per second of the worker by those here, and seconds between tokens of each."""
    ratios: list[float] = []
    between: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(rounds + 1):
        rates, answers = {}, {}
        for side in list(sides) if turn % 2 else reversed(sides):
            answers[side], rates[side], gap = run(sides[side])
            if turn:
                between[side].append(gap)
        if answers["worker"] != answers["here"]:
            raise SystemExit("the answers differ")
        if turn:  # the first round warms up
            ratios.append(rates["worker"] / rates["here"])
    return {
        "ratios": ratios,
        "between_tokens_worker": between["worker"],
        "between_tokens_here": between["here"],
    }


def _stream(llm: LLM, params: SamplingParams) -> tuple[list[list[int]], float, float]:
    ids, times = [], []
    for chunk in llm.stream(_PROMPT, params):
        ids += chunk.token_ids
        times.append(perf_counter())
    gaps = [later - sooner for sooner, later in pairwise(times)]
    return [ids], (len(ids) - 1) / (times[-1] - times[0]), median(gaps)


def _batch(llm: LLM, params: SamplingParams) -> tuple[list[list[int]], float, float]:
    began = perf_counter()
    outputs = llm.generate([f"{_PROMPT} {number}" for number in range(16)], params)
    seconds = perf_counter() - began
    ids = [output.outputs[0].token_ids for output in outputs]
    return ids, sum(map(len, ids)) / seconds, seconds / len(ids[0])


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
