"""GGUF files of a glm4_moe_lite, as llama.cpp's converter writes them; logits of them are part of the contract's C5."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import quants
from torch import Tensor

from inference_pio import LLM, SamplingParams, ops
from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.numbers import token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.errors import CheckpointMismatch
from inference_pio.loader.checkpoint import open_checkpoint
from inference_pio.loader.raw_config import raw_config
from inference_pio.models.glm4_moe_lite.config import Glm4MoeLiteConfig
from inference_pio.models.glm4_moe_lite.tests.case import (
    CASE,
    GLM_4_7_FLASH,
    GLM_4_7_FLASH_GGUF,
    TINY,
    by_llama_cpp,
)
from inference_pio.models.glm4_moe_lite.tests.reference import (
    Encode,
    TransformersGlm,
    TransformersGlmWithMtp,
    write_gguf,
)
from inference_pio.ops import native
from inference_pio.parallel import Shard

_FILES = sorted(CASE.gguf)


def _written(tiny: str, path: Path, **how: Any) -> tuple[TransformersGlm, Path]:
    reference = TransformersGlm(TINY[tiny])
    return reference, write_gguf(path, reference.model, **how)


def _up_projections(model: Any) -> list[Tensor]:
    """Of every layer [heads, key + value, latent], as kv_b_proj has its rows."""
    return [torch.cat(layer.self_attn.kv_b_proj.parts(), dim=1) for layer in model.model.layers]


@pytest.mark.parametrize("older", [False, True], ids=["apart", "whole"])
@pytest.mark.parametrize("tiny", _FILES)
def test_every_value_is_the_checkpoints_again(
    subject: Subject, tiny: str, older: bool, tmp_path: Path
) -> None:
    reference, path = _written(tiny, tmp_path / "x.gguf", older=older)
    with open_checkpoint(path) as checkpoint:
        assert ("blk.0.attn_k_b.weight" in checkpoint.tensors) != older
    held = reference.model.state_dict()
    model = BareModel(subject.plugin(), path).model
    for index, (layer, up) in enumerate(zip(model.model.layers, _up_projections(model), strict=True)):
        name = f"model.layers.{index}."
        assert torch.equal(up.flatten(0, 1), held[f"{name}self_attn.kv_b_proj.weight"])
        assert torch.equal(layer.input_layernorm.weight, held[f"{name}input_layernorm.weight"])
        if (bias := f"{name}mlp.gate.e_score_correction_bias") in held:
            assert torch.equal(layer.mlp.gate.e_score_correction_bias, held[bias])
            assert torch.equal(layer.mlp.experts.gate_up_proj, held[f"{name}mlp.experts.gate_up_proj"])


def test_older_files_give_the_same_answers(subject: Subject, tmp_path: Path) -> None:
    _, newer = _written("no biases", tmp_path / "newer.gguf")
    _, older = _written("no biases", tmp_path / "older.gguf", older=True)
    prompt = token_ids(40, TINY["no biases"]["vocab_size"])
    assert torch.equal(*(BareModel(subject.plugin(), path).prefill(prompt) for path in (newer, older)))


@pytest.mark.parametrize("older", [False, True], ids=["apart", "whole"])
def test_each_rank_has_its_heads(subject: Subject, older: bool, tmp_path: Path) -> None:
    _, path = _written("low-rank", tmp_path / "x.gguf", older=older)
    whole = _up_projections(BareModel(subject.plugin(), path).model)
    shares = [
        _up_projections(BareModel(subject.plugin(), path, shard=Shard(rank, 2)).model) for rank in range(2)
    ]
    for parts in zip(whole, *shares, strict=True):
        assert [len(part) for part in parts] == [4, 2, 2]
        assert torch.equal(parts[0], torch.cat(parts[1:]))


def _raw(tiny: str, tmp_path: Path, **how: Any) -> dict[str, Any]:
    _, path = _written(tiny, tmp_path / "x.gguf", **how)
    with open_checkpoint(path) as checkpoint:
        return dict(raw_config(checkpoint, path))


@pytest.mark.parametrize("older", [False, True], ids=["apart", "whole"])
@pytest.mark.parametrize("tiny", _FILES)
def test_metadata_says_what_config_json_says(tiny: str, older: bool, tmp_path: Path) -> None:
    found = Glm4MoeLiteConfig.read(_raw(tiny, tmp_path, older=older), "")
    stated = Glm4MoeLiteConfig.read(TINY[tiny], "")
    assert found.rms_norm_eps == pytest.approx(stated.rms_norm_eps)
    assert found.routed_scaling_factor == pytest.approx(stated.routed_scaling_factor)
    rounded: dict[str, Any] = {"rms_norm_eps": 1.0, "routed_scaling_factor": 1.0}
    assert replace(found, **rounded) == replace(stated, **rounded)


def test_the_published_model() -> None:
    shapes = by_llama_cpp()
    assert len(shapes) == 844
    assert shapes["blk.46.attn_k_b.weight"] == (20, 512, 192)
    assert shapes["blk.46.attn_v_b.weight"] == (20, 256, 512)
    found = Glm4MoeLiteConfig.read({**GLM_4_7_FLASH_GGUF, "gguf.tensor_names": frozenset(shapes)}, "")
    stated = Glm4MoeLiteConfig.read(GLM_4_7_FLASH, "")
    assert found == replace(stated, num_nextn_predict_layers=0, pad_token_id=None)


# The layer that drafts ------------------------------------------------------------------------------------------------


def _with_the_layer(path: Path) -> tuple[TransformersGlmWithMtp, Path]:
    reference = TransformersGlmWithMtp(TINY["low-rank"])
    drafting = reference.layer.state_dict() | reference._own_tensors()
    return reference, write_gguf(path, reference.model, drafting=drafting)


def test_a_layer_that_drafts_is_loaded_where_it_is_wanted(subject: Subject, tmp_path: Path) -> None:
    reference, path = _with_the_layer(tmp_path / "x.gguf")
    plugin = subject.plugin()
    without = BareModel(plugin, path)
    assert without.config.num_hidden_layers == len(without.model.model.layers) == 3
    with open_checkpoint(path) as checkpoint:
        config: Any = plugin.with_drafting(without.config, checkpoint.tensors.keys())
    assert config.use_mtp
    drafting = BareModel(plugin, path, options={"use_mtp": True}).model
    layer = drafting.model.prediction_layer()
    assert torch.equal(layer.eh_proj.packed.tensor, reference.eh_proj.weight)
    assert torch.equal(layer.shared_head.norm.weight, reference.norm.weight)
    assert torch.equal(layer.mlp.experts.down_proj, reference.layer.mlp.experts.down_proj)
    held = reference.layer.self_attn.kv_b_proj.weight
    assert torch.equal(_up_projections(drafting)[3].flatten(0, 1), held)


def test_files_without_the_layer_do_not_draft(subject: Subject, tmp_path: Path) -> None:
    _, path = _written("low-rank", tmp_path / "x.gguf")
    with open_checkpoint(path) as checkpoint:
        config = subject.plugin().read_config(raw_config(checkpoint, path), "")
        assert subject.plugin().with_drafting(config, checkpoint.tensors.keys()) is None


# Blocks ---------------------------------------------------------------------------------------------------------------

_Kind = gguf.GGMLQuantizationType
# Rows of whole blocks everywhere, of 256 where experts read.
_WIDE = {
    **TINY["low-rank"],
    "hidden_size": 256,
    "moe_intermediate_size": 64,
    "q_lora_rank": 32,
    "qk_nope_head_dim": 32,
}


def _q4_k(shape: tuple[int, ...]) -> np.ndarray:
    """Random blocks of 256 values: two scales of 16 bits, 12 bytes of finer ones, 128 of values."""
    random = np.random.default_rng(7)
    blocks = random.integers(0, 256, (*shape[:-1], shape[-1] // 256, 144), dtype=np.uint8)
    scales = np.array([0.0002, 0.0015], dtype=np.float16)
    blocks[..., :4] = scales.view(np.uint8)
    return blocks.reshape(*shape[:-1], -1)


def _in_blocks(name: str, value: Any) -> tuple[Any, _Kind | None]:
    if value.ndim == 1 or "ffn_gate_inp" in name:
        return value, None
    if "_exps" in name and value.shape[-1] == 256:
        return _q4_k(value.shape), _Kind.Q4_K
    kind = _Kind.Q5_0 if "attn_v_b" in name else _Kind.Q8_0
    return quants.quantize(value, kind), kind


@pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
def test_experts_stay_in_blocks_and_latents_projections_become_dense(tmp_path: Path) -> None:
    encode: Encode = _in_blocks
    model = TransformersGlm(_WIDE).model
    path = write_gguf(tmp_path / "x.gguf", model, encode)
    options: dict[str, Any] = {"skip_tokenizer_init": True, "kv_cache_memory_gb": 0.01}
    x = torch.randn(5, 256, generator=torch.Generator().manual_seed(3))
    made, up = [], []
    for dtype in ("auto", "float32"):
        with LLM(str(path), dtype=dtype, **options) as llm:
            loaded: Any = llm.plugin.runtime._model
            layer = loaded.model.layers[1]
            assert bool(layer.mlp.experts.stacks) == (dtype == "auto")
            assert isinstance(layer.self_attn.q_b_proj.packed, ops.QuantizedWeight) == (dtype == "auto")
            made.append(layer.mlp(x.to(layer.input_layernorm.weight.dtype)).float())
            up.append(_up_projections(loaded)[1])
            out = llm.generate(
                [{"prompt_token_ids": [5, 6, 7]}], SamplingParams(max_tokens=4, ignore_eos=True)
            )
            assert len(out[0].outputs[0].token_ids) == 4
    # Activations have 8 bits in one of them.
    assert (made[0] - made[1]).norm() < 0.02 * made[1].norm()
    heads = model.state_dict()["model.layers.1.self_attn.kv_b_proj.weight"].unflatten(0, (4, -1))
    keys, values = (part.numpy() for part in heads.split([32, 16], dim=1))
    stored = quants.dequantize(quants.quantize(keys.swapaxes(1, 2).copy(), _Kind.Q8_0), _Kind.Q8_0)
    assert torch.equal(up[1][:, :32], torch.from_numpy(stored).transpose(1, 2))
    stored = quants.dequantize(quants.quantize(values.copy(), _Kind.Q5_0), _Kind.Q5_0)
    assert torch.equal(up[1][:, 32:], torch.from_numpy(stored))
    assert torch.allclose(up[0].float(), up[1], atol=0.01)


# Files that do not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("victim", "stored"),
    [
        ("blk.0.attn_k_b.weight", lambda value: value[:-1]),  # a head too few
        ("blk.0.attn_k_b.weight", lambda value: value.swapaxes(1, 2).copy()),  # not turned over
        ("blk.0.attn_k_b.weight", lambda value: value[0]),  # one matrix
        ("blk.0.attn_v_b.weight", lambda value: value[:, :-1].copy()),
    ],
    ids=["a head too few", "not turned over", "one matrix", "short values"],
)
def test_parts_that_do_not_fit_are_named(subject: Subject, victim: str, stored: Any, tmp_path: Path) -> None:
    def changed(name: str, value: Any) -> tuple[Any, None]:
        return (stored(value) if name == victim else value), None

    _, path = _written("low-rank", tmp_path / "x.gguf", encode=changed)
    with pytest.raises(CheckpointMismatch, match=rf"{victim}|model.layers.0.self_attn.kv_b_proj"):
        BareModel(subject.plugin(), path)


def test_biases_are_not_taken(subject: Subject, tmp_path: Path) -> None:
    """llama.cpp's graph of this name has none; a file with some is of another model."""
    _, path = _written("low-rank", tmp_path / "x.gguf")
    writer = gguf.GGUFWriter(tmp_path / "y.gguf", "deepseek2")
    reader = gguf.GGUFReader(path)
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            writer.add_key_value(field.name, field.contents(), field.types[0])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data))
    writer.add_tensor("blk.0.attn_output.bias", np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointMismatch, match="unused: blk.0.attn_output.bias"):
        BareModel(subject.plugin(), tmp_path / "y.gguf")
