"""A language model: hidden states, and the head that makes logits of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from inference_pio.config import BaseModelConfig
from inference_pio.layers import VocabParallelHead
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch


class CausalLM(nn.Module):
    """Logits [R, V] in float32, of the R rows that need them.

    Args:
        model: the architecture without its head: model(batch, caches) gives final hidden states [R, D].
    """

    def __init__(self, model: nn.Module, config: BaseModelConfig, shard: Shard) -> None:
        super().__init__()
        self.model = model
        self.lm_head = VocabParallelHead(config.hidden_size, config.vocab_size, shard)

    def forward(self, batch: ForwardBatch, caches: Sequence[Any]) -> Tensor:
        logits_RV: Tensor = self.lm_head(self.model(batch, caches))
        return logits_RV.float()
