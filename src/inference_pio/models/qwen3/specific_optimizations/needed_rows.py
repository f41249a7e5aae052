"""Behind the last layer's attention only the rows that need logits go on (`layers.keep_rows`).

The head of Qwen3-0.6B is 26 % of the weights that a token is multiplied with, that of Qwen3-8B 8 %.
`benchmarks/benchmark_optimization_impact.py` measures what that is worth.
"""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.needed_rows(
        "the head is 26 % of what a token is multiplied with in Qwen3-0.6B, 8 % in Qwen3-8B"
    )
