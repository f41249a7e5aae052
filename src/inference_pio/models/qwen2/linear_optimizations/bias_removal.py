"""Biases that are zero throughout are dropped: one addition less per linear map, the same result.

Of the architectures here qwen2 is the one with biases by design: on q, k and v. In Qwen2.5-Coder-1.5B-Instruct none of
their 57,344 elements is zero; the largest of k is 354 in the first layer and of q 29, where most are around 0.3. So all
28 merged biases stay, and this acts on checkpoints whose biases were set to zero by whoever converted them.

Two ways around the addition that look open are not. A bias of k would cancel in the softmax, being the same in every
score of a query, if rotary positions did not turn it by a different angle for each key. A bias of v does come out of
attention unchanged, since a query's weights sum to 1, and could be carried through o_proj; but there it would be added
to the hidden states by a map that adds nothing now, while q and k keep theirs in the same merged addition.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from inference_pio.plugin.bias_removal import ZeroBiasRemoval


class BiasRemoval(ZeroBiasRemoval):
    """Of q, k and v: nothing else has one."""

    def reason(self, biases: Sequence[Tensor]) -> str:
        if not biases:
            return "no linear map adds a bias: those of q, k and v were zero"
        needed = sum(bool(bias.any()) for bias in biases)
        largest = max(bias.abs().max().item() for bias in biases)
        return (
            f"{len(biases)} biases of q, k and v are kept, {needed} of them not zero; the largest element is "
            f"{largest:.3g}"
        )
