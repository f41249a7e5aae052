"""Transformers' qwen3_moe with random weights, and its checkpoint in each format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import gguf
import torch
import transformers
from torch import Tensor

from inference_pio.conformance.case import CheckpointKind, Raw

# Of weights with which no token of the contract tests stands between two experts: their probabilities are 0.2 % apart
# at least, where another order of the same sums moves them by a millionth.
SEED = 8
_SHARD = "100KB"
Encode = Callable[[str, Any], tuple[Any, gguf.GGMLQuantizationType | None]]
_EXPERT = re.compile(r"(.*\.experts)\.\d+\.(gate|up|down)_proj\.weight")


class TransformersQwen3Moe:
    """Implements `ReferenceModel`. Every parameter is random, norms too, and large enough to matter."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.model = transformers.Qwen3MoeForCausalLM(reference_config(raw)).float().eval()
        generator = torch.Generator().manual_seed(SEED)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.ndim == 1:
                    parameter.copy_(1 + 0.3 * noise)
                else:
                    parameter.copy_(noise if "embed" in name else noise * 1.5 / parameter.shape[-1] ** 0.5)

    def logits(self, token_ids: Sequence[int]) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = self.model(torch.tensor([list(token_ids)])).logits[0]
        return logits

    def generate(self, token_ids: Sequence[int], count: int) -> list[int]:
        """The greedy continuation, end-of-text tokens ignored."""
        ids = list(token_ids)
        for _ in range(count):
            ids.append(int(self.logits(ids)[-1].argmax()))
        return ids[len(token_ids) :]

    def save(self, directory: Path, kind: CheckpointKind) -> Path:
        if kind == "gguf":
            return write_gguf(directory / "model.gguf", self.raw, self.model)
        self.model.save_pretrained(directory, max_shard_size=_SHARD if kind == "sharded" else "1GB")
        shards = len(list(directory.glob("*.safetensors")))
        assert (shards > 1) == (kind == "sharded"), f"{shards} files for a {kind} checkpoint"
        return directory


def reference_config(raw: Raw) -> Any:
    """Transformers' configuration; it writes into the objects it is given, so it gets its own."""
    return transformers.Qwen3MoeConfig.from_dict(deepcopy(dict(raw)))


def shapes_by_transformers(raw: Raw) -> Mapping[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = transformers.Qwen3MoeForCausalLM(reference_config(raw))
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def shape_of(name: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """A checkpoint's tensor beside the model's parameters, which hold all experts, gate above up."""
    found = _EXPERT.fullmatch(name)
    if found is None:
        return shapes[name]
    experts, projection = found.groups()
    if projection == "down":
        return shapes[f"{experts}.down_proj"][1:]
    _, rows, columns = shapes[f"{experts}.gate_up_proj"]
    return rows // 2, columns


def _plain(_: str, value: Any) -> tuple[Any, gguf.GGMLQuantizationType | None]:
    return value, None


def write_gguf(path: Path, raw: Raw, model: Any, encode: Encode = _plain) -> Path:
    """What llama.cpp's converter makes of a qwen3_moe; names are those of the gguf package."""
    config = model.config
    writer = gguf.GGUFWriter(path, "qwen3moe")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_key_length(raw["head_dim"])
    writer.add_value_length(raw["head_dim"])
    writer.add_expert_count(config.num_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if "shared_expert_intermediate_size" in raw:
        writer.add_expert_shared_feed_forward_length(raw["shared_expert_intermediate_size"])
    if config.rope_parameters["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])
        writer.add_rope_scaling_orig_ctx_len(config.rope_parameters["original_max_position_embeddings"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3MOE, config.num_hidden_layers)
    for name, value in _converted(model):
        found = names.get_name(name, try_suffixes=(".weight",))
        assert found is not None, f"the gguf package knows no name for {name}"
        data, kind = encode(found, value.detach().contiguous().numpy())
        writer.add_tensor(found, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _converted(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Parameters by the names that the converter gives them; a tied head is not named a second time."""
    for name, parameter in model.named_parameters():
        if name.endswith("experts.gate_up_proj"):
            for projection, part in zip(("gate_proj", "up_proj"), parameter.chunk(2, dim=1), strict=True):
                yield name.replace("gate_up_proj", f"{projection}.weight"), part
        elif name.endswith("experts.down_proj"):
            yield f"{name}.weight", parameter
        else:
            yield name, parameter
