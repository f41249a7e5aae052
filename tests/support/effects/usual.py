"""Effects of techniques that every decoder has."""

from __future__ import annotations

import torch

from inference_pio import ops
from inference_pio.layers import ResidualNorm
from inference_pio.optimizations.attention.attending import attending
from inference_pio.optimizations.registry import TECHNIQUES
from inference_pio.plugin.serving import serving_of
from support.effects import Tiny, effect_of
from support.effects.models import loaded, model_of


@effect_of("flash_attention")
def flash_attention(tiny: Tiny) -> None:
    with loaded(tiny("grouped"), disable=("flash_attention",)) as plugin:
        model = model_of(plugin)
        assert {how.prefill for _, how in attending(model)} == {ops.reference.paged_attention}
        TECHNIQUES["flash_attention"].apply(model, plugin.config)
        assert {how.prefill for _, how in attending(model)} == {ops.paged_attention}


@effect_of("paged_attention")
def paged_attention(tiny: Tiny) -> None:
    with loaded(tiny("grouped"), disable=("paged_attention",)) as plugin:
        model = model_of(plugin)
        assert {how.decode for _, how in attending(model)} == {ops.reference.paged_attention}
        TECHNIQUES["paged_attention"].apply(model, plugin.config)
        assert {how.decode for _, how in attending(model)} == {ops.paged_attention}


@effect_of("fused_layer_norm")
def fused_layer_norm(tiny: Tiny) -> None:
    with loaded(tiny("grouped"), disable=("fused_layer_norm",)) as plugin:
        model = model_of(plugin)
        norms = [module for module in model.modules() if isinstance(module, ResidualNorm)]
        assert not any(norm.fused for norm in norms)
        TECHNIQUES["fused_layer_norm"].apply(model, plugin.config)
        assert all(norm.fused for norm in norms)


@effect_of("kv_int8")
def kv_int8(tiny: Tiny) -> None:
    bytes_per_token = []
    for options in ({"enable": ("kv_int8",)}, {"disable": ("kv_int8",)}):
        with loaded(tiny("grouped"), **options) as plugin:
            specs = serving_of(model_of(plugin)).cache_specs
            bytes_per_token.append(sum(spec.bytes_per_token() for spec in specs))
    assert bytes_per_token[0] < bytes_per_token[1] / 2
    with loaded(tiny("grouped"), enable=("kv_int8",)) as plugin:
        assert {spec.dtype for spec in serving_of(model_of(plugin)).cache_specs} == {torch.int8}


@effect_of("prefix_caching")
def prefix_caching(tiny: Tiny) -> None:
    text = "the cat sat on the mat and looked at the other cat " * 3
    hits = []
    for options in ({}, {"disable": ("prefix_caching",)}):
        with loaded(tiny("grouped"), **options) as plugin:
            for _ in range(2):
                plugin.generate_text(text, max_new_tokens=1)
            hits.append(plugin.get_compute_stats()["prefix_cache_hit_tokens"])
    assert hits[0] > 0
    assert hits[1] == 0
