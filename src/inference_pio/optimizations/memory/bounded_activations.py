"""What lies between two operations of a long step takes bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

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
from inference_pio.plugin.causal_lm import HeadedModel
from inference_pio.plugin.drafting import DraftingModel
from inference_pio.plugin.serving import LOGIT_BYTES, serving_of

ROWS = 128
LOGIT_ROWS = 64  # no step of as few costs more for it: the head reads its weights once
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


class BoundedLogits(Technique):
    """The head takes a step's rows in pieces, each of which is drawn from before the next is computed, and is no part
    of recorded steps, of which each would keep the logits of its shape.

    Logits are the widest rows of a step: one per sequence and one per draft, `vocab_size` numbers each.
    """

    name = "bounded_logits"
    title = "bounded logits"
    family = _FAMILY
    category = "memory"
    exact = True
    flags = ("gradient_checkpointing",)
    shows_on = "memory"

    def standing(self, at: Situation) -> Standing:
        if not isinstance(at.model, HeadedModel):
            return not_applicable("its head is part of its step")
        if at.options.speculation and isinstance(at.model, DraftingModel) and at.model.can_draft:
            return dormant("the layer that drafts needs logits of every sequence at once")
        if at.config.use_tensor_parallelism and at.options.tensor_parallel_size > 1:
            return dormant("the head is divided over ranks, and part of their step")
        most = serving_of(at.model).most_logit_rows
        saved = _saved(most, at.config.vocab_size)
        if saved <= 0:
            return dormant(f"a step has {most} rows of logits at most, and a piece {LOGIT_ROWS}")
        if saved < WORTH_BYTES and self.name not in at.options.enable:
            return dormant(
                f"pieces would save {saved / 2**20:.1f} MiB of logits, and pay from {WORTH_BYTES / 2**20:.0f} MiB on"
            )
        return active(
            f"the head takes {LOGIT_ROWS} rows of {most} at once, which saves {saved / 2**20:.0f} MiB"
        )

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        serving_of(model).logit_rows = LOGIT_ROWS
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        serving, saved = serving_of(model), 0
        if serving.logit_rows is not None and isinstance(model, HeadedModel):
            saved = _saved(serving.most_logit_rows, model.lm_head.out_features)
        return {**self.facts(), "rows_at_once": serving.logit_rows, "saved_bytes": saved}


def _saved(most_rows: int, vocab_size: int) -> int:
    return (most_rows - LOGIT_ROWS) * vocab_size * LOGIT_BYTES


class BoundedScores(Technique):
    """Where attention materialises its scores, it does so for some of the queries at once (Rabe and Staats 2021)."""

    name = "bounded_scores"
    title = "memory-efficient attention"
    family = _FAMILY
    category = "memory"
    exact = True
    flags = ("enable_memory_efficient_attention",)
    both: ClassVar[Mapping[str, Any]] = {"use_flash_attention_2": False}  # whose tiles bound them already
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
