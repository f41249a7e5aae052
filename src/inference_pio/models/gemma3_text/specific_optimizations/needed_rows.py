"""Behind the last layer's attention only the rows that need logits go on (`layers.keep_rows`).

The head of Gemma-3-270M has 262,144 rows: 63 % of the weights that a token is multiplied with.
`benchmarks/benchmark_optimization_impact.py` measures what that is worth.
"""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.needed_rows("the head is 63 % of what a token is multiplied with in Gemma-3-270M")
