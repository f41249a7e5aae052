"""What lies between two operations of a long step takes bounded memory."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from inference_pio import ops
from inference_pio.layers import GatedMLP
from inference_pio.optimizations.attention.attending import attending, set_attention
from inference_pio.optimizations.technique import (
    Situation,
    Standing,
    Technique,
    active,
    dormant,
    not_applicable,
)

ROWS = 128
WORTH_BYTES = 64 * 2**20  # pieces of 128 tokens cost 7 % of a prompt's time (SmolLM2-135M, 2 cores)
_FAMILY = "activation offloading"


class BoundedMLP(Technique):
    """The feed-forward blocks take a step's tokens in pieces, so that gate and up of all of them never stand at once.

    In training this memory is saved by computing again (the standard's gradient_checkpointing); in inference nothing
    has to be computed again, since nothing is looked at twice.
    """

    name = "bounded_mlp"
    title = "bounded activations"
    family = _FAMILY
    category = "memory"
    exact = True
    flags = ("gradient_checkpointing",)
    shows_on = "memory"

    def standing(self, at: Situation) -> Standing:
        if not any(isinstance(module, GatedMLP) for module in at.model.modules()):
            return not_applicable("its feed-forward blocks are of another kind")
        tokens = min(at.options.max_num_batched_tokens, at.config.max_position_embeddings)
        most = 2 * tokens * at.config.intermediate_size * at.dtype.itemsize
        if tokens <= ROWS:
            return dormant(f"a step has {tokens} tokens at most, and a piece {ROWS}")
        if most < WORTH_BYTES and self.name not in at.options.enable:
            return dormant(
                f"gate and up of {tokens} tokens take {most / 2**20:.1f} MiB; pieces cost some speed, and pay from "
                f"{WORTH_BYTES / 2**20:.0f} MiB on"
            )
        return active(f"feed-forward blocks take {ROWS} tokens at once")

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        for module in model.modules():
            if isinstance(module, GatedMLP):
                module.rows = ROWS
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        blocks = [module for module in model.modules() if isinstance(module, GatedMLP)]
        return {**self.facts(), "blocks": sum(block.rows is not None for block in blocks)}


class BoundedScores(Technique):
    """Where attention materialises its scores, it does so for some of the queries at once (Rabe and Staats 2021)."""

    name = "bounded_scores"
    title = "memory-efficient attention"
    family = _FAMILY
    category = "memory"
    exact = True
    flags = ("enable_memory_efficient_attention",)
    shows_on = "memory"

    def standing(self, at: Situation) -> Standing:
        ways = [way for _, how in attending(at.model) for way in (how.prefill, how.decode)]
        if not ways:
            return not_applicable("its layers do not attend over keys and values of their own")
        if all(way is ops.paged_attention for way in ways) and ops.is_native() and at.device.type == "cpu":
            return dormant("tiles with an online softmax bound the scores already")
        return active(f"the scores of {ROWS} queries stand in memory at once")

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        for module, how in attending(model):
            set_attention(module, replace(how, prefill=_bounded(how.prefill), decode=_bounded(how.decode)))
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        ways = [how.prefill for _, how in attending(model)]
        return {**self.facts(), "layers": sum(way is _IN_PIECES for way in ways)}


_IN_PIECES = partial(ops.reference.paged_attention, rows_at_once=ROWS)


def _bounded(way: Any) -> Any:
    """The torch reference in pieces; a native one is bounded already."""
    return _IN_PIECES if way is ops.reference.paged_attention else way
