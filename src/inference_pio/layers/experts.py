"""The experts of a mixture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.parallel import Shard


class Experts(nn.Module):
    """Σ over a token's experts of weight · down(silu(gate(x)) · up(x)).

    Each rank holds a part of every expert's intermediate features; the ranks' results are summed. Parameters are
    stacked: gate_up_proj [experts, 2 · intermediate, hidden], the gate's rows first, down_proj [experts, hidden,
    intermediate]. A weight map stacks and merges them out of one tensor per expert (`WeightMap.stack`, `merge`). Both
    may stay in blocks: they are in `stacks` then.
    """

    def __init__(self, num_experts: int, hidden_size: int, intermediate_size: int, shard: Shard) -> None:
        super().__init__()
        self.shard = shard
        width = shard.part(intermediate_size)
        self.hidden_size, self.width = hidden_size, width
        self.gate_up_proj: nn.Parameter | None = nn.Parameter(
            torch.empty(num_experts, 2 * width, hidden_size), requires_grad=False
        )
        self.down_proj: nn.Parameter | None = nn.Parameter(
            torch.empty(num_experts, hidden_size, width), requires_grad=False
        )
        self.stacks: dict[str, ops.QuantizedStack] = {}

    def take_stack(self, name: str, stack: ops.QuantizedStack) -> None:
        self.stacks[name] = stack
        setattr(self, name, None)

    def forward(self, x_TD: Tensor, chosen_TK: Tensor, weights_TK: Tensor) -> Tensor:
        """chosen [T, K] int64 and weights [T, K] float32, as the model's router gives them."""
        gate_up, down = self._weights("gate_up_proj"), self._weights("down_proj")
        y_TD = ops.experts(x_TD, gate_up, down, chosen_TK, weights_TK)
        return self.shard.group.all_reduce(y_TD, self.shard.rank)

    def _weights(self, name: str) -> Tensor | ops.QuantizedStack:
        stack = self.stacks.get(name)
        return self.get_parameter(name) if stack is None else stack

    def bytes_of_a_call(self, per_token: int, tokens: int, itemsize: int) -> int:
        """What it holds for a moment (`NeedsScratch`): what each of a token's experts made, that in float32 and
        weighted, and the rows and features of one expert that everybody chose; a quarter more for what is lost between
        blocks of so many sizes.
        """
        made = per_token * self.hidden_size * (itemsize + 4 + (4 if itemsize < 4 else 0))
        one = (2 * self.hidden_size + 3 * self.width) * itemsize + 4 * self.hidden_size
        return int(1.25 * tokens * (made + one))
