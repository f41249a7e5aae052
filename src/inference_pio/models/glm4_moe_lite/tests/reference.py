"""Transformers' glm4_moe_lite with random weights, and its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

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
        _fill(self.model, 1)

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
        assert kind != "gguf", "no GGUF form of this architecture is read"
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
        _fill(self.layer_modules, 2)

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


def _fill(model: nn.Module, seed: int) -> None:
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
