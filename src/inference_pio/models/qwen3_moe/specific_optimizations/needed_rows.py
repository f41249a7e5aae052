"""Behind the last layer's attention only the rows that need logits go on (`layers.keep_rows`).

For a mixture that saves more than arithmetic. A prompt's 512 rows choose nearly all of the last layer's 128 experts,
340 MB of weights in 4 bits; its one last row chooses 8 of them.
`benchmarks/benchmark_optimization_impact.py` measures what that is worth.
"""

from __future__ import annotations

from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique() -> TechniqueFact:
    return techniques.needed_rows(
        "a prompt's one last row chooses 8 of the last layer's experts, all of its rows nearly every one"
    )
