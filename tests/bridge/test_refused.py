"""What cannot be run right is refused by name: from config.json alone, or else once its weights are there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.masking_utils import create_causal_mask
from transformers.models.mistral import modeling_mistral
from transformers.models.olmo2 import modeling_olmo2

from inference_pio import LLM
from inference_pio.bridge.plugin import BridgePlugin
from inference_pio.conformance.bare_model import BareModel
from inference_pio.errors import (
    CheckpointMismatch,
    ContextLengthError,
    ModelFileError,
    UnsupportedArchitecture,
    UsageError,
)
from support.bridged import tiny, written

_ROPE = {"rope_theta": 10_000.0}
_DYNAMIC = {**_ROPE, "rope_type": "dynamic", "factor": 4.0}
REFUSED = {
    "soft cap": (tiny("gemma2", attn_logit_softcapping=50.0), "attn_logit_softcapping"),
    "sinks": (tiny("gpt_oss", head_dim=16, num_local_experts=4), "attention with sinks"),
    "recurrent": (tiny("qwen3_next"), "layer_types: .* linear_attention"),
    "none attends": (tiny("xlstm", num_heads=4), "0 of its 3 layers attend"),
    "chunks": (tiny("llama4_text", head_dim=16), "chunked_attention"),
    "alibi": (tiny("bloom"), "BloomForCausalLM attends in a way of its own"),
    "own attention": (tiny("falcon"), "FalconForCausalLM attends in a way of its own"),
    "both directions": (tiny("bert"), "its mask is not that of a token that sees everything before it"),
    "indexer": (
        tiny(
            "deepseek_v32",
            num_key_value_heads=4,
            kv_lora_rank=16,
            q_lora_rank=24,
            qk_rope_head_dim=8,
            qk_nope_head_dim=16,
            v_head_dim=16,
        ),
        "layer_types: .* indexed_attention",
    ),
    "twice in a layer": (tiny("diffllama"), "attends more than once in a layer"),
    "encoder": (tiny("bart", is_encoder_decoder=True, d_model=64), "is_encoder_decoder"),
    "images": (tiny("gemma3", vision_config={}, text_config={}), "text_config, vision_config"),
    "dynamic rope": (tiny("olmo2", rope_parameters=_DYNAMIC), "rope_type dynamic"),
    "unknown rope": (tiny("olmo2", rope_parameters={**_ROPE, "rope_type": "mine"}), "mine"),
    "quantised": (tiny("olmo2", quantization_config={"bits": 4}), "quantization_config"),
    "layers": (tiny("olmo2", num_hidden_layers=10**9), "num_hidden_layers: .* 1000000000 is more than 1000"),
    "experts": (tiny("mixtral", num_local_experts=10**9), "num_local_experts"),
    "a word": (tiny("olmo2", hidden_size="wide"), "Transformers fails at reading config.json: .*hidden_size"),
    "activation": (tiny("olmo2", hidden_act="mine"), "mine"),
    "no positions": (tiny("olmo2", max_position_embeddings=0), "max_position_embeddings"),
    "another class": (
        {**tiny("olmo2"), "architectures": ["Olmo2ForSequenceClassification"]},
        "Olmo2ForSequenceClassification",
    ),
    "nobody's": ({"architectures": ["NinthForCausalLM"], "model_type": "ninth"}, "'ninth'"),
    "GGUF": ({"general.architecture": "olmo2"}, "not GGUF files"),
}


@pytest.mark.parametrize(("raw", "named"), REFUSED.values(), ids=REFUSED)
def test_refused_by_name(raw: Mapping[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=named) as refusal:
        BridgePlugin().read_config(raw, "here")
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith("here: ")


def test_transformers_log_keeps_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A warning of Transformers beside our error would make two lines of one."""
    short = {**_ROPE, "rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0], "factor": 2.0}
    before = logging.getLogger("transformers").level
    with pytest.raises(UnsupportedArchitecture):
        BridgePlugin().read_config(tiny("phi3", rope_parameters=short), "here")
    assert not caplog.records
    assert logging.getLogger("transformers").level == before


def test_what_mixes_tokens_otherwise_is_found_out(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that also looks at the token before it: nothing in its configuration or its attention says so."""
    honest = modeling_olmo2.Olmo2MLP.forward

    def looks_back(self: Any, x: torch.Tensor) -> torch.Tensor:
        before = torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]
        return honest(self, x + before)

    monkeypatch.setattr(modeling_olmo2.Olmo2MLP, "forward", looks_back)
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(
            UnsupportedArchitecture, match="something else than attention connects its tokens"
        ):
            BareModel(BridgePlugin(), checkpoint("olmo2"), dtype=dtype)


def test_weights_that_are_not_finite_are_found_out(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = modeling_olmo2.Olmo2MLP.forward
    monkeypatch.setattr(modeling_olmo2.Olmo2MLP, "forward", lambda self, x: honest(self, x) * float("nan"))
    with pytest.raises(UnsupportedArchitecture, match="not finite"):
        BareModel(BridgePlugin(), checkpoint("olmo2"))


def test_a_mask_that_attention_does_not_keep_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window in one of both places only: longer than the check of the logits, shorter than the longest text."""
    monkeypatch.setattr(modeling_mistral, "create_sliding_window_causal_mask", create_causal_mask)
    with pytest.raises(UnsupportedArchitecture, match="not that of a token that sees the last 24 positions"):
        BridgePlugin().read_config(tiny("mistral"), "here")


def test_loading_is_strict(tmp_path: Path) -> None:
    raw = tiny("olmo2")
    written(raw, tmp_path)
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace("96", "112"))
    with pytest.raises(CheckpointMismatch, match=r"of another shape: network\.model\.layers\.0\.mlp"):
        LLM(str(tmp_path))


def test_options_that_have_no_effect_are_refused(checkpoint: Callable[[str], Path]) -> None:
    path = str(checkpoint("olmo2"))
    with pytest.raises(UsageError, match="quantize int8: no weight of this model can be held in blocks"):
        LLM(path, plugin="transformers", quantize="int8")


def test_frequencies_that_change_with_length_limit_it(tmp_path: Path) -> None:
    """Phi-3 with longrope runs as far as its first set of frequencies goes."""
    rope = {
        **_ROPE,
        "rope_type": "longrope",
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [2.0, 3.0, 4.0, 5.0],
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    raw = tiny("phi3", rope_parameters=rope, original_max_position_embeddings=64)
    path = str(written(raw, tmp_path))
    with LLM(path, skip_tokenizer_init=True, dtype="float32", kv_cache_memory_gb=0.02) as llm:
        assert llm.max_model_len == 64
    with pytest.raises(ContextLengthError, match="65 is more than the 64 positions"):
        LLM(path, max_model_len=65)


def test_nothing_is_run_from_beside_the_weights(tmp_path: Path) -> None:
    """`auto_map` names code: it is neither run nor needed where Transformers has the class."""
    module = tmp_path / "modeling_mine.py"
    module.write_text("raise SystemExit('run')")
    raw = tiny(
        "olmo2", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"}, _attn_implementation="who/kernel"
    )
    path = str(written(raw, tmp_path))
    with LLM(path, skip_tokenizer_init=True, dtype="float32", kv_cache_memory_gb=0.02) as llm:
        assert llm.plugin.manifest.name == "transformers"
    with pytest.raises(ModelFileError, match="no causal language model for model_type 'mine'"):
        BridgePlugin().read_config(
            {
                "architectures": ["MineForCausalLM"],
                "model_type": "mine",
                "auto_map": {"AutoModelForCausalLM": "modeling_mine.Mine"},
            },
            "here",
        )
