"""GGUF files of a qwen3_next, as llama.cpp's converter writes them; logits of them are part of the contract's C5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf import quants

from inference_pio import LLM, SamplingParams
from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.numbers import token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.errors import CheckpointMismatch, ModelFileError
from inference_pio.loader.checkpoint import open_checkpoint
from inference_pio.loader.raw_config import raw_config
from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.models.qwen3_next.linear_optimizations.gguf_layout import pieces
from inference_pio.models.qwen3_next.tests.case import CODER_NEXT, TINY
from inference_pio.models.qwen3_next.tests.reference import Encode, TransformersQwen3Next, write_gguf
from inference_pio.ops import native

_FILES = ["three-to-one", "three-to-two"]


def _written(tiny: str, path: Path, **how: Any) -> tuple[TransformersQwen3Next, Path]:
    reference = TransformersQwen3Next(TINY[tiny])
    return reference, write_gguf(path, reference.model, **how)


@pytest.mark.parametrize("tiny", _FILES)
def test_rows_values_and_shapes_are_the_checkpoints_again(
    subject: Subject, tiny: str, tmp_path: Path
) -> None:
    reference, path = _written(tiny, tmp_path / "x.gguf")
    expected = dict(reference.model.named_parameters())
    model = BareModel(subject.plugin(), path).model
    for index, layer in enumerate(model.model.layers):
        prefix = f"model.layers.{index}."
        assert torch.allclose(
            layer.input_layernorm.weight, expected[f"{prefix}input_layernorm.weight"], atol=1e-6
        )
        if not hasattr(layer, "linear_attn"):
            continue
        mine, theirs = layer.linear_attn, f"{prefix}linear_attn."
        assert torch.equal(mine.in_proj_qkvz.packed.tensor, expected[f"{theirs}in_proj_qkvz.weight"])
        assert torch.equal(mine.conv1d.weight, expected[f"{theirs}conv1d.weight"])
        assert torch.equal(mine.norm.weight, expected[f"{theirs}norm.weight"])
        assert torch.allclose(mine.A_log, expected[f"{theirs}A_log"], atol=1e-6)


def test_older_files_have_the_projection_whole(subject: Subject, tmp_path: Path) -> None:
    _, newer = _written("three-to-two", tmp_path / "newer.gguf")
    _, older = _written("three-to-two", tmp_path / "older.gguf", older=True)
    prompt = token_ids(40, TINY["three-to-two"]["vocab_size"])
    answers = [BareModel(subject.plugin(), path).prefill(prompt) for path in (newer, older)]
    assert torch.equal(*answers)


def test_pieces_of_the_published_size() -> None:
    """16 groups of 128 rows of a query, 128 of a key, 256 of values and 256 of z, taken from two tensors."""
    config = Qwen3NextConfig.read(CODER_NEXT, "")
    split, merge = pieces(config)
    counts = {name.rpartition(".linear_attn.")[2]: len(parts) for name, parts in split.items()}
    assert counts == {"apart_qkv.weight": 64, "apart_z.weight": 32}
    (order,) = merge.values()
    assert sorted(order) == sorted(part for parts in split.values() for part in parts)
    first = [part.rpartition("apart_")[2].removesuffix(".weight") for part in order[:6]]
    assert first == ["qkv_0", "qkv_16", "qkv_32", "qkv_33", "z_0", "z_1"]


def _in_blocks(name: str, value: Any) -> tuple[Any, gguf.GGMLQuantizationType | None]:
    """Matrices of whole blocks in 8 bits, but for z in 5: its pieces lie between those of the others."""
    if value.ndim == 1 or value.shape[-1] % 32 or "ffn_gate_inp" in name:
        return value, None
    kind = gguf.GGMLQuantizationType.Q5_0 if "attn_gate" in name else gguf.GGMLQuantizationType.Q8_0
    return quants.quantize(value, kind), kind


@pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
def test_weights_stay_in_blocks(tmp_path: Path) -> None:
    """Pieces of two tensors, in blocks of two kinds, make the same product as the dense parameter does."""
    encode: Encode = _in_blocks
    _, path = _written("three-to-two", tmp_path / "x.gguf", encode=encode)
    options: dict[str, Any] = {"skip_tokenizer_init": True, "kv_cache_memory_gb": 0.01}
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(3))
    made = []
    for dtype in ("auto", "float32"):
        with LLM(str(path), dtype=dtype, **options) as llm:
            layer = llm.plugin.runtime._model.model.layers[0]
            assert bool(layer.mlp.experts.stacks) == (dtype == "auto")
            made.append(layer.linear_attn.in_proj_qkvz(x))
            out = llm.generate(
                [{"prompt_token_ids": [5, 6, 7]}], SamplingParams(max_tokens=4, ignore_eos=True)
            )
            assert len(out[0].outputs[0].token_ids) == 4
    # Activations have 8 bits in one of them.
    assert (made[0] - made[1]).norm() < 0.02 * made[1].norm()


def _raw(tmp_path: Path) -> dict[str, Any]:
    _, path = _written("three-to-one", tmp_path / "x.gguf")
    with open_checkpoint(path) as checkpoint:
        return dict(raw_config(checkpoint, path))


def test_metadata_says_what_config_json_says(tmp_path: Path) -> None:
    stated, written = Qwen3NextConfig.read(_raw(tmp_path), ""), Qwen3NextConfig.read(TINY["three-to-one"], "")
    assert written.rms_norm_eps == pytest.approx(stated.rms_norm_eps)
    assert vars(stated) | {"rms_norm_eps": 0} == vars(written) | {"rms_norm_eps": 0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"expert_gating_func": 2}, "expert_gating_func.*softmax"),
        ({"expert_weights_scale": 2.5}, "expert_weights_scale.*not scaled"),
        ({"rope.scaling.type": "yarn"}, "rope.scaling.type.*'yarn' is not supported"),
        ({"rope.dimension_count": 7}, "rope.dimension_count.*7 of 32"),
        ({"rope.dimension_count": 64}, "rope.dimension_count.*64 of 32"),
        ({"ssm.time_step_rank": 6}, "ssm.time_step_rank.*6 value heads cannot share 4"),
        ({"ssm.inner_size": 97}, "ssm.inner_size.*97 channels are not 8 equal heads"),
        ({"ssm.conv_kernel": 1}, "ssm.conv_kernel.*1 is not between 2"),
        ({"ssm.group_count": None}, "ssm.group_count.*is missing"),
        ({"expert_used_count": 9}, "9 of 8 experts"),
        ({"attention.recurrent_layers": [True]}, "unknown keys attention.recurrent_layers"),
        ({"nextn_predict_layers": 1}, "unknown keys nextn_predict_layers"),
    ],
)
def test_what_is_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    raw = {**_raw(tmp_path), **{f"qwen3next.{key}": value for key, value in change.items()}}
    with pytest.raises(ModelFileError, match=words):
        Qwen3NextConfig.read(raw, "")


def test_half_of_a_projection_is_missed(subject: Subject, tmp_path: Path) -> None:
    def without_z(name: str, value: Any) -> tuple[Any, None]:
        return (value[:-8] if name == "blk.0.attn_gate.weight" else value), None

    _, path = _written("three-to-two", tmp_path / "x.gguf", encode=without_z)
    with pytest.raises(CheckpointMismatch, match=r"attn_gate|in_proj_qkvz"):
        BareModel(subject.plugin(), path)
