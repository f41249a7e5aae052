"""Each optimisation of gemma3_text against the same model without it."""

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
from inference_pio.models.gemma3_text.config import Gemma3TextConfig
from inference_pio.sampling_params import SamplingParams

_PROMPT = token_ids(70, 272)


@pytest.mark.parametrize("flag", ["use_flash_attention_2", "use_paged_attention", "use_fused_layer_norm"])
def test_a_flag_changes_how_and_not_what(subject: Subject, flag: str) -> None:
    path = subject.checkpoint("five-to-one")
    results = []
    for value in (True, False):
        model = BareModel(subject.plugin(), path, options={flag: value})
        parts = [model.prefill(_PROMPT[:60]), *(model.run([(0, [x])])[0] for x in _PROMPT[60:])]
        results.append(torch.cat(parts))
    assert_close(results[0], results[1], f"without {flag}")


def test_windows_save_reading_and_change_no_bit(tiny_path: Path) -> None:
    """With the flag off keys before a window are read, and count for nothing."""
    results = []
    for saved in (True, False):
        config = Gemma3TextConfig(
            model_path=str(tiny_path), torch_dtype="float32", use_sliding_window_attention=saved
        )
        plugin = create_plugin("gemma3_text", config=config)
        model = plugin.load_model()
        layers = [module.attend for module in model.modules() if hasattr(module, "o_proj")]
        windowed = [layer for layer in layers if layer.window is not None]
        assert windowed
        assert all(layer.reads_all != saved for layer in windowed)
        report = {entry["name"]: entry for entry in plugin.get_optimization_report()}
        assert report["sliding-window attention"]["status"] == ("active" if saved else "dormant")
        params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True, logprobs=0)
        answer = plugin.runtime.generate([_PROMPT], [params])[0].outputs[0]
        results.append((answer.token_ids, answer.logprobs))
        plugin.cleanup()
    assert results[0] == results[1]


def test_rows_that_nobody_needs_are_not_computed(subject: Subject) -> None:
    path = subject.checkpoint("five-to-one")
    pieces = [(0, _PROMPT[:33]), (1, _PROMPT[33:])]
    every = BareModel(subject.plugin(), path, sequences=2).run(pieces)
    needed = BareModel(subject.plugin(), path, sequences=2)
    seen: list[int] = []
    last = needed.model.model.layers[-1].post_attention_layernorm
    last.register_forward_hook(lambda _module, args, _out: seen.append(args[0].shape[0]))
    batch = replace(needed.batch(pieces), last_token=torch.tensor([32, 69]))
    with torch.inference_mode():
        few = needed.model(batch, needed.caches)
    assert seen == [2]
    assert_close(few, torch.stack([every[0][-1], every[1][-1]]), "last rows")


def test_the_report_says_what_is_at_work(tiny_path: Path) -> None:
    config = Gemma3TextConfig(model_path=str(tiny_path), torch_dtype="float32", use_prefix_caching=False)
    plugin = create_plugin("gemma3_text", config=config)
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
        "bias removal": "not applicable",
    }.items()
    assert report["tensor parallelism"]["reason"].endswith("divided over 1, 2, 4")


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ({}, (1, 2, 4)),
        ({"hidden_size": 1152, "intermediate_size": 6912}, (1, 2, 4)),
        (
            {"num_attention_heads": 32, "num_key_value_heads": 16, "intermediate_size": 21504},
            (1, 2, 4, 8, 16, 32),
        ),
    ],
    ids=["270M", "1B", "27B"],
)
def test_numbers_of_ranks_for_published_sizes(
    subject: Subject, fields: dict[str, Any], sizes: tuple[int, ...]
) -> None:
    assert subject.plugin().shard_plan(Gemma3TextConfig(**fields)).legal_sizes == sizes
