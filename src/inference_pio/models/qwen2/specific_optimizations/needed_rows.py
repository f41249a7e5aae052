"""Behind the last layer's attention only the rows that need logits go on (`layers.keep_rows`).

The head of Qwen2.5-Coder-1.5B is 15 % of the weights that a token is multiplied with, the last feed-forward block
2.7 %. `benchmarks/benchmark_optimization_impact.py` measures what that is worth.
"""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.needed_rows("the head is 15 % of what a token is multiplied with in Qwen2.5-Coder-1.5B")
