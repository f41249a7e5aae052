"""Qwen3's weights, configurations and rotary tables as they come out of files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from inference_pio.config.rope import RopeConfig
from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.subject import Subject
from inference_pio.errors import CheckpointMismatch, ModelFileError
from inference_pio.models.qwen3.config import Qwen3Config
from inference_pio.models.qwen3.tests.case import PUBLISHED, SMALLEST_GGUF, TINY
from inference_pio.parallel import Shard

_BF16 = 2


def _weight(linear: Any) -> Tensor:
    assert not linear.packed.blocked
    return linear.packed.tensor


@pytest.mark.parametrize("tiny", ["grouped", "multi-head", "biased"])
@pytest.mark.parametrize("kind", ["safetensors", "sharded", "gguf"])
def test_every_weight_is_where_it_belongs(subject: Subject, tiny: str, kind: Any) -> None:
    """Rows of q and k lie alike in both formats; each norm is its own."""
    expected = dict(subject.reference(tiny).model.named_parameters())
    model = BareModel(subject.plugin(), subject.checkpoint(tiny, kind)).model
    assert torch.equal(model.model.embed_tokens.weight, expected["model.embed_tokens.weight"])
    head = "model.embed_tokens.weight" if TINY[tiny]["tie_word_embeddings"] else "lm_head.weight"
    assert torch.equal(_weight(model.lm_head), expected[head])
    for index, layer in enumerate(model.model.layers):
        prefix = f"model.layers.{index}."
        attention = layer.self_attn
        for linear, parts in (
            (attention.qkv_proj, [f"self_attn.{x}_proj" for x in "qkv"]),
            (attention.o_proj, ["self_attn.o_proj"]),
            (layer.mlp.gate_up_proj, ["mlp.gate_proj", "mlp.up_proj"]),
            (layer.mlp.down_proj, ["mlp.down_proj"]),
        ):
            merged = torch.cat([expected[f"{prefix}{part}.weight"] for part in parts])
            assert torch.equal(_weight(linear), merged), f"{prefix}{parts}"
            if tiny == "biased" and parts[0].startswith("self_attn"):
                bias = torch.cat([expected[f"{prefix}{part}.bias"] for part in parts])
                assert torch.equal(linear.bias, bias)
            else:
                assert linear.bias is None
        for norm, name in (
            (attention.q_norm, "self_attn.q_norm"),
            (attention.k_norm, "self_attn.k_norm"),
            (layer.input_layernorm, "input_layernorm"),
            (layer.post_attention_layernorm, "post_attention_layernorm"),
        ):
            assert torch.equal(norm.weight, expected[f"{prefix}{name}.weight"])


def _changed(source: Path, target: Path, tensors: Mapping[str, Tensor | None]) -> Path:
    """A copy of a checkpoint with tensors replaced, added, or (None) left out."""
    shutil.copytree(source, target)
    held = safetensors.torch.load_file(source / "model.safetensors")
    for name, tensor in tensors.items():
        held.pop(name, None)
        if tensor is not None:
            held[name] = tensor
    safetensors.torch.save_file(held, target / "model.safetensors")
    return target


def test_norms_of_heads_are_not_left_out_and_biases_not_added(subject: Subject, tmp_path: Path) -> None:
    attention = "model.layers.1.self_attn."
    changes = {f"{attention}k_norm.weight": None, f"{attention}o_proj.bias": torch.ones(64)}
    wrong = _changed(subject.checkpoint("grouped"), tmp_path / "wrong", changes)
    with pytest.raises(CheckpointMismatch) as mismatch:
        BareModel(subject.plugin(), wrong)
    assert mismatch.value.missing == (f"{attention}k_norm.weight",)
    assert mismatch.value.unused == (f"{attention}o_proj.bias",)


def test_a_norm_of_all_heads_together_is_another_model(subject: Subject, tmp_path: Path) -> None:
    """OLMo 2 has norms of these names, too, over all heads at once."""
    changes = {f"model.layers.{layer}.self_attn.q_norm.weight": torch.ones(128) for layer in range(2)}
    wrong = _changed(subject.checkpoint("grouped"), tmp_path / "wrong", changes)
    with pytest.raises(CheckpointMismatch, match=r"q_norm\.weight \[32\] from .*\[128\]"):
        BareModel(subject.plugin(), wrong)


def test_a_stored_tied_head_must_be_the_embedding(subject: Subject, tmp_path: Path) -> None:
    source = subject.checkpoint("multi-head")
    table = safetensors.torch.load_file(source / "model.safetensors")["model.embed_tokens.weight"]
    same = _changed(source, tmp_path / "same", {"lm_head.weight": table.clone()})
    assert torch.equal(_weight(BareModel(subject.plugin(), same).model.lm_head), table)
    other = _changed(source, tmp_path / "other", {"lm_head.weight": table + 1})
    with pytest.raises(CheckpointMismatch, match="lm_head"):
        BareModel(subject.plugin(), other)


def test_the_index_of_a_published_checkpoint(subject: Subject) -> None:
    """Names are the model's; bytes are too, but for 128 rows that the index counts and the configuration does not.

    Rows of the embedding: 151,936 are stated, 152,064 make the total. That is the vocabulary's size in the larger Qwen
    models, as their trainer pads it.
    """
    index, name = PUBLISHED["index of Qwen3-4B-Instruct-2507"], "Qwen3-4B-Instruct-2507"
    plugin = subject.plugin()
    config = plugin.read_config(PUBLISHED["configs"][name], name)
    assert set(index["tensors"]) == set(subject.case.checkpoints[name].tensors())
    with torch.device("meta"):
        model = plugin.build_model(config, Shard())
    total = sum(prod(parameter.shape) for parameter in model.parameters())
    head = prod(model.lm_head.weight.shape)  # tied: the index counts it once
    padding = (152_064 - config.vocab_size) * config.hidden_size
    assert _BF16 * (total - head + padding) == index["total_size"]


@pytest.mark.parametrize("tiny", sorted(TINY))
def test_rotary_table(subject: Subject, tiny: str) -> None:
    """Cosines and sines of every position are Transformers', scaled as there, from each format."""
    rotary = subject.reference(tiny).model.model.rotary_emb
    for kind in ("safetensors", "gguf") if tiny in subject.case.gguf else ("safetensors",):
        table = BareModel(subject.plugin(), subject.checkpoint(tiny, kind)).model.model.rotary_emb.cos_sin
        cos, sin = rotary(torch.zeros(1), torch.arange(table.shape[0])[None])
        half = table.shape[1] // 2
        expected = torch.cat((cos[0, :, :half], sin[0, :, :half]), dim=-1)
        assert table.shape == (256, TINY[tiny]["head_dim"])
        torch.testing.assert_close(table, expected, rtol=0, atol=2e-5)


def test_the_published_recipe_for_long_texts() -> None:
    """Qwen3-8B with the rope_scaling of its model card, at its real size."""
    from inference_pio.models.qwen3.rotary_embeddings.rotary_embedding import RotaryEmbedding
    from inference_pio.models.qwen3.tests.reference import reference_config

    recipe = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    raw = {**PUBLISHED["configs"]["Qwen3-8B"], "rope_scaling": recipe}
    config = Qwen3Config.read(raw, "")
    assert config.max_position_embeddings == 131072
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

    theirs = Qwen3RotaryEmbedding(reference_config(raw))
    config.max_position_embeddings = 64
    ours = RotaryEmbedding(config)
    ours.finish_loading(torch.device("cpu"), torch.float32)
    cos, _ = theirs(torch.zeros(1), torch.arange(64)[None])
    torch.testing.assert_close(ours.cos_sin[:, :64], cos[0, :, :64], rtol=0, atol=2e-5)
    assert ours.cos_sin[0, 0].item() == pytest.approx(1.1386294)  # 0.1 · ln 4 + 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_sliding_window": True}, "use_sliding_window.*within a window is not supported.*false"),
        (
            {"layer_types": ["full_attention", "sliding_attention"]},
            "layer_types.*must be 2 times full_attention",
        ),
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3 KV heads"),
        ({"num_key_value_heads": None}, "num_key_value_heads.*is missing"),
        ({"head_dim": None}, "head_dim.*is missing"),
        ({"head_dim": 15}, "15 is odd"),
        ({"hidden_act": "gelu"}, "hidden_act.*'gelu' is not the silu"),
        ({"quantization_config": {"bits": 4}}, "quantised safetensors.*use a GGUF file"),
        ({"num_experts": 128}, "unknown keys num_experts"),
        ({"partial_rotary_factor": 0.5}, "unknown keys partial_rotary_factor"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0}}, "rope_type.*'linear' is not supported"),
        ({"rope_parameters": {"mrope_section": [24, 20, 20]}}, "unknown keys mrope_section"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "factor.*is missing"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "truncate": False}},
            "unknown keys truncate",
        ),
        ({"rope_scaling": {"rope_type": "default"}}, "keep one of the two"),
    ],
)
def test_configurations_that_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        Qwen3Config.read({**TINY["grouped"], **change}, "config.json")


def test_both_spellings_of_rotary_settings_mean_the_same() -> None:
    new, old = (Qwen3Config.read(TINY[name], "") for name in ("yarn", "yarn-by-recipe"))
    assert new == old
    assert new.rope == RopeConfig(10_000.0, "yarn", 4.0, 64)
    assert new.max_position_embeddings == 256
    stated = {**TINY["yarn-by-recipe"], "max_position_embeddings": 300}
    assert Qwen3Config.read(stated, "").max_position_embeddings == 300


def test_the_defaults_are_the_default_models() -> None:
    config = Qwen3Config.read(PUBLISHED["configs"]["Qwen3-0.6B"], "")
    assert vars(config) == vars(Qwen3Config())


def test_gguf_metadata() -> None:
    names = frozenset(SMALLEST_GGUF.tensors())
    raw = {**SMALLEST_GGUF.raw, "gguf.tensor_names": names}
    config = Qwen3Config.read(raw, "smallest")
    # The file writes 1e-6 as a float32.
    assert config.rms_norm_eps == pytest.approx(1e-6, rel=1e-6)
    assert vars(config) | {"rms_norm_eps": 1e-6} == vars(Qwen3Config())
    yarn = {
        "qwen3.rope.scaling.type": "yarn",
        "qwen3.rope.scaling.factor": 4.0,
        "qwen3.rope.scaling.original_context_length": 32768,
    }
    assert Qwen3Config.read({**raw, **yarn}, "smallest").max_position_embeddings == 131072
    more = {**raw, "gguf.tensor_names": names | {"output.weight", "blk.0.attn_q.bias"}}
    untied = Qwen3Config.read(more, "smallest")
    assert (untied.tie_word_embeddings, untied.attention_bias) == (False, True)
    for change, words in (
        ({"qwen3.rope.scaling.type": "linear"}, "rope.scaling.type.*'linear' is not supported"),
        ({"qwen3.rope.scaling.type": "yarn"}, "factor.*is missing"),
        ({**yarn, "qwen3.rope.scaling.yarn_attn_factor": 1.2}, "unknown keys rope.scaling.yarn_attn_factor"),
        ({"qwen3.attention.key_length": None}, "attention.key_length.*is missing"),
        ({"qwen3.rope.dimension_count": 64}, "64 is not the head size 128"),
        ({"qwen3.attention.sliding_window": 4096}, "unknown keys attention.sliding_window"),
        ({"qwen3.pooling_type": 3}, "unknown keys pooling_type"),
    ):
        with pytest.raises(ModelFileError, match=words):
            Qwen3Config.read({**raw, **change}, "smallest")
