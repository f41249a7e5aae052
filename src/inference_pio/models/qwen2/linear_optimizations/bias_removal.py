"""Biases: q, k and v have one by design.

In Qwen2.5-Coder-1.5B-Instruct none of their 57,344 elements is zero; the largest of k is 354 in the first layer and of
q 29, where most are around 0.3. So all 28 merged biases stay, and the technique acts on checkpoints whose biases were
set to zero by whoever converted them.

Two ways around the addition that look open are not. A bias of k would cancel in the softmax, being the same in every
score of a query, if rotary positions did not turn it by a different angle for each key. A bias of v does come out of
attention unchanged, since a query's weights sum to 1, and could be carried through o_proj; but there it would be added
to the hidden states by a map that adds nothing now, while q and k keep theirs in the same merged addition.
"""

from __future__ import annotations

from inference_pio.models.qwen2.config import Qwen2Config
from inference_pio.plugin import techniques
from inference_pio.plugin.facts import TechniqueFact


def technique(config: Qwen2Config) -> TechniqueFact:
    return techniques.bias_removal(config, "q, k and v")
