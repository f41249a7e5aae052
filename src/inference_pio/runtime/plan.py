"""How much memory a model takes, computed from headers before a byte of it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from inference_pio.cache.specs import state_specs
from inference_pio.engine.config import most_behind
from inference_pio.engine.media import FEATURE_CACHE_BYTES
from inference_pio.engine.step_costs import DRAFT_COUNTS
from inference_pio.errors import ContextLengthError, ResourceError
from inference_pio.plugin.serving import LOGIT_BYTES
from inference_pio.runtime.cache_room import (
    MAX_DEFAULT_KV_BYTES,
    SHORTEST,
    kv_tokens,
    num_seqs,
    num_snapshots,
)

if TYPE_CHECKING:
    from inference_pio.cache.specs import CacheSpec
    from inference_pio.config import BaseModelConfig
    from inference_pio.plugin.media import MediaProcessor
    from inference_pio.plugin.runtime import RuntimeOptions
    from inference_pio.plugin.serving import Serving

# Interpreter, torch and its thread pools, and what the first steps leave: 0.22 GB resident, measured on Linux, and in a
# worker up to 0.28 GB with what is mapped and not used, which counts against its limit as well.
RUNTIME_BYTES = 281_000_000
# Of each token of a vocabulary, beside that: in metadata and in the tokenizer's tables. With 152,000 tokens a process
# had 0.29 GB of its own beside weights and cache, with 49,000 0.21 GB.
TOKEN_BYTES = 300

Scratch = Callable[[int, int, int], int]


def _no_scratch(tokens: int, sequences: int, context: int) -> int:  # noqa: ARG001
    return 0


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of each part. `budget` is what may be used, and `budget_name` where that number comes from.

    logit_rows are the positions of one step whose logits are in memory at once: one per sequence, and drafts, or fewer.
    Where layers keep state, the KV cache holds `state_bytes_per_sequence` for `num_seqs` sequences and `num_snapshots`
    copies beside `kv_tokens` tokens, and what `num_held` tokens of a step would add to it, drafts above all.
    `mapped` bytes of experts lie on the disk and not among the weights: what memory is free keeps those in use.
    `paged` bytes of layers do as well, and are read each time; the window that they pass through is among the weights.
    `positions` are those that the model was made for.
    `loading` is what reading the weights holds beside them for a moment: it has gone before what follows is allocated.
    """

    weights: int
    kv_cache: int
    activations: int
    logits: int
    images: int
    runtime: int
    budget: int
    budget_name: str
    max_model_len: int
    kv_tokens: int
    kv_bytes_per_token: int
    logit_rows: int
    num_seqs: int
    state_bytes_per_sequence: int
    num_snapshots: int
    num_held: int
    state_bytes_per_draft: int
    mapped: int
    positions: int
    paged: int = 0
    loading: int = 0

    @property
    def state(self) -> int:
        """The part of the KV cache that does not grow with tokens."""
        return self.num_seqs * self.state_bytes_per_sequence + self.snapshots + self.held

    @property
    def snapshots(self) -> int:
        """Of the state, what is kept for later requests."""
        return self.num_snapshots * self.state_bytes_per_sequence

    @property
    def held(self) -> int:
        """Of the state, what is not part of it yet."""
        return self.num_held * self.state_bytes_per_draft

    @property
    def total(self) -> int:
        """The most at any time: while weights are loaded, or afterwards."""
        return max(self.besides + self.kv_cache, self._at_loading)

    @property
    def besides(self) -> int:
        """What is there beside the KV cache, once the weights are loaded."""
        return self.weights + self.activations + self.logits + self.images + self.runtime

    @property
    def _at_loading(self) -> int:
        return self.weights + self.loading + self.runtime

    @property
    def fits(self) -> bool:
        return self.total <= self.budget

    @property
    def room(self) -> int:
        """What the budget leaves for sequences, beside weights and what a step of one of them takes."""
        return max(0, self.budget - self.besides)

    @property
    def least(self) -> int:
        """What it would need for one sequence at a time, no longer than is of any use."""
        tokens = min(SHORTEST, self.positions)
        one = tokens * self.kv_bytes_per_token + self.state_bytes_per_sequence
        return max(self.besides + one, self._at_loading)

    @property
    def longest(self) -> int:
        """Tokens of the longest single sequence that fits, whatever was asked for; 0: none."""
        if not self.kv_bytes_per_token:
            return self.positions if self.room >= self.state_bytes_per_sequence else 0
        left = max(0, self.room - self.state_bytes_per_sequence)
        return min(self.positions, left // self.kv_bytes_per_token)

    @property
    def longest_at_once(self) -> int:
        """How many sequences of `longest` tokens fit at once."""
        if not self.longest:
            return 0
        logits = self.logits // self.logit_rows
        each = self.state_bytes_per_sequence + self.longest * self.kv_bytes_per_token + logits
        return max(1, (self.room + min(self.num_seqs, self.logit_rows) * logits) // each)

    def sum_text(self) -> str:
        """The arithmetic in one line."""
        images = ("images",) if self.images else ()
        parts: tuple[str, ...] = ("weights", "kv_cache", "activations", "logits", *images, "runtime")
        if self._at_loading == self.total:
            parts = ("weights", "loading", "runtime")
        terms = " + ".join(
            f"{part.replace('kv_cache', 'KV cache')} {_gb(getattr(self, part))}" for part in parts
        )
        sign = "≤" if self.fits else ">"
        return f"{terms} = {_gb(self.total)} GB {sign} {_gb(self.budget)} GB {self.budget_name}"

    def advice(self) -> str:
        """How to make it fit; empty where it does."""
        if self.fits:
            return ""
        room = self.budget - self.besides - self.state
        tokens = room // self.kv_bytes_per_token if self.kv_bytes_per_token else 0
        loads = self._at_loading <= self.budget
        if loads and tokens >= self.max_model_len:
            return f"with kv_cache_memory_gb {room // 1e6 / 1e3:g} it fits"
        if loads and tokens >= SHORTEST:
            return f"with max_model_len {tokens // 64 * 64} it fits"
        return f"it needs {_gb(self.least)} GB at least: raise the limit or take a smaller model"

    def check(self, name: str) -> None:
        """Raise `ResourceError` with the arithmetic and the way out where it does not fit."""
        if not self.fits:
            raise ResourceError(f"{name} does not fit: {self.sum_text()}; {self.advice()}")

    def _most(self) -> dict[str, int]:
        return {"longest": self.longest, "longest_at_once": self.longest_at_once}

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "total": self.total,
            "fits": self.fits,
            "advice": self.advice(),
            "longest": self.longest,
            "longest_at_once": self.longest_at_once,
        }


@dataclass(frozen=True)
class Budget:
    """Bytes that may be used, and where that number comes from."""

    bytes: int
    name: str


def plan_memory(
    config: BaseModelConfig,
    serving: Serving,
    options: RuntimeOptions,
    budget: Budget,
    weight_bytes: int,
    *,
    itemsize: int,
    mapped_bytes: int,
    reuse: Literal["blocks", "snapshots"],
    images: MediaProcessor | None,
    scratch: Scratch = _no_scratch,
) -> MemoryPlan:
    """The plan for one model.

    Args:
        serving: what the model asks of the engine: the specs of its caches, and what is kept of them for later.
        weight_bytes: of all parameters.
        itemsize: bytes of one activation.
        mapped_bytes: of those parameters that lie in a file, and not in memory.
        reuse: of the model's prefix policy.
        images: of a model that sees: its encoder at work on its largest image, and features that are kept.
        scratch: bytes that a module needs for a moment, for so many tokens of a step, sequences, and tokens of one.

    Raises:
        ContextLengthError: `options.max_model_len` is more than the model was made for.
    """
    options = _in_effect(options, config, serving)
    each = _Each.of(serving.cache_specs)
    longest = options.max_model_len or config.max_position_embeddings
    activations = _activation_bytes(config, options, itemsize, each.token, scratch)
    rows = most_logit_rows(options)
    logit_rows = min(rows, serving.logit_rows or rows)
    logits = logit_rows * config.vocab_size * LOGIT_BYTES
    seen = FEATURE_CACHE_BYTES + images.encoder_bytes(longest, itemsize) if images else 0
    most = serving.prefix_cache_bytes if serving.prefix_caching and reuse == "snapshots" else 0
    weights, runtime = weight_bytes - mapped_bytes, RUNTIME_BYTES + TOKEN_BYTES * config.vocab_size
    room = budget.bytes - (weights + activations + logits + seen + runtime)
    held = _hold(options, each, room, longest, rows - options.max_num_seqs, most)
    return MemoryPlan(
        weights=weights,
        kv_cache=held.bytes_of(each),
        activations=activations,
        logits=logits,
        images=seen,
        runtime=runtime,
        budget=budget.bytes,
        budget_name=budget.name,
        max_model_len=longest if options.max_model_len else min(longest, held.tokens or longest),
        kv_tokens=held.tokens,
        kv_bytes_per_token=each.token,
        logit_rows=logit_rows,
        num_seqs=held.sequences,
        state_bytes_per_sequence=each.sequence,
        num_snapshots=held.snapshots,
        num_held=held.rows if each.draft else 0,
        state_bytes_per_draft=each.draft,
        mapped=mapped_bytes,
        positions=config.max_position_embeddings,
    )


def most_logit_rows(options: RuntimeOptions) -> int:
    """Positions of one step that need logits at most: one per sequence, and drafts."""
    return options.max_num_seqs + min(DRAFT_COUNTS[-1], options.max_num_seqs * options.speculation)


class _Each(NamedTuple):
    """Bytes that all layers together keep of one."""

    token: int
    sequence: int
    draft: int

    @classmethod
    def of(cls, specs: Sequence[CacheSpec]) -> _Each:
        return cls(
            sum(spec.bytes_per_token() for spec in specs),
            sum(spec.bytes_per_sequence() for spec in specs),
            sum(spec.bytes_per_draft() for spec in state_specs(specs)),
        )


class _Held(NamedTuple):
    """How many of each the cache holds; rows are those that a state is held in front of."""

    tokens: int
    sequences: int
    snapshots: int
    rows: int

    def bytes_of(self, each: _Each) -> int:
        states = (self.sequences + self.snapshots) * each.sequence
        return self.tokens * each.token + states + self.rows * each.draft


def _hold(
    options: RuntimeOptions, each: _Each, room: int, longest: int, drafts: int, snapshot_bytes: int
) -> _Held:
    """`room` shared out: states of sequences first, then snapshots within `snapshot_bytes`, then tokens."""
    room -= (drafts + most_behind(1, options.block_size)) * each.draft
    sequences = num_seqs(options, max(0, room), each.sequence)
    room = max(0, room - sequences * each.sequence)
    least = kv_tokens(options, 0, longest, each.token) * each.token
    snapshots = num_snapshots(snapshot_bytes, min(room // 2, room - least), each.sequence)
    tokens = kv_tokens(options, max(0, room - snapshots * each.sequence), longest, each.token)
    snapshots = min(snapshots, tokens // options.block_size)  # each ends with a block of its own
    rows = min(drafts, sequences * options.speculation) + most_behind(snapshots, options.block_size)
    return _Held(tokens, sequences, snapshots, rows)


def _in_effect(options: RuntimeOptions, config: BaseModelConfig, serving: Serving) -> RuntimeOptions:
    """The options, if the model has so many positions; without a budget where nothing is evicted."""
    if (options.max_model_len or 0) > config.max_position_embeddings:
        raise ContextLengthError(
            f"max_model_len {options.max_model_len} is more than the {config.max_position_embeddings} positions "
            f"this model was made for"
        )
    return options if serving.evicts else replace(options, kv_cache_budget=None)


def _activation_bytes(
    config: BaseModelConfig, options: RuntimeOptions, itemsize: int, per_token: int, scratch: Scratch
) -> int:
    """Hidden states and residual, the merged projection and its product, in and out, with a fifth for what torch keeps;
    or what a module needs for a moment, where that is more than the product.
    """
    tokens_per_step = min(options.max_num_batched_tokens, config.max_position_embeddings)
    reach = options.max_model_len or config.max_position_embeddings
    if per_token:
        cached = int((options.kv_cache_memory_gb or 0) * 1e9) or MAX_DEFAULT_KV_BYTES
        reach = min(reach, cached // per_token)
    rows = tokens_per_step * itemsize
    feed_forward = int(1.2 * rows * 3 * config.intermediate_size)
    return int(1.2 * rows * 4 * config.hidden_size) + max(
        feed_forward, scratch(tokens_per_step, options.max_num_seqs, reach)
    )


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f}"
