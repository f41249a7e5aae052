"""Each optimisation of mistral against the same model without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference_pio import create_plugin
from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.numbers import assert_close, token_ids
from inference_pio.conformance.subject import Subject
from inference_pio_mistral.config import MistralConfig

_PROMPT = token_ids(70, 272)


@pytest.mark.parametrize("flag", ["use_flash_attention_2", "use_paged_attention", "use_fused_layer_norm"])
@pytest.mark.parametrize("tiny", ["window", "no-window"])
def test_a_flag_changes_how_and_not_what(subject: Subject, flag: str, tiny: str) -> None:
    path = subject.checkpoint(tiny)
    results = []
    for value in (True, False):
        model = BareModel(subject.plugin(), path, options={flag: value})
        parts = [model.prefill(_PROMPT[:60]), *(model.run([(0, [x])])[0] for x in _PROMPT[60:])]
        results.append(torch.cat(parts))
    assert_close(results[0], results[1], f"{tiny} without {flag}")


def test_rows_that_nobody_needs_are_not_computed(subject: Subject) -> None:
    path = subject.checkpoint("window")
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
    config = MistralConfig(model_path=str(tiny_path), torch_dtype="float32", use_prefix_caching=False)
    plugin = create_plugin("mistral", config=config)
    plugin.load_model()
    report = {entry["name"]: entry for entry in plugin.get_optimization_report()}
    plugin.cleanup()
    assert report["bias removal"]["status"] == "not applicable"
    assert report["sliding-window attention"]["status"] == "active"
    assert report["prefix caching"]["status"] == "dormant"
    assert report["fused layer norm"]["status"] == "active"
    assert report["KV-cache compression"]["status"] == "dormant"
    assert report["weight quantisation"]["status"] == "dormant"
    assert report["tensor parallelism"]["reason"].endswith("divided over 1, 2, 4")
    for entry in report.values():
        assert {"name", "category", "status", "exact", "reason"} <= set(entry)
