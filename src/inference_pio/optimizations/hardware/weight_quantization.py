"""Dense weights in fewer bits, rounded when they are loaded: to nearest, or by what a calibration text says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.errors import PluginError
from inference_pio.layers import GatedLinear, Linear, VocabParallelHead
from inference_pio.ops.gptq import Compensation, compensated_rows
from inference_pio.ops.rounding import BLOCK, quantize_rows
from inference_pio.optimizations.hardware.calibration_pass import visit_linears
from inference_pio.optimizations.technique import (
    Situation,
    Standing,
    Technique,
    active,
    dormant,
    not_applicable,
)
from inference_pio.plugin.quantization import Quantization
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.plugin.serving import serving_of

_GROUP = 32
_NAMES = ("weights_int8", "weights_int4", "weights_calibrated", "tensor_parallelism")


class _FewerBits(Technique):
    """Linear maps get blocks of one kind in place of dense weights; embeddings and experts stay as they are.

    The model is loaded dense first. Where that is too much memory, the engine's option `quantize` rounds each tensor as
    it is read, and `inference-pio quantize` writes a file whose blocks are read as they are.
    """

    family = "weight quantisation"
    category = "hardware"
    exact = False
    shows_on = "decode"
    stage: ClassVar[Literal["weights", "both"]] = "weights"
    on_request = True
    # A checkpoint's own blocks are not rounded again.
    both: ClassVar[Mapping[str, Any]] = {"torch_dtype": "float32"}
    kind: ClassVar[str]

    def standing(self, at: Situation) -> Standing:
        if self._as_read(at.options):
            return active("weights with more bits are rounded as they are read")
        if at.device.type != "cpu" or not ops.can_pack(self.kind):
            return not_applicable("blocks are multiplied by native kernels, on a CPU")
        if at.packed:
            return not_applicable("the weights are in blocks already")
        if self.name not in at.options.enable:
            return dormant(f"weights stay as the checkpoint has them: enable {self.name} rounds them")
        return active(f"dense weights become blocks of {self.kind}, {_GROUP} columns a scale")

    def asked_by(self, options: RuntimeOptions) -> str | None:
        return f"quantize {options.quantize}" if self._as_read(options) else None

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        kinds = Counter(
            "+".join(dict.fromkeys(module.packed.kinds))
            for _, module in _linears(model)
            if isinstance(module.packed, ops.QuantizedWeight)
        )
        return {**self.facts(), "matrices": dict(kinds)}

    def _as_read(self, options: RuntimeOptions) -> bool:  # noqa: ARG002
        """Whether the loader does it, by the engine's option `quantize`."""
        return False


class _ToNearest(_FewerBits):
    stage = "both"

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        """Where the option `quantize` asks for it the loader is told, before memory is planned; nothing is dense then
        when weights are there."""
        serving, memory = serving_of(model), ops.Slab()
        serving.quantization = serving.asked_quantization
        for module, weight in _dense(model):
            _give(module, self.kind, quantize_rows(weight, self.kind, _GROUP), memory)
        return model

    def _as_read(self, options: RuntimeOptions) -> bool:
        return options.quantize is not None and Quantization.parse(options.quantize).kind == self.kind


class WeightsInt8(_ToNearest):
    name = "weights_int8"
    title = "weights in 8 bits, to nearest"
    kind = "Q8_0"
    conflicts = tuple(name for name in _NAMES if name != "weights_int8")
    on: ClassVar = {"enable": ("weights_int8",)}


class WeightsInt4(_ToNearest):
    name = "weights_int4"
    title = "weights in 4 bits, to nearest"
    kind = "Q4_1"
    conflicts = tuple(name for name in _NAMES if name != "weights_int4")
    on: ClassVar = {"enable": ("weights_int4",)}


class CalibratedWeights(_FewerBits):
    """GPTQ: each map's errors of rounding are made up for by its columns that follow (`ops/gptq.py`). The package's
    calibration text goes through the model once; the head, which that pass does not reach, gets 8 bits.
    """

    name = "weights_calibrated"
    title = "weights in 4 bits, by a calibration text"
    kind = "Q4_1"
    conflicts = tuple(name for name in _NAMES if name != "weights_calibrated")
    on: ClassVar = {"enable": ("weights_calibrated",)}

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        tokens = serving_of(model).calibration
        if tokens is None:
            raise PluginError("weights_calibrated needs a calibration text: nobody gave the model one")
        memory = ops.Slab()

        def visit(name: str, module: Linear, how: Compensation) -> None:  # noqa: ARG001
            weight = _floats(module)
            _give(module, self.kind, compensated_rows(weight, how, self.kind, _GROUP), memory)

        names = {name for name, module in _linears(model) if _is_dense(module)}
        visit_linears(model, tokens(), names, visit)
        for module, weight in _dense(
            model
        ):  # what the text did not come by: the head, layers for drafts or images
            kind = "Q8_0" if isinstance(module, VocabParallelHead) else self.kind
            _give(module, kind, quantize_rows(weight, kind, _GROUP), memory)
        return model


def _linears(model: nn.Module) -> Iterator[tuple[str, Linear]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, Linear))


def _is_dense(module: Linear) -> bool:
    return isinstance(module.packed, ops.PackedWeight) and module.in_features % BLOCK == 0


def _dense(model: nn.Module) -> Iterator[tuple[Linear, Tensor]]:
    """Maps whose rows can be cut into blocks, and their weights, float32."""
    for _, module in _linears(model):
        if _is_dense(module):
            yield module, _floats(module)


def _floats(module: Linear) -> Tensor:
    assert isinstance(module.packed, ops.PackedWeight)
    return module.packed.dense().to(torch.float32)


def _give(module: Linear, kind: str, data: Tensor, memory: ops.Slab) -> None:
    """A gate and what it gates are two parts of one kind: then one pass computes both."""
    parts = data.chunk(2) if isinstance(module, GatedLinear) else (data,)
    module.take_quantized([ops.Blocks(kind, part, module.in_features) for part in parts], memory)
