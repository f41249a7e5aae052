"""A model's weights divided over ranks (Megatron-LM, Shoeybi et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from inference_pio.errors import ConfigError
from inference_pio.optimizations.technique import (
    Situation,
    Standing,
    Technique,
    active,
    dormant,
    not_applicable,
)
from inference_pio.plugin.serving import serving_of


class TensorParallelism(Technique):
    """Ranks are threads of this process: the shard plan carried out, without the speed of devices of their own."""

    name = "tensor_parallelism"
    title = "tensor parallelism"
    family = "tensor parallelism"
    category = "hardware"
    exact = True
    flags = ("use_tensor_parallelism",)
    on: ClassVar[Mapping[str, Any]] = {
        "use_tensor_parallelism": True,
        "tensor_parallel_size": 2,
    }
    # Weights in blocks are not divided.
    both: ClassVar[Mapping[str, Any]] = {"torch_dtype": "float32"}
    shows_on = "decode"

    def standing(self, at: Situation) -> Standing:
        size = at.options.tensor_parallel_size
        if size == 1:
            return dormant("tensor_parallel_size is 1")
        if size not in at.legal_ranks:
            legal = ", ".join(map(str, at.legal_ranks))
            raise ConfigError(f"tensor_parallel_size {size}: this model can be divided over {legal}")
        if at.packed:
            raise ConfigError(f"tensor_parallel_size {size}: weights in blocks are not divided: name a dtype")
        if any(spec.bytes_per_sequence() for spec in serving_of(at.model).cache_specs):
            return not_applicable("its layers keep state, which ranks in one process do not")
        if hasattr(at.model, "encode_media"):
            return not_applicable("a model that sees is not divided over ranks in one process")
        return active(f"{size} ranks as threads of this process")

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        serving = serving_of(model)
        serving.ranks = serving.asked_ranks
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        return {**self.facts(), "ranks": serving_of(model).ranks}
