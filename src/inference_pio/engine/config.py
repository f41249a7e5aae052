"""What the engine may use."""

from __future__ import annotations

from dataclasses import dataclass

from inference_pio import ops
from inference_pio.cache.retention import EvictionPolicy
from inference_pio.engine.step_costs import DRAFT_COUNTS
from inference_pio.errors import ConfigError, ResourceError

_MOST_BEHIND = 32


def most_behind(num_snapshots: int, block_size: int) -> int:
    """Tokens of one step that may lie behind places of snapshots: what a block holds, unless it is large.

    Where layers keep state, memory is reserved for each of them (2.4 MB for Qwen3-Coder-Next).
    """
    return min(block_size, _MOST_BEHIND) if num_snapshots else 0


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Sizes of one engine.

    Args:
        max_model_len: tokens of one sequence at most, prompt and answer together.
        max_num_seqs: sequences that run at once; also the number of state slots where a layer keeps state.
        max_num_batched_tokens: tokens of one step at most; longer prompts are computed in chunks.
        block_size: tokens per cache block.
        num_blocks: cache blocks in all.
        enable_prefix_caching: reuse blocks of equal prefixes, if the model's prefix policy allows it.
        num_snapshots: copies of state kept for later requests, where a layer keeps state; without any such a model's
            prefixes are not reused.
        prefix_cache_max_blocks: blocks that may be kept for later requests only; None for all that are free.
        torch_groups: groups of operations (`ops.GROUPS`) that run in torch, whatever kernels there are.
        recompute: nothing is kept from step to step; a sequence gives its blocks back once its tokens are computed.
        vocabulary: end of the first run of tokens, and start of the last, that the model gives logits for; None: all.
        logit_rows: rows that logits are computed of and drawn from at a time; None: all rows of a step.
        explain_cache: keep what it takes to say why a prefix was not found.
        speculation: tokens that are drafted for one sequence in one step at most; 0 drafts none.
        eviction: how many tokens of a sequence stay in the cache; None keeps all.

    Raises:
        ConfigError: a number is out of range.
        ResourceError: the blocks do not hold one sequence of `max_model_len` tokens, or as much of it as eviction
            keeps and one block more.
    """

    max_model_len: int
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 1024
    block_size: int = 32
    num_blocks: int
    enable_prefix_caching: bool = True
    num_snapshots: int = 0
    prefix_cache_max_blocks: int | None = None
    explain_cache: bool = False
    speculation: int = 0
    torch_groups: frozenset[ops.Group] = frozenset()
    recompute: bool = False
    vocabulary: tuple[int, int] | None = None
    logit_rows: int | None = None
    eviction: EvictionPolicy | None = None

    def __post_init__(self) -> None:
        for name, low in (
            ("max_model_len", 2),
            ("max_num_seqs", 1),
            ("max_num_batched_tokens", 1),
            ("block_size", 1),
            ("num_blocks", 1),
            ("num_snapshots", 0),
            ("speculation", 0),
        ):
            if getattr(self, name) < low:
                raise ConfigError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.prefix_cache_max_blocks is not None and self.prefix_cache_max_blocks < 0:
            raise ConfigError(
                f"prefix_cache_max_blocks must be at least 0, got {self.prefix_cache_max_blocks}"
            )
        capacity = self.num_blocks * self.block_size
        if self.eviction is not None:
            needed = min(self.max_model_len, self.eviction.least_room(self.block_size))
            if capacity < needed:
                raise ResourceError(
                    f"the cache does not hold one sequence: {self.num_blocks} blocks × {self.block_size} tokens = "
                    f"{capacity} < kv_cache_budget {self.eviction.budget} + {self.block_size}; give it more blocks or "
                    f"a smaller budget"
                )
        elif capacity < self.max_model_len:
            raise ResourceError(
                f"the cache does not hold one sequence: {self.num_blocks} blocks × {self.block_size} tokens = "
                f"{capacity} < max_model_len {self.max_model_len}; give it more blocks or max_model_len {capacity}"
            )

    @property
    def max_drafts(self) -> int:
        """Drafts of one step, of all its sequences, at most."""
        return min(self.max_num_seqs * self.speculation, DRAFT_COUNTS[-1])

    @property
    def max_held(self) -> int:
        """Tokens of one step that states wait in front of: drafts, and what lies behind places of snapshots."""
        return self.max_drafts + self.max_behind

    @property
    def max_behind(self) -> int:
        return most_behind(self.num_snapshots, self.block_size)

    @property
    def blocks_per_sequence(self) -> int:
        return -(-self.max_model_len // self.block_size)
