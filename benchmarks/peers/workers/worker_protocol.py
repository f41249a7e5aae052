"""What a worker and the orchestrator say to each other: one JSON object a line. Standard library only, since every
peer's own Python runs it.

    orchestrator                                   worker
    argument: {"model", "threads", "max_seqs", …}
                                                   {"ready": {"version", "described", "vocab_size"}}
    {"prompts": [[ids]…], "output_len": n}
                                                   {"seconds", "first_token_seconds", "tokens": [[ids]…]}

The end of its input ends a worker. What a library prints goes to standard error, so that it cannot get between lines.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Tokens = list[list[int]]


@dataclass(frozen=True)
class Settings:
    """What a worker must have room for.

    model         path of a GGUF file, or of a directory with config.json and safetensors
    threads       that compute
    max_seqs      sequences at once
    max_len       prompt and answer of one sequence, in tokens
    total_tokens  of all sequences that are there at once
    once          there will be one request: what pays only later (compiling) does not pay
    """

    model: str
    threads: int
    max_seqs: int
    max_len: int
    total_tokens: int
    once: bool = False


class Engine(Protocol):
    """A loaded model. `described` says in words how it was set up."""

    version: str
    described: str
    vocab_size: int

    def generate(self, prompts: Tokens, output_len: int) -> tuple[Tokens, float | None]:
        """Greedy continuations of exactly `output_len` tokens, whatever they are.

        Returns:
            The new tokens of each prompt, and the value of `time.perf_counter` when the first of them was there: of
            a single prompt always, of several where the engine tells.
        """


def serve(load: Callable[[Settings], Engine]) -> None:
    """Load what the argument names, say so, and answer requests until the input ends."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine = load(Settings(**json.loads(sys.argv[1])))
    ready = {"version": engine.version, "described": engine.described, "vocab_size": engine.vocab_size}
    print(json.dumps({"ready": ready}), file=channel, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        tokens, first = engine.generate(request["prompts"], request["output_len"])
        answer = {
            "seconds": time.perf_counter() - start,
            "first_token_seconds": None if first is None else first - start,
            "tokens": tokens,
        }
        print(json.dumps(answer), file=channel, flush=True)
