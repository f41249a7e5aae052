"""Transformers' qwen3_next with random weights, and its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import gguf
import safetensors.torch
import torch
import transformers
from torch import Tensor, nn
from transformers.models.qwen3_next import modeling_qwen3_next as theirs

from inference_pio.conformance.case import CheckpointKind, Raw

_SHARD = "60KB"


class TransformersQwen3Next:
    """Implements `ReferenceModel`. Every parameter is random and large enough to matter; decays are neither 0 nor 1."""

    def __init__(self, raw: Raw) -> None:
        self.model = transformers.Qwen3NextForCausalLM(reference_config(raw)).float().eval()
        _fill(self.model, 1)

    def logits(self, token_ids: Sequence[int]) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = self.model(torch.tensor([list(token_ids)]), use_cache=False).logits[0]
        return logits

    def generate(self, token_ids: Sequence[int], count: int) -> list[int]:
        """The greedy continuation, end-of-text tokens ignored."""
        ids = list(token_ids)
        for _ in range(count):
            ids.append(int(self.logits(ids)[-1].argmax()))
        return ids[len(token_ids) :]

    def save(self, directory: Path, kind: CheckpointKind) -> Path:
        if kind == "gguf":
            return write_gguf(directory / "model.gguf", self.model)
        self.model.save_pretrained(directory, max_shard_size=_SHARD if kind == "sharded" else "1GB")
        shards = len(list(directory.glob("*.safetensors")))
        assert (shards > 1) == (kind == "sharded"), f"{shards} files for a {kind} checkpoint"
        return directory


class _Mtp(nn.Module):
    """Named as in a checkpoint; Transformers has no module for the whole, its parts are Transformers' and torch's."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.pre_fc_norm_embedding = theirs.Qwen3NextRMSNorm(width, eps)
        self.pre_fc_norm_hidden = theirs.Qwen3NextRMSNorm(width, eps)
        self.fc = nn.Linear(2 * width, width, bias=False)
        self.layers = nn.ModuleList([theirs.Qwen3NextDecoderLayer(config, 0)])
        self.norm = theirs.Qwen3NextRMSNorm(width, eps)


class TransformersQwen3NextWithMtp(TransformersQwen3Next):
    """Implements `DraftingReference`: the same weights, and the layer that predicts further tokens."""

    def __init__(self, raw: Raw) -> None:
        super().__init__(raw)
        config = reference_config(raw)
        config.layer_types = ["full_attention", *config.layer_types[1:]]
        config._attn_implementation = config._experts_implementation = "eager"
        self.mtp = _Mtp(config).float().eval()
        _fill(self.mtp, 2)

    def draft_logits(self, token_ids: Sequence[int], guesses: Sequence[int] = ()) -> Tensor:
        ids = [*token_ids, *guesses]
        with torch.inference_mode():
            known = self.model.model(torch.tensor([list(token_ids)]), use_cache=False).last_hidden_state[0]
            before = [torch.zeros_like(known[0]), *known[:-1]]
            made = self.hidden(torch.stack(before), token_ids)
            while len(before) < len(ids):
                before.append(made[-1])
                made = self.hidden(torch.stack(before), ids[: len(before)])
            logits: Tensor = self.model.lm_head(made)
        return logits

    def hidden(self, before_TD: Tensor, token_ids: Sequence[int]) -> Tensor:
        """[T, D] of the layer's own, from those of the tokens before."""
        mtp, count = self.mtp, len(token_ids)
        x_TD = mtp.pre_fc_norm_embedding(self.model.model.embed_tokens(torch.tensor(list(token_ids))))
        u_TD = mtp.fc(torch.cat((x_TD, mtp.pre_fc_norm_hidden(before_TD)), dim=-1))
        turned = self.model.model.rotary_emb(u_TD[None], torch.arange(count)[None])
        future = torch.full((1, 1, count, count), float("-inf")).triu(1)
        made: Tensor = mtp.layers[0](u_TD[None], position_embeddings=turned, attention_mask=future)
        out_TD: Tensor = mtp.norm(made)[0]
        return out_TD

    def save(self, directory: Path, kind: CheckpointKind) -> Path:
        super().save(directory, kind)
        path = directory / "model.safetensors"
        tensors = safetensors.torch.load_file(path)
        for name, tensor in self.mtp.state_dict().items():
            shapes = _one_by_one(f"mtp.{name}", tuple(tensor.shape))
            rows = tensor.flatten(0, 1) if tensor.ndim == 3 else tensor
            parts = rows.split([shape[0] for shape in shapes.values()])
            tensors.update(zip(shapes, (part.contiguous() for part in parts), strict=True))
        safetensors.torch.save_file(tensors, path)
        return directory


def _fill(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(_scaled(name, noise))


Encode = Callable[[str, Any], tuple[Any, gguf.GGMLQuantizationType | None]]


def _plain(_: str, value: Any) -> tuple[Any, gguf.GGMLQuantizationType | None]:
    return value, None


def write_gguf(path: Path, model: Any, encode: Encode = _plain, *, older: bool = False) -> Path:
    """What llama.cpp's converter makes of a qwen3_next; names are those of the gguf package.

    Args:
        encode: a tensor by its name in the file as it is stored.
        older: as files were before the converter took in_proj_qkvz apart.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, "qwen3next")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_expert_count(config.num_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    writer.add_ssm_conv_kernel(config.linear_conv_kernel_dim)
    writer.add_ssm_state_size(config.linear_key_head_dim)
    writer.add_ssm_group_count(config.linear_num_key_heads)
    writer.add_ssm_time_step_rank(config.linear_num_value_heads)
    writer.add_ssm_inner_size(config.linear_value_head_dim * config.linear_num_value_heads)
    writer.add_full_attention_interval(config.layer_types.index("full_attention") + 1)
    writer.add_rope_dimension_count(int(config.head_dim * config.rope_parameters["partial_rotary_factor"]))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3NEXT, config.num_hidden_layers)
    for name, value in _converted(model, older=older):
        found = name if name.startswith("blk.") else names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, f"the gguf package knows no name for {name}"
        data, kind = encode(found, value.detach().contiguous().numpy())
        writer.add_tensor(found, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _converted(model: Any, *, older: bool) -> Iterator[tuple[str, Tensor]]:
    """Parameters by the names and with the values that the converter gives them."""
    for name, parameter in model.named_parameters():
        if name.endswith(".A_log"):
            yield name, -parameter.exp()
        elif name.endswith(".dt_bias"):
            yield name.replace(".dt_bias", ".dt_proj.bias"), parameter
        elif "conv1d" in name:
            yield name, parameter.squeeze()
        elif name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
            yield name, parameter + 1
        elif name.endswith("in_proj_qkvz.weight") and not older:
            yield from _taken_apart(f"blk.{name.split('.')[2]}", parameter, model.config)
        elif name.endswith("experts.gate_up_proj"):
            for projection, part in zip(("gate_proj", "up_proj"), parameter.chunk(2, dim=1), strict=True):
                yield name.replace("gate_up_proj", f"{projection}.weight"), part
        elif name.endswith("experts.down_proj"):
            yield f"{name}.weight", parameter
        else:
            yield name, parameter


def _taken_apart(block: str, weight: Tensor, config: Any) -> Iterator[tuple[str, Tensor]]:
    """The rows of all queries, keys and values, and those of all z, out of groups of a key head each."""
    heads, key = config.linear_num_key_heads, config.linear_key_head_dim
    value = config.linear_num_value_heads // heads * config.linear_value_head_dim
    parts = weight.unflatten(0, (heads, -1)).split([key, key, value, value], dim=1)
    *qkv, z = (part.flatten(0, 1) for part in parts)
    yield f"{block}.attn_qkv.weight", torch.cat(qkv)
    yield f"{block}.attn_gate.weight", z


def _scaled(name: str, noise: Tensor) -> Tensor:
    if name.endswith(("A_log", "dt_bias")):
        return noise - 1.5  # a token keeps between half and nearly all of the state
    if "linear_attn.norm" in name:
        return 1 + 0.3 * noise
    if "norm" in name or name.endswith("bias"):
        return 0.3 * noise
    if "embed" in name:
        return noise
    return noise * 1.5 / noise.shape[-1] ** 0.5


def reference_config(raw: Raw) -> Any:
    """Transformers' configuration; it writes into the objects it is given, so it gets its own."""
    return transformers.Qwen3NextConfig.from_dict(deepcopy(dict(raw)))


def checkpoint_shapes(raw: Raw) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint of this configuration: Transformers' class, its experts one by one, and mtp.

    Transformers does not load `mtp.*`. Its names and shapes are those of vLLM's and LightLLM's loaders: one attention
    layer with a mixture, a norm in front of each half of `fc`, and one behind.
    """
    config = reference_config(raw)
    with torch.device("meta"):
        model = transformers.Qwen3NextForCausalLM(config)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, parameter in model.named_parameters():
        shapes.update(_one_by_one(name, tuple(parameter.shape)))
    attention = config.layer_types.index("full_attention")
    layer = f"model.layers.{attention}."
    copied = {name: shape for name, shape in shapes.items() if name.startswith(layer)}
    shapes |= {f"mtp.layers.0.{name.removeprefix(layer)}": shape for name, shape in copied.items()}
    hidden = config.hidden_size
    shapes["mtp.fc.weight"] = (hidden, 2 * hidden)
    for norm in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden"):
        shapes[f"mtp.{norm}.weight"] = (hidden,)
    return shapes


def _one_by_one(name: str, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
    """Checkpoints have a tensor per expert and projection; Transformers stacks them when it loads."""
    place, _, leaf = name.rpartition(".")
    if not place.endswith(".experts"):
        return {name: shape}
    experts, rows, columns = shape
    parts = {"gate_up_proj": (("gate_proj", rows // 2), ("up_proj", rows // 2))}.get(leaf, ((leaf, rows),))
    return {
        f"{place}.{expert}.{part}.weight": (height, columns)
        for expert in range(experts)
        for part, height in parts
    }
