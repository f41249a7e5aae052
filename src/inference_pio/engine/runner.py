"""The model and its caches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.cache.specs import CacheSpec, StateMemory, state_specs
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.mtp import Predictor
from inference_pio.engine.replay import StepReplay
from inference_pio.errors import PluginError
from inference_pio.parallel import RankedModel
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.causal_lm import HeadedModel
from inference_pio.plugin.drafting import DraftingModel

_UNLIKELY = 10.0  # below the least logit of the row


class ModelRunner:
    """Owns the model and one cache per layer, and runs steps."""

    def __init__(
        self,
        model: nn.Module,
        specs: Sequence[CacheSpec],
        config: EngineConfig,
        vocab_size: int,
        device: torch.device,
    ) -> None:
        self.keeps_state = bool(state_specs(specs))
        num_slots = config.max_num_seqs + config.num_snapshots if self.keeps_state else 0
        self.device = device
        self._model = model
        self._vocab_size = vocab_size
        self.caches: list[Any] = [
            spec.allocate(config.num_blocks, config.block_size, num_slots, device) for spec in specs
        ]
        self.states: list[StateMemory] = [
            cache for spec, cache in zip(specs, self.caches, strict=True) if spec.bytes_per_sequence()
        ]
        self._replay = StepReplay(self._forward, config)
        # A recording has the operations of one thread.
        recorded = device.type == "cpu" and not isinstance(model, RankedModel)
        self._step = self._replay.run if recorded else self._forward
        self._torch_groups, self._vocabulary = config.torch_groups, config.vocabulary
        self.predictor: Predictor | None = None
        if config.speculation and isinstance(model, DraftingModel) and model.can_draft:
            self.predictor = Predictor(model, self.caches, config.block_size, config.max_num_seqs)
            # What draws h of every row out of a step, and takes it in, is no recording of native operations.
            self._step = self.predictor.forward
        self.logit_rows, self._head = config.logit_rows, None
        if config.logit_rows is not None:
            if self.predictor is not None or not isinstance(model, HeadedModel):
                raise PluginError("logits in pieces need a HeadedModel, and one that drafts nothing itself")
            self._head = model.logits

    @torch.inference_mode()
    def run(self, batch: ForwardBatch) -> Tensor:
        """What `logits` makes logits of, one row per `batch.last_token`."""
        if self._head is not None:
            batch = replace(batch, hidden_only=True)
        with self._groups():
            computed = self._step(batch)
        if len(computed) != len(batch.last_token):
            raise PluginError(f"the model gave {len(computed)} rows, expected {len(batch.last_token)}")
        return computed

    @torch.inference_mode()
    def logits(self, computed_R: Tensor) -> Tensor:
        """[R, vocab_size] of any rows of what a step computed: hidden states where logits are made in pieces."""
        logits = computed_R
        if self._head is not None:
            with self._groups():
                logits = self._head(computed_R)
        if self._vocabulary is not None:
            logits = self._all_tokens(logits, *self._vocabulary)
        expected = (len(computed_R), self._vocab_size)
        if logits.shape != expected:
            raise PluginError(f"the model gave logits of shape {tuple(logits.shape)}, expected {expected}")
        return logits

    def _groups(self) -> AbstractContextManager[None]:
        return ops.leave_out(self._torch_groups) if self._torch_groups else nullcontext()

    def _all_tokens(self, logits_RK: Tensor, first: int, start: int) -> Tensor:
        """A logit for each token: those that the model leaves out are less likely than any that it has."""
        least_R1 = logits_RK.amin(dim=1, keepdim=True) - _UNLIKELY
        missing_RM = least_R1.expand(-1, start - first)
        return torch.cat((logits_RK[:, :first], missing_RM, logits_RK[:, first:]), dim=1)

    def _forward(self, batch: ForwardBatch) -> Tensor:
        logits: Tensor = self._model(batch, self.caches)
        return logits
