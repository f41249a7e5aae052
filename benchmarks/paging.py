"""Decoding with part of the layers on the disk, beside what the disk's measured bandwidth allows.

    python benchmarks/paging.py [--model qwen2.5-coder-1.5b-instruct] [--resident-gb 0.6]
        [--tokens 16] [--rounds 5] [--alone] [--json]

A step reads every layer that does not stay in memory once. What these bytes take at the rate at which the disk gives
them is the least time of a step; its share of the time measured is what is reported. The rate is measured between the
rounds, on the same bytes of the same file, past the system's cache, four readings of 1 MiB at once and nothing
computed; the rates of one run before and one after a round are averaged for it. Beside it, unless
`--alone`: the same with all weights in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from inference_pio import LLM, SamplingParams
from inference_pio.layers.paged import pagers_of
from inference_pio.loader.store import ModelStore
from inference_pio.ops import PAGE
from inference_pio.ops.slab import whole_pages

_CHUNK, _READERS = 1 << 20, 4
_MEMORY = 8 << 20  # enough for huge pages: into small ones the kernel reads at less than half the disk's rate
_PROMPT = 16


def read_bandwidth(path: Path, nbytes: int) -> float:
    """Bytes per second of reading that much of the file, in order."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECT", 0))
    starts, lock = iter(range(PAGE, PAGE + nbytes, _CHUNK)), Lock()

    def read() -> int:
        memory, done = memoryview(whole_pages(_MEMORY).numpy())[:_CHUNK], 0
        while True:
            with lock:
                start = next(starts, None)
            if start is None:
                return done
            done += os.preadv(fd, [memory], start)

    try:
        begin = time.perf_counter()
        with ThreadPoolExecutor(_READERS) as pool:
            done = sum(pool.map(lambda _: read(), range(_READERS)))
        return done / (time.perf_counter() - begin)
    finally:
        os.close(fd)


def seconds_per_step(llm: LLM, tokens: int, turn: int) -> float:
    """Of a short prompt, which is one step, and all tokens but the first."""
    prompt = {"prompt_token_ids": [1 + (97 * turn + 31 * i) % 9999 for i in range(_PROMPT)]}
    params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    begin = time.perf_counter()
    llm.generate([prompt], params)
    return (time.perf_counter() - begin) / tokens


@contextmanager
def opened(model: str, resident: float | None) -> Iterator[LLM]:
    options: dict[str, Any] = {"kv_cache_memory_gb": 0.1, "max_model_len": 1024, "speculation": 0}
    with LLM(
        model, resident_weights_gb=resident, enable_prefix_caching=False, download=False, **options
    ) as llm:
        seconds_per_step(llm, 2, 0)
        yield llm


def measure(model: str, resident: float, tokens: int, rounds: int, alone: bool) -> dict[str, Any]:
    steps, rates, waits = [], [], []
    with opened(model, resident) as llm:
        path = ModelStore().pages_of(Path(llm.plugin.config.model_path))
        (pager,) = pagers_of(llm.plugin.load_model())
        streamed = pager.streamed_bytes
        kept = llm.plugin.get_memory_stats()["weights_bytes"]
        rates.append(read_bandwidth(path, streamed))
        for turn in range(rounds):
            before = llm.plugin.get_disk_stats()["paged_wait_seconds"]
            steps.append(seconds_per_step(llm, tokens, turn))
            waits.append((llm.plugin.get_disk_stats()["paged_wait_seconds"] - before) / tokens)
            rates.append(read_bandwidth(path, streamed))
        peak = llm.plugin.get_memory_stats()["process_bytes"]
    beside: dict[str, float] = {}
    if not alone:
        with opened(model, None) as llm:
            in_memory = statistics.median(seconds_per_step(llm, tokens, turn) for turn in range(rounds))
            whole = llm.plugin.get_memory_stats()["weights_bytes"]
            beside = {"in_memory_step_seconds": in_memory, "in_memory_bytes": whole}
    shares = [
        2 * streamed / (first + second) / seconds
        for seconds, first, second in zip(steps, rates, rates[1:], strict=False)
    ]
    return {
        "model": model,
        "resident_bytes": kept,
        "process_bytes": peak,
        "streamed_bytes": streamed,
        "disk_bytes_per_second": statistics.median(rates),
        "step_seconds": statistics.median(steps),
        "waited_seconds_per_step": statistics.median(waits),
        **beside,
        "share": statistics.median(shares),
        "shares": shares,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="qwen2.5-coder-1.5b-instruct")
    parser.add_argument("--resident-gb", type=float, default=0.6)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="nothing with all weights in memory")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.model, options.resident_gb, options.tokens, options.rounds, options.alone)
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"{found['resident_bytes'] / 1e6:.0f} MB of weights in memory, a process of "
        f"{found['process_bytes'] / 1e6:.0f} MB; a step reads {found['streamed_bytes'] / 1e6:.0f} MB"
    )
    rate, step = found["disk_bytes_per_second"], found["step_seconds"]
    print(f"disk: {rate / 1e9:.2f} GB/s, {found['streamed_bytes'] / rate * 1e3:.0f} ms for a step's bytes")
    print(
        f"{1 / step:.2f} tokens/s: {step * 1e3:.0f} ms a step, {found['waited_seconds_per_step'] * 1e3:.0f} of them "
        f"waiting"
    )
    if not options.alone:
        print(
            f"all {found['in_memory_bytes'] / 1e6:.0f} MB of weights in memory: "
            f"{found['in_memory_step_seconds'] * 1e3:.0f} ms a step"
        )
    print(
        f"{100 * found['share']:.0f} % of what the disk allows ({', '.join(f'{s:.2f}' for s in found['shares'])})"
    )


if __name__ == "__main__":
    main()
