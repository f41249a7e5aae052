"""A model within limits, measured from outside: its memory, its processor time, and its speed by that without limits.

    python benchmarks/limited.py [--model NAME] [--memory-gb 1.0] [--cpu-percent 100] [--rounds 5] [--json]

Both models answer in turns, one stream at a time. Of the limited one `/proc` says what is its own
(RssAnon, RssShmem, VmSwap) and what time its processors took while it answered. At last the same with far too little
memory: what it says then.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import psutil

from inference_pio import LLM, ResourceLimits, SamplingParams, SecurityLevel
from inference_pio.benchmarks.environment import environment
from inference_pio.errors import ResourceError
from inference_pio.worker.runtime import WorkerRuntime

_QUESTION = "What is the capital of France?"
_PROMPT = "The history of the lighthouse begins"
_OWN = ("RssAnon:", "RssShmem:", "VmSwap:")
_TOO_LITTLE_GB = 0.3


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--memory-gb", type=float, default=1.0)
    parser.add_argument("--cpu-percent", type=float, default=100.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="of an answer")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    held = {"cpu_percent": chosen.cpu_percent, "gpu_memory_gb": 0, "network_bandwidth_mbps": 0}
    options = {"speculation": 0, "max_model_len": 2048}
    low = SecurityLevel.LOW_TRUST
    limits = ResourceLimits(memory_gb=chosen.memory_gb, **held)
    with (
        LLM(chosen.model, security_level=low, resource_limits=limits, **options) as limited,
        LLM(chosen.model, kv_cache_memory_gb=0.3, **options) as free,
    ):
        figures = _compare(limited, free, chosen.rounds, chosen.tokens)
    try:
        LLM(
            chosen.model, security_level=low, resource_limits=ResourceLimits(memory_gb=_TOO_LITTLE_GB, **held)
        )
        figures["refusal"] = ""
    except ResourceError as refusal:
        figures["refusal"] = str(refusal)
    figures |= {"model": chosen.model, "memory_gb": chosen.memory_gb, "cpu_percent": chosen.cpu_percent}
    if chosen.json:
        print(json.dumps({**figures, "environment": environment()}, indent=2))
        return 0
    ratios = sorted(figures["speed_ratios"])
    print(f"{_QUESTION} {figures['answer']}")
    print(f"memory of its own at most {figures['own_bytes_peak'] / 1e9:.2f} of {chosen.memory_gb:g} GB")
    print(f"processor time {figures['cpu_percent_used']:.0f} of {chosen.cpu_percent:g} %")
    print(f"{median(ratios):.2f} of the speed without limits ({ratios[0]:.2f} – {ratios[-1]:.2f})")
    print(f"with {_TOO_LITTLE_GB:g} GB: {figures['refusal']}")
    return 0


def _compare(limited: LLM, free: LLM, rounds: int, tokens: int) -> dict[str, object]:
    runtime = limited._runtime
    assert isinstance(runtime, WorkerRuntime)
    pid = runtime.model.pid
    assert pid is not None
    worker = psutil.Process(pid)
    own, shares, ratios = 0, [], []
    answer = limited.chat(
        [{"role": "user", "content": _QUESTION}], SamplingParams(temperature=0, max_tokens=32)
    )
    for turn in range(rounds + 1):
        rates = {}
        for llm in (limited, free) if turn % 2 else (free, limited):
            before, began = sum(worker.cpu_times()[:2]), perf_counter()
            rates[llm] = _rate(llm, tokens)
            if llm is limited and turn:
                shares.append(100 * (sum(worker.cpu_times()[:2]) - before) / (perf_counter() - began))
                own = max(own, _own_bytes(pid))
        if turn:  # the first round warms up
            ratios.append(rates[limited] / rates[free])
    return {
        "answer": answer[0].outputs[0].text,
        "own_bytes_peak": own,
        "cpu_percent_used": median(shares),
        "speed_ratios": ratios,
    }


def _rate(llm: LLM, tokens: int) -> float:
    params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    times = [perf_counter() for _ in llm.stream(_PROMPT, params)]
    return (len(times) - 1) / (times[-1] - times[0])


def _own_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(_OWN))


if __name__ == "__main__":
    sys.exit(main())
