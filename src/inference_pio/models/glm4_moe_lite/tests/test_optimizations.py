"""Each optimisation of glm4_moe_lite against the same model without it."""

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
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.models.glm4_moe_lite.specific_optimizations.switch_point import (
    expansion_pays,
    never_expanded,
)
from inference_pio.models.glm4_moe_lite.tests.case import TINY
from inference_pio.models.glm4_moe_lite.tests.reference import TransformersGlm
from inference_pio.optimizations.hardware.bias_removal import BiasRemoval

_PROMPT = token_ids(70, 272)


@pytest.mark.parametrize("flag", ["use_flash_attention_2", "use_paged_attention", "use_fused_layer_norm"])
def test_a_flag_changes_how_and_not_what(subject: Subject, flag: str) -> None:
    path = subject.checkpoint("low-rank")
    results = []
    for value in (True, False):
        model = BareModel(subject.plugin(), path, options={flag: value})
        parts = [model.prefill(_PROMPT[:60]), *(model.run([(0, [x])])[0] for x in _PROMPT[60:])]
        results.append(torch.cat(parts))
    assert_close(results[0], results[1], f"without {flag}")


@pytest.mark.parametrize("chunk", [None, 64])
def test_expanding_changes_how_and_not_what(subject: Subject, chunk: int | None) -> None:
    bare = BareModel(subject.plugin(), subject.checkpoint("low-rank"))
    expanded = bare.prefill(_PROMPT, chunk)
    with never_expanded(bare.model):
        absorbed = bare.prefill(_PROMPT, chunk)
    assert not torch.equal(expanded, absorbed)
    assert_close(expanded, absorbed, "expanded prefill")
    assert torch.equal(bare.prefill(_PROMPT, chunk), expanded)


def test_where_expanding_pays() -> None:
    """In GLM-4.7-Flash: by multiplications, counted here from the sizes of the products."""
    config = Glm4MoeLiteConfig()
    pays = expansion_pays(config)

    def multiplications(queries: int, length: int) -> tuple[int, int]:
        pairs = sum(range(length - queries + 1, length + 1))
        up = 512 * (192 + 256)
        return length * up + pairs * (256 + 256), queries * up + pairs * (576 + 576)

    for queries, length in (
        (1, 1),
        (2, 2),
        (300, 300),
        (512, 2512),
        (256, 2256),
        (1, 900),
        (64, 90),
        (700, 9000),
    ):
        expanded, absorbed = multiplications(queries, length)
        assert pays(queries, length) == (expanded < absorbed), (queries, length)
    assert pays(512, 2512)
    assert not pays(256, 2256)
    assert pays(16384, 16384)
    assert not pays(16385, 16385), (
        "keys and values of one head are more than 64 MiB can hold with their copies"
    )


def test_every_branch_is_reached_by_a_tiny_model() -> None:
    found = {name: expansion_pays(Glm4MoeLiteConfig.read(raw, "")) for name, raw in TINY.items()}
    assert found["low-rank"](87, 87)
    assert found["low-rank"](23, 87), "no chunk is expanded behind another"
    assert not found["low-rank"](3, 87)
    assert not found["halves"](87, 87)


def _biases(model: Any) -> int:
    return sum(module.bias is not None for module in model.modules() if isinstance(module, Linear))


def test_zero_biases_are_removed_and_nothing_changes(subject: Subject, tmp_path: Path) -> None:
    reference = TransformersGlm(TINY["groups"])
    with torch.no_grad():
        for name, parameter in reference.model.named_parameters():
            if name.endswith("o_proj.bias"):
                parameter.zero_()
    reference.save(tmp_path, "safetensors")
    kept = BareModel(subject.plugin(), tmp_path)
    removed = BareModel(subject.plugin(), tmp_path)
    BiasRemoval().apply(removed.model, removed.config)
    assert (_biases(kept.model), _biases(removed.model)) == (4, 2)
    assert torch.equal(kept.prefill(_PROMPT), removed.prefill(_PROMPT))
    assert BiasRemoval().get_report(removed.model)["kept"] == 2
    none = BareModel(subject.plugin(), subject.checkpoint("low-rank")).model
    assert _biases(none) == 0


def test_rows_that_nobody_needs_are_not_computed(subject: Subject) -> None:
    path = subject.checkpoint("low-rank")
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
    config = Glm4MoeLiteConfig(model_path=str(tiny_path), torch_dtype="float32", use_prefix_caching=False)
    plugin = create_plugin("glm4_moe_lite", config=config)
    plugin.load_model()
    report = {entry["name"]: entry for entry in plugin.get_optimization_report()}
    plugin.cleanup()
    assert {name: entry["status"] for name, entry in report.items()}.items() >= {
        "KV-cache compression": "active",
        "weight quantisation": "dormant",
        "prefix caching": "dormant",
        "fused layer norm": "active",
        "tensor parallelism": "dormant",
        "multi-token prediction": "not applicable",
        "bias removal": "not applicable",
    }.items()
    assert report["tensor parallelism"]["reason"].endswith("divided over 1, 2, 4")


def test_numbers_of_ranks_for_the_published_size(subject: Subject) -> None:
    """20 heads would allow 5, 10 and 20; experts of 1,536 features do not."""
    assert subject.plugin().shard_plan(Glm4MoeLiteConfig()).legal_sizes == (1, 2, 4)
