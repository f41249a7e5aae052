"""Gated DeltaNet (Yang et al. 2025): a layer whose memory is one matrix for each value head, whatever the length.

A key looks up what the matrix holds for it and corrects that towards its value; before each token the matrix decays.
`ops.gated_delta_rule` has the rule, in its two forms; this file has what Qwen3-Next puts around it.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.cache.specs import StateCache
from inference_pio.layers import Linear, RowParallelLinear
from inference_pio.models.qwen3_next.config import DELTA_NET, Qwen3NextConfig
from inference_pio.models.qwen3_next.linear_optimizations.weight_layout import DenseMap
from inference_pio.parallel import Shard
from inference_pio.plugin.facts import TechniqueFact

# T tokens of the step, D hidden size, M key heads, N value heads, K key size, V value size, C = 2·M·K + N·V channels

WORKSPACE_BYTES = 64 * 2**20  # measured: a prompt's first chunks


class ShortConv(nn.Module):
    """Holds the taps of the convolution, [channels, 1, width] as checkpoints have them, in float32."""

    parameter_dtype = torch.float32

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, width), requires_grad=False)

    def forward(self, x_TC: Tensor, state: Tensor, where: ops.Spans) -> Tensor:
        return ops.causal_conv(x_TC, self.weight[:, 0], state, where)


class GatedNorm(nn.Module):
    """norm(x) · weight · silu(gate) over each value head; its weight is not zero-centred, and stays float32."""

    parameter_dtype = torch.float32

    def __init__(self, config: Qwen3NextConfig) -> None:
        super().__init__()
        self.eps = config.rms_norm_eps
        self.weight = nn.Parameter(torch.empty(config.linear_value_head_dim), requires_grad=False)

    def forward(self, x_TNV: Tensor, gate_TNV: Tensor) -> Tensor:
        return ops.gated_rms_norm(x_TNV, gate_TNV, self.weight, self.eps)


class GatedDeltaNet(nn.Module):
    """out_proj(norm(rule(conv(q, k, v))) · silu(z)), with the decay and the rate of correction from the input.

    Rows of both input projections are grouped by key head: of each its query, its key, and the values and z of the
    value heads that it serves; likewise b and a.
    """

    parameter_dtype = torch.float32  # of A_log and dt_bias: exp(A_log) acts on every token that follows

    def __init__(self, config: Qwen3NextConfig, shard: Shard) -> None:
        super().__init__()
        self.key_heads = shard.part(config.linear_num_key_heads)
        self.group = config.linear_num_value_heads // config.linear_num_key_heads
        self.key_dim, self.value_dim = config.linear_key_head_dim, config.linear_value_head_dim
        value_heads = self.key_heads * self.group
        keys, values = self.key_heads * self.key_dim, value_heads * self.value_dim
        self.in_proj_qkvz = Linear(config.hidden_size, 2 * (keys + values))
        self.in_proj_ba = DenseMap(config.hidden_size, 2 * value_heads)
        self.conv1d = ShortConv(2 * keys + values, config.linear_conv_kernel_dim)
        self.A_log = nn.Parameter(torch.empty(value_heads), requires_grad=False)
        self.dt_bias = nn.Parameter(torch.empty(value_heads), requires_grad=False)
        self.norm = GatedNorm(config)
        self.out_proj = RowParallelLinear(values, config.hidden_size, shard)

    def forward(self, x_TD: Tensor, where: ops.Spans, cache: StateCache) -> Tensor:
        inputs_TC, z_TNV, b_TN, a_TN = self.project(x_TD)
        qkv_TC = self.conv1d(inputs_TC, cache.conv, where)
        keys = self.key_heads * self.key_dim
        q_TX, k_TX, v_TX = qkv_TC.split((keys, keys, qkv_TC.shape[1] - 2 * keys), dim=1)
        g_TN, beta_TN = ops.decay_and_rate(a_TN, b_TN, self.A_log, self.dt_bias)
        cache.remember(where, inputs_TC, qkv_TC, g_TN, beta_TN)
        o_TNV = ops.gated_delta_rule(
            q_TX.unflatten(1, (-1, self.key_dim)),
            k_TX.unflatten(1, (-1, self.key_dim)),
            v_TX.unflatten(1, (-1, self.value_dim)),
            g_TN,
            beta_TN,
            cache.recurrent,
            where,
        )
        y_TD: Tensor = self.out_proj(self.norm(o_TNV, z_TNV).flatten(1))
        return y_TD

    def project(self, x_TD: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(q|k|v [T, C] as the convolution takes them, z [T, N, V], b [T, N], a [T, N])."""
        qkvz, ba = self.in_proj_qkvz(x_TD), self.in_proj_ba(x_TD)
        keys, values = self.key_dim, self.group * self.value_dim
        q, k, v, z = self._of_each_head(keys, keys, values, values)
        b, a = self._of_each_head(self.group, self.group)
        z_TNV = ops.take_columns(qkvz, z).unflatten(1, (-1, self.value_dim))
        return ops.take_columns(qkvz, q + k + v), z_TNV, ops.take_columns(ba, b), ops.take_columns(ba, a)

    def _of_each_head(self, *sizes: int) -> list[list[int]]:
        """Runs of columns, for `take_columns`, of each of the parts that a key head's columns are made of."""
        ends = list(accumulate(sizes))
        return [
            [number for head in range(self.key_heads) for number in (head * ends[-1] + end - size, size)]
            for size, end in zip(sizes, ends, strict=True)
        ]

    def scratch_bytes(self, tokens: int, sequences: int, context: int, itemsize: int) -> int:  # noqa: ARG002
        """The convolution: its input and output and z, and in float32 its window, a product and two sums. What the
        library's products of many small matrices take beside that does not grow with tokens.
        """
        channels, values = self.conv1d.weight.shape[0], self.key_heads * self.group * self.value_dim
        return int(1.25 * tokens * ((2 * channels + values) * itemsize + 4 * channels * 4)) + WORKSPACE_BYTES


def technique(config: Qwen3NextConfig) -> TechniqueFact:
    layers = config.layer_types.count(DELTA_NET)
    return TechniqueFact(
        "gated delta rule in chunks",
        "attention",
        "active" if layers else "not applicable",
        exact=True,
        reason=f"prefill of {layers} of {config.num_hidden_layers} layers, {ops.DELTA_CHUNK} tokens at once"
        if layers
        else "every layer attends",
    )
