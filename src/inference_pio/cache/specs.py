"""What one layer must remember, stated in bytes before anything is allocated.

A plugin returns one spec per layer. The planner turns a memory budget into blocks (memory that grows with tokens)
and slots (memory fixed per sequence); the engine allocates through `allocate` and hands each layer its own cache.
A layer reads `batch.block_tables` and `batch.slot_mapping` if it keeps tokens, `batch.state_slots` if it keeps state.
Slots are handed on as they are: a sequence whose first row has position 0 starts from an empty state, and any other
goes on from what its slot holds, which is what it left there or a copy that the engine has put there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from inference_pio import ops
from inference_pio.errors import ConfigError, PluginError

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


@runtime_checkable
class StateMemory(Protocol):
    """What the cache of a layer with state can do with it between steps.

    A step's last rows of a sequence may be drafts (`ForwardBatch.drafts`): tokens of which nobody knows yet whether
    they count, or in front of which the state is wanted. The layer leaves in the slot the state before the first of
    them and remembers what each one of them would add; drafts are numbered through the step, from 0, in the order of
    their rows. What becomes of them is said before the next step, if anything.
    """

    def copy(self, source: int, target: int) -> None:
        """Make what slot `target` holds what slot `source` holds."""

    def reserve(self, num_drafts: int) -> None:
        """Make room for so many drafts of one step; it is called once, and not at all where there are none."""

    def commit(self, slot: int, first: int, count: int) -> None:
        """Bring the slot's state behind drafts `first` to `first + count`, of which it is in front."""


@runtime_checkable
class StateSpec(CacheSpec, Protocol):
    """A spec whose `bytes_per_sequence` is not 0; its `allocate` gives a `StateMemory`."""

    def bytes_per_draft(self) -> int:
        """Bytes that `StateMemory.reserve` takes for one draft."""


def state_specs(specs: Iterable[CacheSpec]) -> list[StateSpec]:
    """Those that keep state.

    Raises:
        PluginError: one of them does not say what its drafts take.
    """
    stateful = [spec for spec in specs if spec.bytes_per_sequence()]
    for spec in stateful:
        if not isinstance(spec, StateSpec):
            raise PluginError(
                f"{type(spec).__name__} keeps {spec.bytes_per_sequence()} bytes per sequence but has no "
                f"bytes_per_draft: a spec of state follows cache/specs.py, StateSpec and StateMemory"
            )
    return [spec for spec in stateful if isinstance(spec, StateSpec)]


@dataclass(frozen=True)
class KVCache:
    """Keys and values of one layer in blocks: k and v are [num_blocks, num_kv_heads, block_size, head_dim].

    A token's slot is `block * block_size + offset`. Tokens of a head lie side by side, so that decoding one
    sequence reads memory in order.

    Whole numbers (int8, or uint8 with two numbers of 4 bits in a byte and half as many columns) have scales, bfloat16
    [num_blocks, num_kv_heads, 2, block_size], those of keys first (`ops.kept_heads`). They lie in a tensor of their own
    because rows of H bytes are then whole cache lines, and those of a head's block side by side because attention takes
    them as vectors, one scale per lane as one key per lane.

    Where queries choose what they read (`ops.sparse_attention`) a block has bounds, [num_blocks, num_kv_heads, 2,
    head_dim]: the largest and the smallest value of its keys, number by number. They follow from the keys, and are
    computed where keys are written.
    """

    k: Tensor
    v: Tensor
    scales: Tensor | None = None
    bounds: Tensor | None = None


@dataclass(frozen=True)
class PagedKV:
    """Keys and values of every token, in blocks; in whole numbers, each of a head's with a scale of its own.

    dtype          of a float, or int8, or uint8, which stands for two numbers of 4 bits
    bounded_block  tokens of a block whose keys have bounds; None: there are none. A block's bounds are shared out among
                   its tokens, rounded up to whole bytes

    Raises:
        ConfigError: 4 bits, and heads that do not divide into words of eight numbers.
    """

    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    bounded_block: int | None = None

    def __post_init__(self) -> None:
        if self.dtype == torch.uint8 and self.head_dim % 8:
            raise ConfigError(
                f"int4 keys and values come in words of 8, and heads of {self.head_dim} are no multiple of 8: use "
                f"kv_cache_dtype int8 or auto"
            )

    @property
    def scaled(self) -> bool:
        return self.dtype in ops.WHOLE_NUMBERS

    def bytes_per_token(self) -> int:
        scale = ops.SCALE_DTYPE.itemsize if self.scaled else 0
        width = ops.kept_width(self.head_dim, self.dtype)
        stored = 2 * self.num_kv_heads * (width * self.dtype.itemsize + scale)
        if self.bounded_block is None:
            return stored
        bounds = 2 * self.num_kv_heads * self.head_dim * self._bounds_dtype().itemsize
        return stored - (-bounds // self.bounded_block)

    def bytes_per_sequence(self) -> int:
        return 0

    def allocate(self, num_blocks: int, block_size: int, num_slots: int, device: torch.device) -> KVCache:  # noqa: ARG002
        shape = (num_blocks, self.num_kv_heads, block_size, ops.kept_width(self.head_dim, self.dtype))
        k, v = (_zeros(shape, self.dtype, device) for _ in range(2))
        scales = bounds = None
        if self.scaled:
            scales = _zeros((num_blocks, self.num_kv_heads, 2, block_size), ops.SCALE_DTYPE, device)
        if self.bounded_block is not None:
            assert self.bounded_block == block_size, "bounds are those of the cache's own blocks"
            bounds = _zeros((num_blocks, self.num_kv_heads, 2, self.head_dim), self._bounds_dtype(), device)
        return KVCache(k, v, scales, bounds)

    def _bounds_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.scaled else self.dtype


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
        ConfigError: whole numbers, in which a latent and a rotary key would have to share one scale.
    """

    latent_dim: int
    rope_dim: int
    dtype: torch.dtype

    def __post_init__(self) -> None:
        if self.dtype in ops.WHOLE_NUMBERS:
            raise ConfigError(
                f"a latent cache is not kept in {kv_dtype_name(self.dtype)}: "
                f"use kv_cache_dtype auto, bfloat16 or float32"
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
class DraftRows:
    """What R drafts would add to one layer's state, float32.

    inputs  [R, channels]: what the convolution takes
    mixed   [R, channels]: what it gives, queries, keys and values
    g, beta [R, heads]: logarithm of the decay, and rate of correction
    """

    inputs: Tensor
    mixed: Tensor
    g: Tensor
    beta: Tensor


@dataclass
class StateCache:
    """What one layer with a gated delta rule carries from token to token, by slot.

    conv       [slots, width - 1, channels]: the inputs of the convolution before the next token, the oldest first
    recurrent  [slots, heads, key_dim, value_dim]: the matrix that keys write and queries read
    drafts     what the drafts of the last step would add; None before `reserve`

    A draft takes its inputs here and not a copy of the state behind it: of Qwen3-Coder-Next 66 kB a layer in place of
    2.2 MB. What counts is added by reading and writing the state once more, the time of one copy.
    """

    conv: Tensor
    recurrent: Tensor
    drafts: DraftRows | None = None

    def copy(self, source: int, target: int) -> None:
        for states in (self.conv, self.recurrent):
            states[target] = states[source]

    def reserve(self, num_drafts: int) -> None:
        channels, heads, device = self.conv.shape[2], self.recurrent.shape[1], self.conv.device
        shapes = [(num_drafts, width) for width in (channels, channels, heads, heads)]
        self.drafts = DraftRows(*(_zeros(shape, _STATE, device) for shape in shapes))

    def remember(
        self, where: ops.Spans, inputs_TC: Tensor, mixed_TC: Tensor, g_TN: Tensor, beta_TN: Tensor
    ) -> None:
        """Of a step's rows, keep what the drafts among them would add."""
        if where.drafts is None:
            return
        assert self.drafts is not None, "the engine reserves room before it drafts"
        count, kept = len(where.drafts), self.drafts
        for rows, made in zip(
            (kept.inputs, kept.mixed, kept.g, kept.beta), (inputs_TC, mixed_TC, g_TN, beta_TN), strict=True
        ):
            rows[:count] = made[where.drafts]

    def commit(self, slot: int, first: int, count: int) -> None:
        assert self.drafts is not None, "drafts were made before some are accepted"
        kept, rows = self.drafts, slice(first, first + count)
        heads, key_dim, value_dim = self.recurrent.shape[1:]
        self.conv[slot] = torch.cat((self.conv[slot], kept.inputs[rows]))[-self.conv.shape[1] :]
        values = heads * value_dim
        keys = (self.conv.shape[2] - values) // 2
        q_RX, k_RX, v_RX = kept.mixed[rows].split((keys, keys, values), dim=1)
        ops.gated_delta_rule(
            q_RX.unflatten(1, (-1, key_dim)),
            k_RX.unflatten(1, (-1, key_dim)),
            v_RX.unflatten(1, (-1, value_dim)),
            kept.g[rows],
            kept.beta[rows],
            self.recurrent,
            ops.going_on(slot, count, self.conv.device),
        )


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

    def bytes_per_draft(self) -> int:
        return 2 * (self.channels + self.num_heads) * _STATE.itemsize

    def allocate(self, num_blocks: int, block_size: int, num_slots: int, device: torch.device) -> StateCache:  # noqa: ARG002
        conv = _zeros((num_slots, self.width - 1, self.channels), _STATE, device)
        return StateCache(
            conv, _zeros((num_slots, self.num_heads, self.key_dim, self.value_dim), _STATE, device)
        )


def with_kv_dtype(
    specs: Sequence[CacheSpec], dtype_of: Callable[[int], torch.dtype | None]
) -> tuple[CacheSpec, ...]:
    """The same specs with keys and values in a dtype of each layer's own; latents and states stay as they are.

    Args:
        specs: of all layers, in their order.
        dtype_of: the dtype of layer i's keys and values; None: as they are.
    """
    return tuple(
        replace(spec, dtype=dtype_of(layer) or spec.dtype) if isinstance(spec, PagedKV) else spec
        for layer, spec in enumerate(specs)
    )


def kv_dtype_name(dtype: torch.dtype) -> str:
    """As `kv_cache_dtype` has it."""
    return "int4" if dtype == torch.uint8 else str(dtype).removeprefix("torch.")


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # numpy's zeros are the operating system's zero pages: they take memory only once written.
    flat = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(flat).view(dtype).view(shape)
