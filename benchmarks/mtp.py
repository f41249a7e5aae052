"""What a checkpoint's own layer for drafts brings and costs: nothing guessed, guesses from the text alone, and both.

    python benchmarks/mtp.py --model PATH [--rounds 3] [--tokens 128] [--sequences 1] [--dtype auto] [--random] [--json]

The three are loaded one after the other, since such models are large; each answers the same prompts greedily. Of each
it is said how many tokens a step gives and what a step takes beside one without guesses: the layer pays where the first
is more than the second. Acceptance is the share of the layer's guesses that became tokens. With `--random` prompts are
random tokens, which shows the costs of a model whose weights are random too.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import Any

from inference_pio import LLM, SamplingParams
from inference_pio.benchmarks.environment import environment

_PROMPTS = (
    "Write a short story about a lighthouse keeper who finds a letter.",
    "Write a Python class for a priority queue with docstrings and type annotations.",
    "Explain to a child why the sea is salty.",
    "List the planets with their distances from the sun as a table.",
)
_SIDES: dict[str, dict[str, Any]] = {
    "off": {"speculation": 0},
    "text": {"mtp": False},
    "mtp": {},
}
_RANDOM_PROMPT = 32


@dataclass(frozen=True)
class Side:
    """tokens_per_second, tokens_per_step, ms_per_step: medians over rounds of everything behind the prompts
    predicted_per_step, acceptance: the layer's guesses in a step, and the share of them that became tokens
    """

    tokens_per_second: float
    tokens_per_step: float
    ms_per_step: float
    predicted_per_step: float
    acceptance: float


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--sequences", type=int, default=1, help="answers at once")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--random", action="store_true", help="prompts of random tokens")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    sides = {name: _measure(chosen, options) for name, options in _SIDES.items()}
    if chosen.json:
        found = {name: asdict(side) for name, side in sides.items()}
        print(json.dumps({"model": chosen.model, "sides": found, "environment": environment()}, indent=2))
        return 0
    for name, side in sides.items():
        print(
            f"{name}: {side.tokens_per_second:.1f} tok/s, {side.tokens_per_step:.2f} tokens a step, which takes "
            f"{side.ms_per_step / sides['off'].ms_per_step:.2f} × one without guesses ({side.ms_per_step:.1f} ms)"
        )
    layer = sides["mtp"]
    print(f"the layer: {layer.predicted_per_step:.2f} guesses a step, {layer.acceptance:.0%} of them right")
    return 0


def _measure(chosen: argparse.Namespace, options: dict[str, Any]) -> Side:
    params = SamplingParams(temperature=0.0, max_tokens=chosen.tokens, ignore_eos=True)
    rounds: list[dict[str, float]] = []
    with LLM(
        chosen.model,
        dtype=chosen.dtype,
        max_num_seqs=chosen.sequences,
        enable_prefix_caching=False,
        skip_tokenizer_init=chosen.random,
        **options,
    ) as llm:
        prompts = _prompts(llm, chosen)
        for turn in range(chosen.rounds + 1):
            before, started = llm.plugin.get_compute_stats(), perf_counter()
            for first in range(0, len(prompts), chosen.sequences):
                llm.generate(prompts[first : first + chosen.sequences], params)
            seconds, after = perf_counter() - started, llm.plugin.get_compute_stats()
            if turn:  # the first round warms up, and learns what guesses cost
                rounds.append({"seconds": seconds, **{name: after[name] - before[name] for name in after}})

    def middle(of: str, per: str) -> float:
        return median(found[of] / found[per] if found[per] else 0.0 for found in rounds)

    return Side(
        tokens_per_second=middle("generation_tokens", "seconds"),
        tokens_per_step=middle("generation_tokens", "steps"),
        ms_per_step=1000 * middle("seconds", "steps"),
        predicted_per_step=middle("predicted_draft_tokens", "steps"),
        acceptance=middle("accepted_predicted_tokens", "predicted_draft_tokens"),
    )


def _prompts(llm: LLM, chosen: argparse.Namespace) -> list[Any]:
    if not chosen.random:
        return [llm.format_chat([{"role": "user", "content": text}]) for text in _PROMPTS]
    draw = random.Random(0)
    vocabulary = range(llm.plugin.config.vocab_size)
    return [{"prompt_token_ids": draw.choices(vocabulary, k=_RANDOM_PROMPT)} for _ in _PROMPTS]


if __name__ == "__main__":
    sys.exit(main())
