"""Each optimisation of qwen2 against the same model without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from inference_pio import create_plugin
from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.numbers import assert_close, token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.layers import Linear
from inference_pio.models.qwen2.config import Qwen2Config
from inference_pio.models.qwen2.tests.case import TINY
from inference_pio.models.qwen2.tests.reference import TransformersQwen2
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


def _biases(model: Any) -> int:
    return sum(module.bias is not None for module in model.modules() if isinstance(module, Linear))


def _zeroed(path: Path, *projections: str) -> TransformersQwen2:
    """A reference whose biases of these projections are zero, saved at `path`."""
    reference = TransformersQwen2(TINY["grouped"])
    with torch.no_grad():
        for name, parameter in reference.model.named_parameters():
            if name.endswith("bias") and name.split(".")[-2] in projections:
                parameter.zero_()
    reference.save(path, "safetensors")
    return reference


def test_zero_biases_are_removed_and_nothing_changes(subject: Subject, tmp_path: Path) -> None:
    _zeroed(tmp_path, "q_proj", "k_proj", "v_proj")
    kept = BareModel(subject.plugin(), tmp_path)
    removed = BareModel(subject.plugin(), tmp_path)
    BiasRemoval().apply(removed.model, removed.config)
    assert _biases(kept.model) == TINY["grouped"]["num_hidden_layers"]
    assert _biases(removed.model) == 0
    assert torch.equal(kept.prefill(_PROMPT), removed.prefill(_PROMPT))
    assert BiasRemoval().get_report(removed.model)["kept"] == 0
    assert BiasRemoval().get_report(kept.model)["kept"] == 2


def test_a_bias_that_is_zero_in_part_stays(subject: Subject, tmp_path: Path) -> None:
    """q, k and v are one product with one bias: that of v alone keeps it."""
    reference = _zeroed(tmp_path, "q_proj", "k_proj")
    bare = BareModel(subject.plugin(), tmp_path)
    BiasRemoval().apply(bare.model, bare.config)
    assert _biases(bare.model) == 2
    assert_close(bare.prefill(_PROMPT), reference.logits(_PROMPT), "zero biases of q and k")


def test_a_bias_of_k_does_not_cancel(subject: Subject, tmp_path: Path) -> None:
    """Without rotary positions it would, being the same in every score; so it must not be left out."""
    without = _zeroed(tmp_path, "k_proj")
    difference = without.logits(_PROMPT) - subject.reference("grouped").logits(_PROMPT)
    assert difference.abs().max() > 0.1


def test_rows_that_nobody_needs_are_not_computed(subject: Subject) -> None:
    path = subject.checkpoint("grouped")
    pieces = [(0, _PROMPT[:33]), (1, _PROMPT[33:])]
    every = BareModel(subject.plugin(), path, sequences=2).run(pieces)
    needed = BareModel(subject.plugin(), path, sequences=2)
    seen: list[int] = []
    last = needed.model.model.layers[-1].mlp
    last.register_forward_hook(lambda _module, args, _out: seen.append(args[0].shape[0]))
    batch = replace(needed.batch(pieces), last_token=torch.tensor([32, 69]))
    with torch.inference_mode():
        few = needed.model(batch, needed.caches)
    assert seen == [2]
    assert_close(few, torch.stack([every[0][-1], every[1][-1]]), "last rows")


def test_the_report_says_what_is_at_work(tiny_path: Path) -> None:
    config = Qwen2Config(model_path=str(tiny_path), torch_dtype="float32", use_prefix_caching=False)
    plugin = create_plugin("qwen2", config=config)
    plugin.load_model()
    report = {entry["name"]: entry for entry in plugin.get_optimization_report()}
    plugin.cleanup()
    assert {name: entry["status"] for name, entry in report.items()}.items() >= {
        "KV-cache compression": "dormant",
        "weight quantisation": "dormant",
        "prefix caching": "dormant",
        "fused layer norm": "active",
        "needed rows": "active",
        "tensor parallelism": "dormant",
        "bias removal": "active",
    }.items()
    assert report["tensor parallelism"]["reason"].endswith("divided over 1, 2, 4")


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ({}, (1, 2, 4)),
        ({"num_attention_heads": 14, "hidden_size": 896, "intermediate_size": 4864}, (1, 2)),
        (
            {
                "num_attention_heads": 28,
                "num_key_value_heads": 4,
                "intermediate_size": 18944,
                "vocab_size": 152064,
            },
            (1, 2, 4),
        ),
    ],
    ids=["Coder-1.5B", "0.5B", "7B"],
)
def test_numbers_of_ranks_for_published_sizes(
    subject: Subject, fields: dict[str, Any], sizes: tuple[int, ...]
) -> None:
    assert subject.plugin().shard_plan(Qwen2Config(**fields)).legal_sizes == sizes
