"""What one layer must remember, stated in bytes before anything is allocated.

A plugin returns one spec per layer. The planner turns a memory budget into blocks (memory that grows with tokens)
and slots (memory fixed per sequence); the engine allocates through `allocate` and hands each layer its own cache.
A layer reads `batch.block_tables` and `batch.slot_mapping` if it keeps tokens, `batch.state_slots` if it keeps state.
Slots are handed on as they are: a sequence whose first row has position 0 starts from an empty state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from inference_pio.errors import ConfigError

_SCALE = torch.float32
_STATE = torch.float32


@runtime_checkable
class CacheSpec(Protocol):
    """The seam: paged keys and values, latents, and recurrent state are implementations of the same methods."""

    def bytes_per_token(self) -> int:
        """Bytes that one token of one sequence takes; 0 for layers with state only."""

    def bytes_per_sequence(self) -> int:
        """Bytes that one sequence takes whatever its length; 0 for layers that keep tokens only."""

    def allocate(self, num_blocks: int, block_size: int, num_slots: int, device: torch.device) -> Any:
        """The layer's cache for that many blocks and slots; what it is, only the layer knows."""


@dataclass(frozen=True)
class KVCache:
    """Keys and values of one layer in blocks: k and v are [num_blocks, num_kv_heads, block_size, head_dim].

    A token's slot is `block * block_size + offset`. Tokens of a head lie side by side, so that decoding one
    sequence reads memory in order.

    Whole numbers (int8) have scales, float32 [num_blocks, num_kv_heads, 2, block_size], those of keys first: a token's
    key is `k * scale`. They lie in a tensor of their own because rows of H bytes are then whole cache lines, and those
    of a head's block side by side because attention takes them as vectors, one scale per lane as one key per lane.
    """

    k: Tensor
    v: Tensor
    scales: Tensor | None = None


@dataclass(frozen=True)
class PagedKV:
    """Keys and values of every token, in blocks; in int8, each of a head's with a scale of its own."""

    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype

    def bytes_per_token(self) -> int:
        scale = _SCALE.itemsize if self.dtype == torch.int8 else 0
        return 2 * self.num_kv_heads * (self.head_dim * self.dtype.itemsize + scale)

    def bytes_per_sequence(self) -> int:
        return 0

    def allocate(self, num_blocks: int, block_size: int, num_slots: int, device: torch.device) -> KVCache:  # noqa: ARG002
        shape = (num_blocks, self.num_kv_heads, block_size, self.head_dim)
        k, v = (_zeros(shape, self.dtype, device) for _ in range(2))
        if self.dtype != torch.int8:
            return KVCache(k, v)
        return KVCache(k, v, _zeros((num_blocks, self.num_kv_heads, 2, block_size), _SCALE, device))


@dataclass(frozen=True)
class LatentCache:
    """One row per token for all heads, in blocks: rows is [num_blocks, block_size, latent_dim + rope_dim].

    A row is the token's latent and, behind it, the rotary key that all heads share. A token's slot is
    `block * block_size + offset`. Seen as [num_blocks, 1, block_size, width] the rows are keys and values of one head.
    """

    rows: Tensor


@dataclass(frozen=True)
class PagedLatent:
    """What latent attention keeps of every token, in blocks.

    Raises:
        ConfigError: int8, in which a latent and a rotary key would have to share one scale.
    """

    latent_dim: int
    rope_dim: int
    dtype: torch.dtype

    def __post_init__(self) -> None:
        if self.dtype == torch.int8:
            raise ConfigError(
                "a latent cache is not kept in int8: use kv_cache_dtype auto, bfloat16 or float32"
            )

    def bytes_per_token(self) -> int:
        return (self.latent_dim + self.rope_dim) * self.dtype.itemsize

    def bytes_per_sequence(self) -> int:
        return 0

    def allocate(self, num_blocks: int, block_size: int, num_slots: int, device: torch.device) -> LatentCache:  # noqa: ARG002
        return LatentCache(
            _zeros((num_blocks, block_size, self.latent_dim + self.rope_dim), self.dtype, device)
        )


@dataclass(frozen=True)
class StateCache:
    """What one layer with a gated delta rule carries from token to token, by slot.

    conv       [slots, width - 1, channels]: the inputs of the convolution before the next token, the oldest first
    recurrent  [slots, heads, key_dim, value_dim]: the matrix that keys write and queries read
    """

    conv: Tensor
    recurrent: Tensor


@dataclass(frozen=True)
class RecurrentState:
    """Memory of one size however long the sequence is: the end of a convolution's input, and a matrix for each head.

    Both are float32. The matrix is a sum over all tokens, which 16 bits would round once per token. Inputs of the
    convolution are kept as exactly as they are computed, so that where a prompt is cut into steps shows nowhere.
    """

    channels: int
    width: int
    num_heads: int
    key_dim: int
    value_dim: int

    def bytes_per_token(self) -> int:
        return 0

    def bytes_per_sequence(self) -> int:
        numbers = (self.width - 1) * self.channels + self.num_heads * self.key_dim * self.value_dim
        return numbers * _STATE.itemsize

    def allocate(self, num_blocks: int, block_size: int, num_slots: int, device: torch.device) -> StateCache:  # noqa: ARG002
        conv = _zeros((num_slots, self.width - 1, self.channels), _STATE, device)
        return StateCache(
            conv, _zeros((num_slots, self.num_heads, self.key_dim, self.value_dim), _STATE, device)
        )


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # numpy's zeros are the operating system's zero pages: they take memory only once written.
    flat = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(flat).view(dtype).view(shape)
