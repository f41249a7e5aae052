"""Each optimisation of qwen3_moe against the same model without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from inference_pio import create_plugin
from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.numbers import assert_close, token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.layers import Linear
from inference_pio.models.qwen3_moe.config import Qwen3MoeConfig

_PROMPT = token_ids(70, 272)


@pytest.mark.parametrize("flag", ["use_flash_attention_2", "use_paged_attention", "use_fused_layer_norm"])
def test_a_flag_changes_how_and_not_what(subject: Subject, flag: str) -> None:
    results = []
    for value in (True, False):
        model = BareModel(subject.plugin(), subject.checkpoint("experts"), options={flag: value})
        parts = [model.prefill(_PROMPT[:60]), *(model.run([(0, [x])])[0] for x in _PROMPT[60:])]
        results.append(torch.cat(parts))
    assert_close(results[0], results[1], f"without {flag}")


def test_an_expert_that_no_token_takes_is_not_read(subject: Subject) -> None:
    bare = BareModel(subject.plugin(), subject.checkpoint("experts"))
    block = bare.model.model.layers[0].mlp
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        # A router that prefers the first four of the eight experts whatever it sees.
        x[:, 0] = 10.0
        block.gate.weight[:, 0] = torch.tensor([5.0] * 4 + [-5.0] * 4)
        want = block(x)
        assert block.gate(x)[0].max() < 4
        block.experts.gate_up_proj[4:] = torch.nan
        block.experts.down_proj[4:] = torch.nan
        assert torch.equal(block(x), want)


def test_the_block_is_transformers_block(subject: Subject) -> None:
    for tiny in ("experts", "unnormalized", "every-expert"):
        theirs = subject.reference(tiny).model.model.layers[1].mlp
        ours = BareModel(subject.plugin(), subject.checkpoint(tiny)).model.model.layers[1].mlp
        x = torch.randn(23, 64, generator=torch.Generator().manual_seed(4))
        with torch.inference_mode():
            assert_close(ours(x), theirs(x[None])[0], tiny)


def test_rows_that_nobody_needs_choose_no_experts(subject: Subject) -> None:
    path = subject.checkpoint("experts")
    pieces = [(0, _PROMPT[:33]), (1, _PROMPT[33:])]
    every = BareModel(subject.plugin(), path, sequences=2).run(pieces)
    needed = BareModel(subject.plugin(), path, sequences=2)
    seen: list[int] = []
    for layer in needed.model.model.layers:
        layer.mlp.experts.register_forward_hook(lambda _module, args, _out: seen.append(args[0].shape[0]))
    batch = replace(needed.batch(pieces), last_token=torch.tensor([32, 69]))
    with torch.inference_mode():
        few = needed.model(batch, needed.caches)
    assert seen == [70, 2]
    assert_close(few, torch.stack([every[0][-1], every[1][-1]]), "last rows")


def test_no_linear_map_has_a_bias(subject: Subject) -> None:
    model = BareModel(subject.plugin(), subject.checkpoint("dense-between")).model
    linears = [module for module in model.modules() if isinstance(module, Linear)]
    assert len(linears) == 21, "2 of attention in 6 layers, 2 in 4 dense ones, a head"
    assert all(linear.bias is None for linear in linears)


def test_the_router_is_a_softmax_of_float32(subject: Subject) -> None:
    gate = BareModel(subject.plugin(), subject.checkpoint("experts")).model.model.layers[0].mlp.gate
    x = torch.randn(9, 64, generator=torch.Generator().manual_seed(1))
    chosen, weights = gate(x)
    scores = F.linear(x.double(), gate.weight.double()).softmax(-1)
    want = scores.topk(3)
    assert torch.equal(chosen, want.indices)
    torch.testing.assert_close(weights.double(), want.values / want.values.sum(-1, keepdim=True))


def test_the_report_says_what_is_at_work(tiny_path: Path) -> None:
    config = Qwen3MoeConfig(model_path=str(tiny_path), torch_dtype="float32", use_prefix_caching=False)
    plugin = create_plugin("qwen3_moe", config=config)
    plugin.load_model()
    report = {entry["name"]: entry for entry in plugin.get_optimization_report()}
    plugin.cleanup()
    assert {name: entry["status"] for name, entry in report.items()}.items() >= {
        "KV-cache compression": "dormant",
        "weight quantisation": "dormant",
        "prefix caching": "dormant",
        "fused layer norm": "active",
        "grouped experts": "active",
        "needed rows": "active",
        "tensor parallelism": "dormant",
        "bias removal": "not applicable",
    }.items()
    assert "2 of 2 layers send a token through 3 of 8 experts" in report["grouped experts"]["reason"]


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ({}, (1, 2, 4, 8, 16, 32)),
        # With dense layers the dense width counts: 5472 is 32 · 171, and 5480 is 8 · 685.
        ({"mlp_only_layers": (0,)}, (1, 2, 4, 8, 16, 32)),
        ({"mlp_only_layers": (0,), "intermediate_size": 5480}, (1, 2, 4, 8)),
    ],
)
def test_numbers_of_ranks_for_published_sizes(
    subject: Subject, fields: dict[str, object], sizes: tuple[int, ...]
) -> None:
    assert subject.plugin().shard_plan(Qwen3MoeConfig(**fields)).legal_sizes == sizes
