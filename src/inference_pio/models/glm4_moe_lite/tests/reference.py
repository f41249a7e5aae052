"""Transformers' glm4_moe_lite with random weights, and its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import safetensors.torch
import torch
import transformers
from torch import Tensor, nn
from transformers.models.glm4_moe_lite import modeling_glm4_moe_lite as theirs

from inference_pio.conformance.case import CheckpointKind, Raw

_SHARD = "60KB"


class TransformersGlm:
    """Implements `ReferenceModel`. Every parameter is random, norms and biases too, and large enough to matter."""

    def __init__(self, raw: Raw) -> None:
        self.model = transformers.Glm4MoeLiteForCausalLM(reference_config(raw)).float().eval()
        fill(self.model, 1)

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
            return write_gguf(directory / "model.gguf", self.model)
        self.model.save_pretrained(directory, max_shard_size=_SHARD if kind == "sharded" else "1GB")
        shards = len(list(directory.glob("*.safetensors")))
        assert (shards > 1) == (kind == "sharded"), f"{shards} files for a {kind} checkpoint"
        return directory


class TransformersGlmWithMtp(TransformersGlm):
    """Implements `DraftingReference`: the same weights, and behind the last layer one more with what joins its inputs.

    Transformers has no module for the whole; its parts are Transformers' and torch's.
    """

    def __init__(self, raw: Raw) -> None:
        super().__init__(raw)
        config = reference_config(raw)
        config.mlp_layer_types = [*config.mlp_layer_types, "sparse"]
        self.place = config.num_hidden_layers
        width, eps = config.hidden_size, config.rms_norm_eps
        self.enorm, self.hnorm, self.norm = (theirs.Glm4MoeLiteRMSNorm(width, eps) for _ in range(3))
        self.eh_proj = nn.Linear(2 * width, width, bias=False)
        config._attn_implementation = config._experts_implementation = "eager"
        self.layer = theirs.Glm4MoeLiteDecoderLayer(config, self.place)
        self.layer_modules = nn.ModuleList(
            [self.enorm, self.hnorm, self.norm, self.eh_proj, self.layer]
        ).eval()
        fill(self.layer_modules, 2)

    def draft_logits(self, token_ids: Sequence[int], guesses: Sequence[int] = ()) -> Tensor:
        with torch.inference_mode():
            known = self.model.model(torch.tensor([list(token_ids)])).last_hidden_state[0]
            hidden = torch.cat((torch.zeros_like(known[:1]), known[:-1]))
            made = self.hidden(hidden, token_ids)
            for count in range(1, len(guesses) + 1):
                hidden = torch.cat((hidden, made[-1:]))
                made = self.hidden(hidden, [*token_ids, *guesses[:count]])
            logits: Tensor = self.model.lm_head(made)
        return logits

    def hidden(self, hidden_TD: Tensor, token_ids: Sequence[int]) -> Tensor:
        """[T, D] of the layer's own, from those of the tokens before."""
        x_TD = self.model.model.embed_tokens(torch.tensor(list(token_ids)))
        u_TD = self.eh_proj(torch.cat((self.enorm(x_TD), self.hnorm(hidden_TD)), dim=-1))[None]
        positions = torch.arange(len(token_ids))[None]
        count = len(token_ids)
        future = torch.full((count, count), float("-inf")).triu(1)[None, None]
        turned = self.model.model.rotary_emb(u_TD, positions)
        out_TD: Tensor = self.norm(
            self.layer(u_TD, attention_mask=future, position_ids=positions, position_embeddings=turned)
        )[0]
        return out_TD

    def save(self, directory: Path, kind: CheckpointKind) -> Path:
        """The layer as published checkpoints have it: experts one by one, copies of embedding and head beside it."""
        super().save(directory, kind)
        path = directory / "model.safetensors"
        place = f"model.layers.{self.place}."
        tensors = {f"{place}{name}": tensor for name, tensor in self._own_tensors().items()}
        for name, tensor in self.layer.state_dict().items():
            block, _, leaf = name.rpartition(".")
            if not block.endswith("mlp.experts"):
                tensors[f"{place}{name}"] = tensor
                continue
            parts = ("gate_proj", "up_proj") if leaf == "gate_up_proj" else ("down_proj",)
            for expert, matrix in enumerate(tensor):
                for part, rows in zip(parts, matrix.chunk(len(parts)), strict=True):
                    tensors[f"{place}{block}.{expert}.{part}.weight"] = rows
        held = {**safetensors.torch.load_file(path), **tensors}
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in held.items()}, path)
        return directory

    def _own_tensors(self) -> dict[str, Tensor]:
        return {
            "enorm.weight": self.enorm.weight.detach(),
            "hnorm.weight": self.hnorm.weight.detach(),
            "eh_proj.weight": self.eh_proj.weight.detach(),
            "shared_head.norm.weight": self.norm.weight.detach(),
            "embed_tokens.weight": self.model.model.embed_tokens.weight.detach().clone(),
            "shared_head.head.weight": self.model.lm_head.weight.detach().clone(),
        }


Encode = Callable[[str, Any], tuple[Any, gguf.GGMLQuantizationType | None]]


def _plain(_: str, value: Any) -> tuple[Any, gguf.GGMLQuantizationType | None]:
    return value, None


def write_gguf(
    path: Path,
    model: Any,
    encode: Encode = _plain,
    *,
    older: bool = False,
    drafting: Mapping[str, Tensor] | None = None,
) -> Path:
    """What llama.cpp's converter makes of a glm4_moe_lite; names are those of the gguf package.

    Args:
        encode: a tensor by its name in the file as it is stored.
        older: as files were before latents were attended to: kv_b_proj is whole, sizes are those of heads.
        drafting: the tensors of one layer behind the last, by their names in a checkpoint without its prefix.
    """
    writer = gguf.GGUFWriter(path, "deepseek2")
    _write_metadata(writer, model.config, older=older, predictors=1 if drafting else 0)
    for name, value in gguf_tensors(model, older=older, drafting=drafting or {}):
        data, kind = encode(name, value.detach().contiguous().numpy())
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_metadata(writer: gguf.GGUFWriter, config: Any, *, older: bool, predictors: int) -> None:
    latent, turning = config.kv_lora_rank, config.qk_rope_head_dim
    key, value = config.qk_nope_head_dim + turning, config.v_head_dim
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers + predictors)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_attention_heads if older else 1)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if config.q_lora_rank is not None:
        writer.add_q_lora_rank(config.q_lora_rank)
    writer.add_kv_lora_rank(latent)
    writer.add_key_length(key if older else latent + turning)
    writer.add_value_length(value if older else latent)
    if not older:
        writer.add_key_length_mla(key)
        writer.add_value_length_mla(value)
    writer.add_rope_dimension_count(turning)
    writer.add_leading_dense_block_count(list(config.mlp_layer_types).count("dense"))
    writer.add_expert_count(config.n_routed_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_group_count(config.n_group)
    writer.add_expert_group_used_count(config.topk_group)
    writer.add_expert_shared_count(config.n_shared_experts)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_expert_weights_scale(config.routed_scaling_factor)
    if config.norm_topk_prob:
        writer.add_expert_weights_norm(True)
    if predictors:
        writer.add_nextn_predict_layers(predictors)


def gguf_tensors(
    model: Any, *, older: bool = False, drafting: Mapping[str, Tensor] = MappingProxyType({})
) -> Iterator[tuple[str, Tensor]]:
    """Names and values of a GGUF file."""
    config, last = model.config, model.config.num_hidden_layers
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.DEEPSEEK2, last + 1)
    tensors = dict(model.state_dict())
    if config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    tensors |= {f"model.layers.{last}.{name}": value for name, value in drafting.items()}
    for name, value in tensors.items():
        for part, stored in _converted(name, value, config, older=older):
            found = known.get_name(part, try_suffixes=(".weight", ".bias")) or _of_the_drafting_layer(part)
            yield found, stored


def _of_the_drafting_layer(name: str) -> str:
    """The gguf package's table of this architecture does not have them yet; its names do not depend on it."""
    _, _, layer, leaf = name.removesuffix(".weight").split(".", 3)
    kind = gguf.MODEL_TENSOR[f"NEXTN_{leaf.replace('.', '_').upper()}"]
    return f"{gguf.TENSOR_NAMES[kind].format(bid=layer)}.weight"


def _converted(name: str, value: Tensor, config: Any, *, older: bool) -> Iterator[tuple[str, Tensor]]:
    """A tensor by the names and with the values that the converter gives it."""
    if name.endswith("e_score_correction_bias"):
        yield name.replace("correction_bias", "correction.bias"), value
    elif name.endswith("experts.gate_up_proj"):
        for projection, part in zip(("gate_proj", "up_proj"), value.chunk(2, dim=1), strict=True):
            yield name.replace("gate_up_proj", f"{projection}.weight"), part
    elif name.endswith("experts.down_proj"):
        yield f"{name}.weight", value
    elif name.endswith("kv_b_proj.weight") and not older:
        heads = value.unflatten(0, (config.num_attention_heads, -1))
        keys, values = heads.split([config.qk_nope_head_dim, config.v_head_dim], dim=1)
        yield name.replace("kv_b_proj", "k_b_proj"), keys.transpose(1, 2)
        yield name.replace("kv_b_proj", "v_b_proj"), values
    else:
        yield name, value


def fill(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim > 1:
                tensor.copy_(noise if "embed" in name else noise * 1.5 / tensor.shape[-1] ** 0.5)
            elif "norm" in name or name in ("0.weight", "1.weight", "2.weight"):
                tensor.copy_(1 + 0.3 * noise)
            else:  # the router's is as large as scores differ
                tensor.copy_(0.3 * noise if "e_score" in name else noise)


def reference_config(raw: Raw) -> Any:
    """Transformers' configuration; it writes into the objects it is given, so it gets its own.

    It does not know `first_k_dense_replace`: which layers are dense is told it in its own words.
    """
    own = deepcopy(dict(raw))
    if (dense := own.pop("first_k_dense_replace", None)) is not None:
        own["mlp_layer_types"] = ["dense" if n < dense else "sparse" for n in range(own["num_hidden_layers"])]
    return transformers.Glm4MoeLiteConfig.from_dict(own)
