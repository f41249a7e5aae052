"""GGUF files that call themselves "deepseek2", by their metadata: which are run, and what others are refused for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.numbers import token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.errors import ModelFileError
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.models.glm4_moe_lite.tests.case import GLM_4_7_FLASH_GGUF, TINY
from inference_pio.models.glm4_moe_lite.tests.reference import fill, write_gguf

# Of V3 and what descends from it.
_BIASED = frozenset({"output.weight", "blk.1.exp_probs_b.bias"})
_V3_HEADS = {
    "attention.head_count": 128,
    "attention.head_count_kv": 1,
    "attention.kv_lora_rank": 512,
    "attention.key_length": 576,
    "attention.value_length": 512,
    "attention.key_length_mla": 192,
    "attention.value_length_mla": 128,
    "rope.dimension_count": 64,
}
_YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 40.0,
    "rope.scaling.original_context_length": 4096,
    "rope.scaling.yarn_log_multiplier": 0.1,
}
# What published files say.
_DEEPSEEK_V3 = {
    "block_count": 61,
    "context_length": 163840,
    "embedding_length": 7168,
    "feed_forward_length": 18432,
    **_V3_HEADS,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "attention.q_lora_rank": 1536,
    "rope.freq_base": 10_000.0,
    "leading_dense_block_count": 3,
    "expert_count": 256,
    "expert_used_count": 8,
    "expert_group_count": 8,
    "expert_group_used_count": 4,
    "expert_feed_forward_length": 2048,
    "expert_shared_count": 1,
    "expert_gating_func": 2,
    "expert_weights_norm": True,
    "expert_weights_scale": 2.5,
    "vocab_size": 129280,
    **_YARN,
}
_DEEPSEEK_V2_LITE = {
    "block_count": 27,
    "context_length": 163840,
    "embedding_length": 2048,
    "feed_forward_length": 10944,
    "attention.head_count": 16,
    "attention.head_count_kv": 16,
    "attention.kv_lora_rank": 512,
    "attention.key_length": 192,
    "attention.value_length": 128,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.dimension_count": 64,
    "rope.freq_base": 10_000.0,
    "leading_dense_block_count": 1,
    "expert_count": 64,
    "expert_used_count": 6,
    "expert_feed_forward_length": 1408,
    "expert_shared_count": 2,
    "expert_weights_scale": 1.0,
    "vocab_size": 102400,
    **_YARN,
    "rope.scaling.yarn_log_multiplier": 0.0707,
}


def _read(facts: Mapping[str, Any], names: frozenset[str] = _BIASED) -> Glm4MoeLiteConfig:
    raw = {"general.architecture": "deepseek2", "gguf.tensor_names": names}
    return Glm4MoeLiteConfig.read(raw | {f"deepseek2.{key}": value for key, value in facts.items()}, "x")


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key not in _YARN}


def test_relatives_of_the_same_name_are_refused_by_the_key_that_tells_them_apart() -> None:
    unbiased = frozenset({"output.weight"})
    for facts, names, words in (
        (_DEEPSEEK_V3, _BIASED, "deepseek2.rope.scaling.type.*'yarn' is not supported"),
        (_DEEPSEEK_V2_LITE, unbiased, "deepseek2.rope.scaling.type.*'yarn' is not supported"),
        # Even were their positions plain: files of V2 do not say that its router is a softmax.
        (_plain(_DEEPSEEK_V2_LITE), unbiased, "deepseek2.expert_gating_func.*1 .softmax. is not supported"),
        ({**_plain(_DEEPSEEK_V3), "expert_gating_func": 1}, _BIASED, "expert_gating_func.*softmax"),
        # Mistral Large 3
        (
            {**_plain(_DEEPSEEK_V3), "attention.temperature_scale": 0.1},
            _BIASED,
            "attention.temperature_scale",
        ),
        # Youtu-LLM: no experts
        (_plain(_DEEPSEEK_V3) | {"expert_count": None}, _BIASED, "expert_count.*is missing"),
    ):
        with pytest.raises(ModelFileError, match=words) as refused:
            _read(facts, names)
        assert "\n" not in str(refused.value)


def test_what_is_computed_alike_is_run() -> None:
    """DeepSeek-V3's architecture with plain positions."""
    config = _read(_plain(_DEEPSEEK_V3))
    assert (config.n_group, config.topk_group, config.routed_scaling_factor) == (8, 4, 2.5)
    assert (config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim) == (128, 64, 128)
    assert config.mlp_layer_types.count("dense") == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"expert_gating_func": 3}, "expert_gating_func.*3 .another function. is not supported"),
        ({"attention.key_length": 577}, "attention.key_length.*577 contradicts.*576 or 256"),
        ({"attention.value_length": 300}, "attention.value_length.*300 contradicts.*512 or 256"),
        ({"attention.head_count_kv": 4}, "attention.head_count_kv.*4 contradicts.*1 or 20"),
        (
            {"rope.dimension_count": 256, "attention.key_length": 768},
            "rope.dimension_count.*256 of a key's 256",
        ),
        ({"rope.dimension_count": 63, "attention.key_length": 575}, "qk_rope_head_dim.*63 is odd"),
        ({"attention.kv_lora_rank": None}, "attention.kv_lora_rank.*is missing"),
        ({"attention.head_count": 2**31 - 1}, "num_attention_heads.*2147483647 heads are more than 4096"),
        ({"nextn_predict_layers": 47}, "nextn_predict_layers.*47 of 47 layers"),
        ({"expert_group_count": 3}, "n_group.*64 experts cannot lie in 3"),
        ({"expert_group_used_count": 2}, "topk_group.*2 of 1 groups"),
        ({"expert_shared_count": 0}, "expert_shared_count.*0 is not between"),
        ({"attention.indexer.top_k": 2048}, "unknown keys attention.indexer.top_k"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_what_is_refused(change: dict[str, Any], words: str) -> None:
    facts = {key.removeprefix("deepseek2."): value for key, value in GLM_4_7_FLASH_GGUF.items()}
    facts.pop("general.architecture")
    with pytest.raises(ModelFileError, match=words):
        _read({**facts, **change})


def test_a_deepseek_v3_with_plain_positions_answers_as_it_should(subject: Subject, tmp_path: Path) -> None:
    raw = TINY["no biases"]
    config = transformers.DeepseekV3Config(
        **{key: value for key, value in raw.items() if key not in ("architectures", "model_type")}
    )
    model = transformers.DeepseekV3ForCausalLM(config).float().eval()
    fill(model, 5)
    # As the writer below asks for it.
    config.mlp_layer_types = ["dense"] * raw["first_k_dense_replace"]
    path = write_gguf(tmp_path / "x.gguf", model)
    prompt = token_ids(60, raw["vocab_size"])
    with torch.inference_mode():
        wanted = model(torch.tensor([prompt])).logits[0]
    found = BareModel(subject.plugin(), path).prefill(prompt)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
