"""A network of Transformers as the engine runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inference_pio.bridge.attention import seam
from inference_pio.bridge.config import AttentionLayer, BridgeConfig
from inference_pio.bridge.network import owners_of_buffers
from inference_pio.bridge.paged import PagedStep
from inference_pio.bridge.selftest import check_against_eager
from inference_pio.cache.specs import KVCache, PagedKV
from inference_pio.plugin.batch import ForwardBatch


class BridgedModel(nn.Module):
    """Logits [R, V] in float32.

    As soon as the weights are there, a few tokens run through the caches and through Transformers' own attention, and
    a model whose logits differ is refused: what mixes tokens otherwise than by attention shows here.
    """

    def __init__(self, network: Any, config: BridgeConfig) -> None:
        super().__init__()
        self.network = network
        self._path, self._keeps_rows = config.path, config.keeps_rows
        self._layers: Mapping[nn.Module, tuple[int, AttentionLayer]] = {
            network.get_submodule(layer.name): (index, layer) for index, layer in enumerate(config.layers)
        }

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:
        """Buffers to the device, the implementation of experts that Transformers would choose, and the self-check."""
        for owner, leaf, buffer in owners_of_buffers(self.network):
            owner._buffers[leaf] = buffer.to(device)
        experts = self.network.get_correct_experts_implementation(None)
        self.network.config._experts_implementation = experts
        specs = [cache_spec(layer, dtype) for _, layer in self._layers.values()]
        check_against_eager(self, specs, device, dtype, self._path)

    def forward(self, batch: ForwardBatch, caches: Sequence[KVCache]) -> Tensor:
        ids = batch.token_ids[None]
        rows = {"logits_to_keep": batch.last_token} if self._keeps_rows else {}
        with seam(PagedStep(self._layers, batch, caches)):
            logits: Tensor = self.network(
                input_ids=ids,
                position_ids=batch.positions[None],
                attention_mask=torch.ones_like(ids),
                use_cache=False,
                **rows,
            ).logits[0]
        return (logits if self._keeps_rows else logits[batch.last_token]).float()


def cache_spec(layer: AttentionLayer, dtype: torch.dtype) -> PagedKV:
    """Values that are narrower than keys take as much as those."""
    return PagedKV(layer.num_kv_heads, layer.head_dim, dtype)
