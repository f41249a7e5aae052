"""The layer that predicts further tokens, from a checkpoint to drafts that are taken."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from inference_pio.conformance.checkpoint import HeaderOnly
from inference_pio.conformance.drafting import DraftingBareModel
from inference_pio.conformance.numbers import assert_close, token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.engine.step_costs import DRAFT_COUNTS, StepCosts
from inference_pio.errors import CheckpointMismatch
from inference_pio.llm import LLM
from inference_pio.loader.weights import audit
from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.models.qwen3_next.model import Qwen3NextForCausalLM
from inference_pio.models.qwen3_next.tests.case import CODER_NEXT, TINY
from inference_pio.models.qwen3_next.tests.reference import TransformersQwen3NextWithMtp, checkpoint_shapes
from inference_pio.parallel import Shard, SimulatedGroup
from inference_pio.sampling_params import SamplingParams

_PROMPTS = [token_ids(length, 272, length) for length in (5, 17, 40)]
_OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "skip_tokenizer_init": True,
    "kv_cache_memory_gb": 0.01,
    "block_size": 16,
}
_PARAMS = (
    SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True),
    SamplingParams(temperature=0.8, top_p=0.95, seed=3, max_tokens=60, ignore_eos=True),
)


@pytest.fixture
def drafts_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is drafted does not depend on this machine's speed."""
    monkeypatch.setattr(StepCosts, "comparable", True)
    monkeypatch.setattr(
        StepCosts, "ratios", lambda _, most: [(count, 1.0) for count in DRAFT_COUNTS if count <= most]
    )


def _checkpoint(directory: Path, tiny: str) -> Path:
    path = TransformersQwen3NextWithMtp(TINY[tiny]).save(directory, "safetensors")
    (path / "config.json").write_text(json.dumps(TINY[tiny]))
    return path


def _make_it_right(path: Path) -> None:
    """Blocks add little to the residual stream, so that a token is nearly a function of the one before, and the layer
    for drafts hands the embedding on to a norm like the model's: it mostly says, at any depth, what the model will say.
    """
    held = safetensors.torch.load_file(path / "model.safetensors")
    for name, tensor in held.items():
        if name.endswith(("o_proj.weight", "out_proj.weight", "down_proj.weight", "norm_embedding.weight")):
            tensor.mul_(0 if name.endswith("norm_embedding.weight") else 0.02)
    width = len(held["mtp.norm.weight"])
    held["mtp.fc.weight"] = torch.cat((torch.eye(width), torch.zeros(width, width)), dim=1)
    held["mtp.norm.weight"] = held["model.norm.weight"].clone()
    safetensors.torch.save_file(held, path / "model.safetensors")


def _run(path: Path, **options: Any) -> tuple[list[list[list[int]]], dict[str, float]]:
    found = []
    with LLM(str(path), **{**_OPTIONS, **options}) as llm:
        for params in _PARAMS:
            results = llm.generate([{"prompt_token_ids": prompt} for prompt in _PROMPTS], params)
            found.append([result.outputs[0].token_ids for result in results])
        return found, llm.plugin.get_compute_stats()


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("tiny", ["attention only", "three-to-one"])
@pytest.mark.usefixtures("drafts_are_free")
def test_tokens_stay_and_right_drafts_are_taken(tmp_path: Path, tiny: str, right: bool) -> None:
    path = _checkpoint(tmp_path, tiny)
    if right:
        _make_it_right(path)
    expected, without = _run(path, mtp=False, speculation=0)
    found, stats = _run(path, speculation=3)
    assert found == expected
    assert without["predicted_draft_tokens"] == 0 < stats["predicted_draft_tokens"]
    if right:
        assert stats["accepted_predicted_tokens"] > 60
        assert stats["steps"] < 0.7 * without["steps"]
    else:
        assert stats["accepted_predicted_tokens"] < 0.1 * stats["predicted_draft_tokens"]


def test_the_published_checkpoint_fills_the_layer(subject: Subject) -> None:
    _audits(subject, CODER_NEXT)()


def test_what_the_layer_lacks_or_does_not_know_is_named(subject: Subject) -> None:
    """With fewer layers in front of it: every audit reads all names."""
    stated = {**CODER_NEXT, "num_hidden_layers": 4, "layer_types": CODER_NEXT["layer_types"][:4]}
    shapes, check = dict(checkpoint_shapes(stated)), _audits(subject, stated)
    check()
    for name in ("fc", "norm", "layers.0.mlp.experts.511.up_proj", "layers.0.self_attn.q_norm"):
        with pytest.raises(CheckpointMismatch, match=name.partition(".")[0]):
            check(without=f"mtp.{name}.weight")
    with pytest.raises(CheckpointMismatch, match="A_log"):
        check({"mtp.layers.0.linear_attn.A_log": (32,)})
    with pytest.raises(CheckpointMismatch, match=r"layers\.1"):
        check({"mtp.layers.1.input_layernorm.weight": (2048,)})
    read = Qwen3NextConfig.read(stated, "")
    assert subject.plugin().with_drafting(read, [name for name in shapes if "mtp" not in name]) is None


def _audits(subject: Subject, stated: Mapping[str, Any]) -> Callable[..., None]:
    """Holds a checkpoint of these numbers, with tensors added and without one, against the model that reads it."""
    plugin, shapes = subject.plugin(), dict(checkpoint_shapes(stated))
    config: Any = plugin.with_drafting(Qwen3NextConfig.read(stated, ""), shapes.keys())
    with torch.device("meta"):
        model = Qwen3NextForCausalLM(config, Shard())
    parameters = {name: tuple(value.shape) for name, value in model.named_parameters()}

    def check(more: Mapping[str, tuple[int, ...]] | None = None, *, without: str = "") -> None:
        assert not without or without in shapes
        found = {name: shape for name, shape in {**shapes, **(more or {})}.items() if name != without}
        audit(parameters, HeaderOnly.of("Qwen3-Coder-Next", "safetensors", found), plugin.weight_map(config))

    return check


def test_ranks_draft_alike(subject: Subject, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    path, group = _checkpoint(tmp_path, "three-to-one"), SimulatedGroup(2)

    def drafted(shard: Shard) -> torch.Tensor:
        model = DraftingBareModel(subject.plugin(), path, shard=shard)
        model.take_in([(0, _PROMPTS[1])])
        return model.guess([(0, [3, 5, 7])])

    whole = drafted(Shard())
    with ThreadPoolExecutor(2) as pool:
        for rank in pool.map(lambda number: drafted(Shard(number, 2, group)), range(2)):
            assert_close(rank, whole, "drafts of one of two ranks")


@pytest.mark.usefixtures("drafts_are_free")
def test_with_few_blocks_and_short_steps(tmp_path: Path) -> None:
    """Prompts in chunks that end where a snapshot is due; sequences put out and begun again from one."""
    path = _checkpoint(tmp_path, "three-to-one")
    _make_it_right(path)
    expected, _ = _run(path, mtp=False, speculation=0, enable_prefix_caching=False)
    found, stats = _run(path, max_num_batched_tokens=7, kv_cache_memory_gb=1.7e-4, max_model_len=112)
    assert found == expected
    assert stats["preemptions"] > 0
    assert stats["accepted_predicted_tokens"] > 30


@pytest.mark.usefixtures("drafts_are_free")
def test_behind_a_snapshot(tmp_path: Path) -> None:
    """The hidden state behind the tokens that were found is not known: drafts may be worse, tokens are the same."""
    path = _checkpoint(tmp_path, "three-to-one")
    _make_it_right(path)
    prompts = [[*_PROMPTS[2], *end] for end in ([1, 2, 3], [4, 5], [1, 2, 3, 9])]
    found = []
    for options in ({"mtp": False, "speculation": 0, "enable_prefix_caching": False}, {}):
        with LLM(str(path), **_OPTIONS, **options) as llm:
            results = [llm.generate({"prompt_token_ids": prompt}, _PARAMS[0])[0] for prompt in prompts]
            found.append([result.outputs[0].token_ids for result in results])
            stats = llm.plugin.get_compute_stats()
    assert found[0] == found[1]
    assert stats["prefix_cache_hit_tokens"] > 0
    assert stats["accepted_predicted_tokens"] > 30
