"""Each optimisation of qwen3_vl against the same model without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from inference_pio import create_plugin, ops
from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.numbers import assert_close, token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.layers import Linear
from inference_pio.models.qwen3_vl.config import Qwen3VLConfig
from inference_pio.models.qwen3_vl.tests.case import PUBLISHED, TINY
from inference_pio.models.qwen3_vl.tests.reference import TransformersQwen3VL
from inference_pio.ops import native
from inference_pio.optimizations.hardware.bias_removal import BiasRemoval

_PROMPT = token_ids(70, 272)


@pytest.mark.parametrize("flag", ["use_flash_attention_2", "use_paged_attention", "use_fused_layer_norm"])
def test_a_flag_changes_how_and_not_what(subject: Subject, flag: str) -> None:
    path = subject.checkpoint("grouped")
    results = []
    for value in (True, False):
        model = BareModel(subject.plugin(), path, options={flag: value})
        parts = [model.prefill(_PROMPT[:60]), *(model.run([(0, [x])])[0] for x in _PROMPT[60:])]
        results.append(torch.cat(parts))
    assert_close(results[0], results[1], f"without {flag}")


@pytest.mark.skipif(native.MISSING is not None, reason=native.MISSING or "")
@pytest.mark.parametrize("tiny", ["grouped", "multi-query"])
def test_norm_rotation_and_cache_write_in_one_pass(subject: Subject, tiny: str) -> None:
    """The native pass leaves in the cache, and answers, what its steps in torch do."""
    results = []
    for implementation in ("native", "reference"):
        with ops.use(implementation):
            model = BareModel(subject.plugin(), subject.checkpoint(tiny))
            logits = model.prefill(_PROMPT)
        results.append((logits, model.caches[0].k.nan_to_num()))
    for ours, expected, what in zip(*results, ("logits", "keys"), strict=True):
        assert_close(ours, expected, f"{tiny}: {what}")


def _biases(model: Any) -> int:
    return sum(module.bias is not None for module in model.modules() if isinstance(module, Linear))


def test_zero_biases_are_removed_and_nothing_changes(subject: Subject, tmp_path: Path) -> None:
    reference = TransformersQwen3VL(TINY["biased"])
    with torch.no_grad():
        for name, parameter in reference.model.named_parameters():
            if name.endswith("bias") and "language_model.layers.0." in name:
                parameter.zero_()
    reference.save(tmp_path, "safetensors")
    kept = BareModel(subject.plugin(), tmp_path)
    removed = BareModel(subject.plugin(), tmp_path)
    BiasRemoval().apply(removed.model, removed.config)
    assert (_biases(kept.model), _biases(removed.model)) == (4, 2)
    assert torch.equal(kept.prefill(_PROMPT), removed.prefill(_PROMPT))
    assert_close(removed.prefill(_PROMPT), reference.logits(_PROMPT), "biases in the second layer alone")
    report = BiasRemoval().get_report(removed.model)
    assert (report["removed"]["biases"], report["kept"]) == (2, 2)


def test_a_published_model_has_no_bias_to_remove(subject: Subject) -> None:
    model = BareModel(subject.plugin(), subject.checkpoint("grouped")).model
    assert _biases(model) == 0


def test_rows_that_nobody_needs_are_not_computed(subject: Subject) -> None:
    path = subject.checkpoint("grouped")
    pieces = [(0, _PROMPT[:33]), (1, _PROMPT[33:])]
    every = BareModel(subject.plugin(), path, sequences=2).run(pieces)
    needed = BareModel(subject.plugin(), path, sequences=2)
    seen: list[int] = []
    last = needed.model.model.language_model.layers[-1].mlp
    last.register_forward_hook(lambda _module, args, _out: seen.append(args[0].shape[0]))
    batch = replace(needed.batch(pieces), last_token=torch.tensor([32, 69]))
    with torch.inference_mode():
        few = needed.model(batch, needed.caches)
    assert seen == [2]
    assert_close(few, torch.stack([every[0][-1], every[1][-1]]), "last rows")


def test_the_report_says_what_is_at_work(tiny_path: Path) -> None:
    config = Qwen3VLConfig(model_path=str(tiny_path), torch_dtype="float32", use_prefix_caching=False)
    plugin = create_plugin("qwen3_vl", config=config)
    plugin.load_model()
    report = {entry["name"]: entry for entry in plugin.get_optimization_report()}
    plugin.cleanup()
    assert {name: entry["status"] for name, entry in report.items()}.items() >= {
        "KV-cache compression": "dormant",
        "weight quantisation": "dormant",
        "prefix caching": "dormant",
        "fused layer norm": "active",
        "patch embedding as a matrix product": "active",
        "tensor parallelism": "dormant",
        "bias removal": "not applicable",
    }.items()
    assert report["tensor parallelism"]["reason"].endswith("divided over 1, 2, 4")


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("Qwen3-VL-2B-Instruct", (1, 2, 4, 8, 16)),
        ("Qwen3-VL-4B-Instruct", (1, 2, 4, 8, 16, 32)),
    ],
)
def test_numbers_of_ranks_for_published_sizes(subject: Subject, name: str, sizes: tuple[int, ...]) -> None:
    config = Qwen3VLConfig.read(PUBLISHED["configs"][name], name)
    assert subject.plugin().shard_plan(config).legal_sizes == sizes
