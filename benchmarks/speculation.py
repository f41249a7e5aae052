"""What speculation gains on editing code, and what it costs on prose: the same model with it and without, in turns.

    python benchmarks/speculation.py [--model qwen2.5-coder-1.5b-instruct] [--rounds 3] [--tokens 192] [--json]

Greedy answers to chat prompts: three edits of a file of this project, three pieces of prose. Both engines answer every
prompt in every round (A B, B A, …); a ratio is that of one round. Answers should be equal; where rounding of products
with other numbers of rows parted them, the share of equal tokens says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

from inference_pio import LLM, SamplingParams
from inference_pio.benchmarks.environment import environment

_ROOT = Path(__file__).parents[1] / "src/inference_pio"
_EDITS = (
    (
        "progress_bar.py",
        "Rewrite this file with the docstrings of all functions removed. Print the whole file.",
    ),
    ("parallel/group.py", "Rename every parameter called rank to place. Print the whole file."),
    ("loader/closing.py", "Add a type comment to the class and print the whole file again."),
)
_PROSE = (
    "Write a short story about a lighthouse keeper who finds a letter.",
    "Explain to a child why the sea is salty.",
    "Describe a walk through an old town on a rainy morning.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="qwen2.5-coder-1.5b-instruct")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=192, help="tokens of an answer at most")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    kinds = {
        "editing code": [f"{task}\n\n```python\n{(_ROOT / name).read_text()}```" for name, task in _EDITS],
        "prose": list(_PROSE),
    }
    sides = {
        "with": LLM(chosen.model, max_model_len=4096, kv_cache_memory_gb=0.5),
        "without": LLM(chosen.model, max_model_len=4096, kv_cache_memory_gb=0.5, speculation=0),
    }
    result = {kind: _compare(sides, prompts, chosen.rounds, chosen.tokens) for kind, prompts in kinds.items()}
    for llm in sides.values():
        llm.close()
    if chosen.json:
        print(json.dumps({"model": chosen.model, "kinds": result, "environment": environment()}, indent=2))
        return 0
    for kind, found in result.items():
        print(
            f"{kind}: {found['ratio']:.2f} × ({found['lowest']:.2f} – {found['highest']:.2f}); "
            f"{found['with']:.1f} and {found['without']:.1f} tok/s; {found['equal']:.0%} of tokens equal"
        )
    return 0


def _compare(sides: dict[str, LLM], prompts: list[str], rounds: int, tokens: int) -> dict[str, float]:
    params = SamplingParams(temperature=0.0, max_tokens=tokens)
    rates: dict[str, list[float]] = {side: [] for side in sides}
    answers: dict[str, list[list[int]]] = {}
    for turn in range(rounds + 1):
        for side in list(sides) if turn % 2 else reversed(sides):
            answers[side], rate = _answer(sides[side], prompts, params)
            if turn:  # the first round warms up
                rates[side].append(rate)
    ratios = [a / b for a, b in zip(rates["with"], rates["without"], strict=True)]
    pairs = [
        x == y
        for one, other in zip(answers["with"], answers["without"], strict=True)
        for x, y in zip(one, other, strict=False)
    ]
    return {
        "ratio": median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        **{side: median(found) for side, found in rates.items()},
        "equal": sum(pairs) / len(pairs),
    }


def _answer(llm: LLM, prompts: list[str], params: SamplingParams) -> tuple[list[list[int]], float]:
    """Answers, and generated tokens by the time behind the first token of each."""
    answers, seconds, count = [], 0.0, 0
    for prompt in prompts:
        first, ids = 0.0, []
        for chunk in llm.stream(llm.format_chat([{"role": "user", "content": prompt}]), params):
            first = first or perf_counter()
            ids += chunk.token_ids
        seconds += perf_counter() - first
        count += len(ids) - 1
        answers.append(ids)
    return answers, count / seconds


if __name__ == "__main__":
    sys.exit(main())
