"""Each optimisation of qwen3_next against the same model without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from inference_pio import create_plugin
from inference_pio.cache.specs import state_specs
from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.numbers import assert_close, token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.layers import Linear
from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.models.qwen3_next.tests.case import TINY
from inference_pio.models.qwen3_next.tests.reference import TransformersQwen3Next
from inference_pio.optimizations.hardware.bias_removal import BiasRemoval
from inference_pio.parallel import Shard
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.plugin.serving import Serving
from inference_pio.runtime.plan import Budget, plan_memory

_PROMPT = token_ids(80, 272)


@pytest.mark.parametrize("flag", ["use_flash_attention_2", "use_paged_attention", "use_fused_layer_norm"])
def test_a_flag_changes_how_and_not_what(subject: Subject, flag: str) -> None:
    path = subject.checkpoint("three-to-one")
    found = []
    for value in (True, False):
        model = BareModel(subject.plugin(), path, options={flag: value})
        found.append(
            torch.cat([model.prefill(_PROMPT[:70]), *(model.run([(0, [t])])[0] for t in _PROMPT[70:])])
        )
    assert_close(found[0], found[1], f"without {flag}")


def test_rows_that_nobody_needs_are_not_computed(subject: Subject) -> None:
    """The last mixture sees two rows of 80; states take in all of them."""
    path = subject.checkpoint("states only")
    pieces = [(0, _PROMPT[:33]), (1, _PROMPT[33:])]
    every = BareModel(subject.plugin(), path, sequences=2)
    logits = every.run(pieces)
    needed = BareModel(subject.plugin(), path, sequences=2)
    seen: list[int] = []
    needed.model.model.layers[-1].mlp.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    with torch.inference_mode():
        few = needed.model(replace(needed.batch(pieces), last_token=torch.tensor([32, 79])), needed.caches)
    assert seen == [2]
    assert_close(few, torch.stack([part[-1] for part in logits]), "last rows")
    for one, other in zip(needed.caches, every.caches, strict=True):
        assert torch.equal(one.recurrent, other.recurrent)


def _biases(model: Any) -> int:
    return sum(module.bias is not None for module in model.modules() if isinstance(module, Linear))


def test_biases_that_are_zero_are_removed_and_others_stay(subject: Subject, tmp_path: Path) -> None:
    reference = TransformersQwen3Next(TINY["mixed"])
    with torch.no_grad():
        for name, parameter in reference.model.named_parameters():
            if name.endswith("o_proj.bias"):
                parameter.zero_()
    path = reference.save(tmp_path, "safetensors")
    kept = BareModel(subject.plugin(), path)
    removed = BareModel(subject.plugin(), path)
    BiasRemoval().apply(removed.model, removed.config)
    assert (_biases(kept.model), _biases(removed.model)) == (4, 2)
    assert_close(removed.prefill(_PROMPT), reference.logits(_PROMPT), "without biases of o_proj")
    assert BiasRemoval().get_report(removed.model)["kept"] == 2
    none = BareModel(subject.plugin(), subject.checkpoint("three-to-one"))
    assert _biases(none.model) == 0


def test_the_report_says_what_is_at_work(tiny_path: Path) -> None:
    plugin = create_plugin(
        "qwen3_next", config=Qwen3NextConfig(model_path=str(tiny_path), torch_dtype="float32")
    )
    plugin.load_model()
    report = {entry["name"]: entry for entry in plugin.get_optimization_report()}
    plugin.cleanup()
    assert {name: entry["status"] for name, entry in report.items()}.items() >= {
        "KV-cache compression": "dormant",
        "weight quantisation": "dormant",
        "prefix caching": "active",
        "fused layer norm": "active",
        "tensor parallelism": "dormant",
        "speculative decoding": "active",
        "multi-token prediction": "dormant",
        "bias removal": "not applicable",
    }.items()
    assert report["tensor parallelism"]["reason"].endswith("divided over 1, 2, 4")


def test_memory_of_coder_next(subject: Subject) -> None:
    """The published sizes: bytes a token and bytes a sequence, whole and on two of four ranks' shares."""
    plugin, config = subject.plugin(), Qwen3NextConfig()
    specs = plugin.cache_specs(config, torch.bfloat16, Shard())
    assert sum(spec.bytes_per_token() for spec in specs) == 24_576
    assert sum(spec.bytes_per_sequence() for spec in specs) == 79_036_416
    assert plugin.shard_plan(config).legal_sizes == (1, 2, 4, 8, 16)
    part = plugin.cache_specs(config, torch.bfloat16, Shard(0, 4))
    assert sum(spec.bytes_per_token() for spec in part) == 12_288, "two KV heads: each is held by two ranks"
    assert sum(spec.bytes_per_sequence() for spec in part) == 79_036_416 // 4
    assert sum(spec.bytes_per_draft() for spec in state_specs(specs)) == 2_368_512


def test_snapshots_of_coder_next(subject: Subject) -> None:
    """Of 256 MiB two states take 151, which leaves blocks for 4,480 tokens; 47 tokens a step may wait, in 111 MB."""
    plugin, config = subject.plugin(), Qwen3NextConfig()
    specs = plugin.cache_specs(config, torch.bfloat16, Shard())
    plan = plan_memory(
        config,
        Serving(specs, prefix_caching=True, prefix_cache_bytes=config.prefix_cache_max_size),
        RuntimeOptions(max_num_seqs=1, max_model_len=8192),
        Budget(60 * 10**9, "memory"),
        weight_bytes=45 * 10**9,
        itemsize=4,
        mapped_bytes=0,
        reuse=plugin.prefix_policy(config).reuse,
        images=None,
    )
    assert (plan.num_snapshots, plan.snapshots) == (2, 158_072_832)
    assert (2**28 - plan.snapshots) // (32 * plan.kv_bytes_per_token) * 32 == 4480
    assert (plan.num_held, plan.held) == (15 + 32, 111_320_064)
    assert plan.state == 3 * 79_036_416 + plan.held
