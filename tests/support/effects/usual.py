"""Effects of techniques that every decoder has."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from inference_pio import ops
from inference_pio.layers import GatedMLP, ResidualNorm
from inference_pio.optimizations.attention.attending import attending
from inference_pio.optimizations.registry import TECHNIQUES
from inference_pio.parallel import RankedModel
from inference_pio.plugin.serving import serving_of
from support.effects import Tiny, effect_of
from support.effects.models import loaded, model_of
from support.effects.watching import computed_rows, counted_attention, score_rows, seen_implementations


@effect_of("flash_attention")
def flash_attention(tiny: Tiny) -> None:
    with loaded(tiny("grouped"), disable=("flash_attention", "bounded_scores")) as plugin:
        model = model_of(plugin)
        assert {how.prefill for _, how in attending(model)} == {ops.reference.paged_attention}
        TECHNIQUES["flash_attention"].apply(model, plugin.config)
        assert {how.prefill for _, how in attending(model)} == {ops.paged_attention}


@effect_of("paged_attention")
def paged_attention(tiny: Tiny) -> None:
    with loaded(tiny("grouped"), disable=("paged_attention", "bounded_scores")) as plugin:
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
    _keeps(tiny, "kv_int8", torch.int8, 16 + 2)


@effect_of("kv_int4")
def kv_int4(tiny: Tiny) -> None:
    _keeps(tiny, "kv_int4", torch.uint8, 8 + 2)


def _keeps(tiny: Tiny, name: str, dtype: torch.dtype, head_bytes: int) -> None:
    """Of heads of 16 numbers, 64 bytes in float32."""
    held = []
    for options in ({"enable": (name,)}, {"disable": (name,)}):
        with loaded(tiny("grouped"), **options) as plugin:
            specs = serving_of(model_of(plugin)).cache_specs
            held.append(sum(spec.bytes_per_token() for spec in specs))
            assert plugin.generate_text("the cat sat on", max_new_tokens=4)
            kinds = {cache.k.dtype for cache in plugin.runtime._loop._core._runner.caches}
        assert kinds == ({dtype} if len(held) == 1 else {torch.float32})
    assert held[0] * 64 == held[1] * head_bytes


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


@effect_of("grouped_query_attention")
def grouped_query_attention(tiny: Tiny) -> None:
    _heads_share(tiny, "grouped", "grouped_query_attention")


@effect_of("multi_query_attention")
def multi_query_attention(tiny: Tiny) -> None:
    _heads_share(tiny, "multi-query", "multi_query_attention")


def _heads_share(tiny: Tiny, model: str, name: str) -> None:
    """Keys are read once per group, and answers are the same bit for bit."""
    answers, calls = [], []
    for options in ({}, {"disable": (name,)}):
        with loaded(tiny(model), **options) as plugin:
            assert {how.grouped for _, how in attending(model_of(plugin))} == {not options}
            with counted_attention(model_of(plugin)) as count:
                answers.append(plugin.generate_text("the cat sat", max_new_tokens=2, temperature=0.0))
            calls.append(count[0])
    assert answers[0] == answers[1]
    assert calls[1] > calls[0]


@effect_of("device_kernels")
def device_kernels(tiny: Tiny) -> None:
    answers = []
    for options in ({}, {"disable": ("device_kernels",)}):
        with loaded(tiny("grouped"), **options) as plugin, seen_implementations() as seen:
            answers.append(plugin.generate_text("the cat sat", max_new_tokens=3, temperature=0.0))
            assert seen == ({"native"} if not options else {"reference"})
    assert answers[0] == answers[1]


@effect_of("cudnn_benchmark")
def cudnn_benchmark(tiny: Tiny) -> None:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        with loaded(tiny("grouped")) as plugin:
            TECHNIQUES["cudnn_benchmark"].apply(model_of(plugin), plugin.config)
            assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = before


@effect_of("compiled_step")
def compiled_step(tiny: Tiny) -> None:
    with loaded(tiny("grouped")) as plugin:
        model = model_of(plugin)
        assert not TECHNIQUES["compiled_step"].get_report(model)["compiled"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own modules, about themselves
            TECHNIQUES["compiled_step"].apply(model, plugin.config)
        assert TECHNIQUES["compiled_step"].get_report(model)["compiled"]


@effect_of("bounded_mlp")
def bounded_mlp(tiny: Tiny) -> None:
    """No more than 128 tokens at once go through a feed-forward block, and answers are the same bit for bit."""
    answers, widest = [], []
    for options in ({"enable": ("bounded_mlp",)}, {"disable": ("bounded_mlp",)}):
        with loaded(tiny("grouped"), **options) as plugin:
            block = next(module for module in model_of(plugin).modules() if isinstance(module, GatedMLP))
            rows = []
            block.down_proj.register_forward_pre_hook(
                lambda _module, args, rows=rows: rows.append(len(args[0]))
            )
            answers.append(
                plugin.generate_text("the cat sat on the mat " * 10, max_new_tokens=2, temperature=0.0)
            )
            widest.append(max(rows))
    assert answers[0] == answers[1]
    assert widest[0] <= 128 < widest[1]


@effect_of("bounded_logits")
def bounded_logits(tiny: Tiny) -> None:
    """Logits of no more than 64 rows are there at once, and they are the same bit for bit; the plan has the smaller
    amount.
    """
    answers, widest, planned, saved = [], [], [], []
    prompts = [[3 + number, 5, 7] for number in range(70)]
    # In blocks: their products give a row the same bits in any company.
    usual: dict[str, Any] = {"quantize": "int8", "max_num_seqs": 80, "speculation": 0}
    for word in ("enable", "disable"):
        options = {**usual, word: ("bounded_logits",)}
        with loaded(tiny("grouped"), fields={"torch_dtype": "auto"}, **options) as plugin:
            rows: list[int] = []
            model_of(plugin).lm_head.register_forward_hook(
                lambda _module, _args, logits, rows=rows: rows.append(len(logits))
            )
            answers.append(plugin.runtime.follow(prompts, [[11, 13, 17]] * len(prompts)))
            widest.append(max(rows))
            planned.append(plugin.runtime.plan.logits)
            saved.append(TECHNIQUES["bounded_logits"].get_report(model_of(plugin))["saved_bytes"])
    assert all(torch.equal(one, other) for one, other in zip(*answers, strict=True))
    assert widest[0] <= 64 < widest[1]
    size = 12 * plugin.config.vocab_size
    assert planned == [64 * size, 80 * size]
    assert saved == [16 * size, 0]


@effect_of("bounded_scores")
def bounded_scores(tiny: Tiny) -> None:
    """Without tiles the scores of 128 queries stand in memory at once, not those of all."""
    torch_alone = {"use_flash_attention_2": False, "use_paged_attention": False}
    answers, largest = [], []
    for options in ({}, {"disable": ("bounded_scores",)}):
        with loaded(tiny("grouped"), fields=torch_alone, **options) as plugin, score_rows() as rows:
            answers.append(
                plugin.generate_text("the cat sat on the mat " * 10, max_new_tokens=2, temperature=0.0)
            )
            largest.append(max(rows))
    assert answers[0] == answers[1]
    assert largest[0] <= 128 < largest[1]


@effect_of("recomputation")
def recomputation(tiny: Tiny) -> None:
    """A step computes all tokens of its sequence, and answers are the same."""
    answers, prompt_tokens = [], []
    for fields in ({"use_cache": False}, {}):
        with loaded(tiny("grouped"), fields=fields, speculation=0) as plugin, computed_rows(plugin) as rows:
            answers.append(plugin.generate_text("the cat sat on the mat", max_new_tokens=4, temperature=0.0))
            prompt_tokens.append(sum(rows))
    assert answers[0] == answers[1]
    assert prompt_tokens[0] > 2 * prompt_tokens[1]


@effect_of("tensor_parallelism")
def tensor_parallelism(tiny: Tiny) -> None:
    """Each rank holds half of what can be divided, and answers are the same."""
    answers, parameters = [], []
    for fields, size in (({"use_tensor_parallelism": True}, 2), ({}, 1)):
        with loaded(tiny("grouped"), fields=fields, tensor_parallel_size=size) as plugin:
            answers.append(plugin.generate_text("the cat sat on the mat", max_new_tokens=6, temperature=0.0))
            model = model_of(plugin)
            rank = model.rank_models()[0] if isinstance(model, RankedModel) else model
            parameters.append(next(module for module in rank.modules() if isinstance(module, GatedMLP)))
    assert answers[0] == answers[1]
    widths = [block.down_proj.in_features for block in parameters]
    assert widths[0] * 2 == widths[1]
