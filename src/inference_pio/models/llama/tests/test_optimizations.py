"""Each optimisation of llama against the same model without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from inference_pio import create_plugin
from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.numbers import assert_close, token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.layers import Linear
from inference_pio.models.llama.config import LlamaConfig
from inference_pio.models.llama.tests.case import TINY
from inference_pio.models.llama.tests.reference import TransformersLlama
from inference_pio.optimizations.hardware.bias_removal import BiasRemoval

_PROMPT = token_ids(70, 272)


@pytest.mark.parametrize("flag", ["use_flash_attention_2", "use_paged_attention", "use_fused_layer_norm"])
@pytest.mark.parametrize("tiny", ["grouped", "biased"])
def test_a_flag_changes_how_and_not_what(subject: Subject, flag: str, tiny: str) -> None:
    path = subject.checkpoint(tiny)
    results = []
    for value in (True, False):
        model = BareModel(subject.plugin(), path, options={flag: value})
        parts = [model.prefill(_PROMPT[:60]), *(model.run([(0, [x])])[0] for x in _PROMPT[60:])]
        results.append(torch.cat(parts))
    assert_close(results[0], results[1], f"{tiny} without {flag}")


def _biases(model: Any) -> int:
    return sum(module.bias is not None for module in model.modules() if isinstance(module, Linear))


def test_zero_biases_are_removed_and_nothing_changes(subject: Subject, tmp_path: Path) -> None:
    reference = TransformersLlama(TINY["biased"])
    with torch.no_grad():
        for name, parameter in reference.model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    path = reference.save(tmp_path, "safetensors")
    kept = BareModel(subject.plugin(), path)
    removed = BareModel(subject.plugin(), path)
    BiasRemoval().apply(removed.model, removed.config)
    assert _biases(kept.model) == 4 * TINY["biased"]["num_hidden_layers"]
    assert _biases(removed.model) == 0
    assert torch.equal(kept.prefill(_PROMPT), removed.prefill(_PROMPT))
    assert BiasRemoval().get_report(removed.model)["kept"] == 0
    assert BiasRemoval().get_report(kept.model)["kept"] == 8


def test_biases_that_are_not_zero_stay(subject: Subject) -> None:
    bare = BareModel(subject.plugin(), subject.checkpoint("biased"))
    BiasRemoval().apply(bare.model, bare.config)
    assert _biases(bare.model) == 4 * TINY["biased"]["num_hidden_layers"]
    assert BiasRemoval().get_report(bare.model)["removed"] == {}


def test_rows_that_nobody_needs_are_not_computed(subject: Subject) -> None:
    path = subject.checkpoint("grouped")
    whole = BareModel(subject.plugin(), path, sequences=2)
    pieces = [(0, _PROMPT[:33]), (1, _PROMPT[33:])]
    every = whole.run(pieces)
    needed = BareModel(subject.plugin(), path, sequences=2)
    batch = needed.batch(pieces)
    seen: list[int] = []
    last = needed.model.model.layers[-1].mlp
    last.register_forward_hook(lambda _module, args, _out: seen.append(args[0].shape[0]))
    rows = torch.tensor([32, 69])
    with torch.inference_mode():
        few = needed.model(type(batch)(**{**vars(batch), "last_token": rows}), needed.caches)
    assert seen == [2]
    assert_close(few, torch.stack([every[0][-1], every[1][-1]]), "last rows")


def test_the_report_says_what_is_at_work(tiny_path: Path) -> None:
    config = LlamaConfig(model_path=str(tiny_path), torch_dtype="float32", use_prefix_caching=False)
    plugin = create_plugin("llama", config=config)
    plugin.load_model()
    report = {entry["name"]: entry for entry in plugin.get_optimization_report()}
    plugin.cleanup()
    assert report["bias removal"]["status"] == "not applicable"
    assert report["prefix caching"]["status"] == "dormant"
    assert report["fused layer norm"]["status"] == "active"
    assert report["KV-cache compression"]["status"] == "dormant"
    assert report["weight quantisation"]["status"] == "dormant", "float32 was asked for"
    assert report["tensor parallelism"]["reason"].endswith("divided over 1, 2, 4")
    for entry in report.values():
        assert {"name", "category", "status", "exact", "reason"} <= set(entry)
