"""A norm's weight multiplied into the matrix behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.layers import Linear, RMSNorm
from inference_pio.optimizations.hardware.surgery import Surgery
from inference_pio.optimizations.technique import Situation, Standing, active, dormant, not_applicable


class _Folded(NamedTuple):
    norm: RMSNorm
    linear: Linear
    weight: Tensor
    packed: ops.PackedWeight


class FoldedNorms(Surgery):
    """W (g · x) = (W diag(g)) x: exact up to rounding. What is left of the norm is a division.

    Float32 weights only: blocks have no scale per column, and bfloat16 products lie in a layout of their own.
    """

    name = "folded_norms"
    title = "folded norms"
    exact = True
    both: ClassVar[Mapping[str, Any]] = {"torch_dtype": "float32"}
    shows_on = "decode"

    def standing(self, at: Situation) -> Standing:
        if at.packed or at.dtype != torch.float32:
            return not_applicable("weights are not plain float32: their columns cannot be scaled exactly")
        if not _pairs(at.model):
            return not_applicable("no norm of its layers stands in front of one linear map alone")
        if self.name not in at.options.enable:
            return dormant("one multiplication in some thousand less; enable it by name")
        return active("weights of norms are part of the matrices behind them")

    def cut(self, model: nn.Module, config: Any) -> list[_Folded] | None:  # noqa: ARG002
        folded = []
        for norm, linear in _pairs(model):
            packed = linear.packed
            assert isinstance(packed, ops.PackedWeight), "its standing says that weights are dense"
            folded.append(_Folded(norm, linear, norm.weight.data, packed))
            scale = (norm.offset + norm.weight.data.float()).to(packed.tensor.dtype)
            linear.packed = ops.pack_weight(packed.tensor * scale)
            norm.weight.data = torch.full_like(norm.weight.data, 1.0 - norm.offset)
        return folded or None

    def restore(self, model: nn.Module, removed: list[_Folded]) -> None:  # noqa: ARG002
        for one in removed:
            one.norm.weight.data, one.linear.packed = one.weight, one.packed

    def describe(self, removed: list[_Folded]) -> dict[str, Any]:
        return {"norms": len(removed), "values": sum(one.weight.numel() for one in removed)}


def _pairs(model: nn.Module) -> list[tuple[RMSNorm, Linear]]:
    """Each norm in front of one linear map that alone reads it, as decoders' layers name them."""
    found = []
    for module in model.modules():
        # Where a layer has a norm in front of its feed-forward block, the one behind attention is of its output.
        second = (
            "pre_feedforward_layernorm"
            if hasattr(module, "pre_feedforward_layernorm")
            else "post_attention_layernorm"
        )
        for norm_name, linear_name in (
            ("input_layernorm", "self_attn.qkv_proj"),
            (second, "mlp.gate_up_proj"),
        ):
            norm, linear = getattr(module, norm_name, None), _inside(module, linear_name)
            if isinstance(norm, RMSNorm) and linear is not None:
                found.append((norm, linear))
    return found


def _inside(module: nn.Module, name: str) -> Linear | None:
    owner, _, last = name.partition(".")
    found = getattr(getattr(module, owner, None), last, None)
    return found if isinstance(found, Linear) else None
