"""Behind the last layer's attention only the rows that need logits go on (`layers.keep_rows`).

The head is a fifth of the weights of SmolLM2-135M.
`benchmarks/benchmark_optimization_impact.py` measures what that is worth.
"""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.needed_rows("the head is a fifth of the weights of SmolLM2-135M")
