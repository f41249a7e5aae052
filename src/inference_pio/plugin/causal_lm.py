"""A language model: hidden states, and the head that makes logits of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from inference_pio.config import BaseModelConfig
from inference_pio.layers import VocabParallelHead
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch


class HeadedModel(nn.Module, ABC):
    """A model whose head can be run by itself, on some of a step's rows: its class says what `hidden` computes."""

    lm_head: VocabParallelHead

    @abstractmethod
    def hidden(self, batch: ForwardBatch, caches: Sequence[Any]) -> Tensor:
        """Final hidden states [R, D] of the rows that need logits."""

    def logits(self, hidden_RD: Tensor) -> Tensor:
        """[R, V] in float32, of any rows of `hidden`."""
        logits_RV: Tensor = self.lm_head(hidden_RD)
        return logits_RV.float()

    def asked(self, hidden_RD: Tensor, batch: ForwardBatch) -> Tensor:
        """What the step asks for: logits, or hidden states alone."""
        return hidden_RD if batch.hidden_only else self.logits(hidden_RD)

    def forward(self, batch: ForwardBatch, caches: Sequence[Any]) -> Tensor:
        return self.asked(self.hidden(batch, caches), batch)


class CausalLM(HeadedModel):
    """Logits [R, V] in float32, of the R rows that need them.

    Args:
        model: the architecture without its head: model(batch, caches) gives final hidden states [R, D].
    """

    def __init__(self, model: nn.Module, config: BaseModelConfig, shard: Shard) -> None:
        super().__init__()
        self.model = model
        self.lm_head = VocabParallelHead(config.hidden_size, config.vocab_size, shard)

    def hidden(self, batch: ForwardBatch, caches: Sequence[Any]) -> Tensor:
        hidden_RD: Tensor = self.model(batch, caches)
        return hidden_RD
