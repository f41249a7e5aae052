"""Operations in kernels of the device in place of torch: C++ on a CPU, and what a GPU has."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from inference_pio import ops
from inference_pio.optimizations.technique import (
    Situation,
    Standing,
    Technique,
    active,
    dormant,
    not_applicable,
)
from inference_pio.plugin.serving import serving_of


class DeviceKernels(Technique):
    """One switch for all, and one for each group of operations (`ops.GROUPS`), named as the standard names them.

    The switches say CUDA, since that is where other engines have such kernels; here they hold for every device. What
    runs where, operation by operation, is `ops.table()`.
    """

    name = "device_kernels"
    title = "kernels per operation"
    family = "CUDA kernels"
    category = "hardware"
    exact = True
    flags = ("use_cuda_kernels",)
    shows_on = "decode"

    def standing(self, at: Situation) -> Standing:
        if at.device.type != "cpu":
            return dormant(f"no operation has a kernel for {at.device.type} yet; all of them run in torch")
        missing = next((choice.reason for choice in ops.table() if choice.implementation == "reference"), "")
        if not ops.is_native():
            return dormant(missing)
        groups = _groups(at.config)
        if not groups:
            return dormant("every cuda_kernel_…_enabled is off")
        return active(f"native kernels for {', '.join(groups)}")

    def apply(self, model: nn.Module, config: Any) -> nn.Module:
        serving_of(model).native_groups = frozenset(_groups(config))
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        groups = sorted(serving_of(model).native_groups)
        return {
            **self.facts(),
            "operations": sum(len(ops.GROUPS[group]) for group in groups),
            "groups": groups,
        }


def _groups(config: Any) -> list[ops.Group]:
    switches: dict[ops.Group, bool] = {
        "attention": config.cuda_kernel_attention_enabled,
        "gelu": config.cuda_kernel_gelu_enabled,
        "layernorm": config.cuda_kernel_layernorm_enabled,
        "matmul": config.cuda_kernel_matmul_enabled,
        "mlp": config.cuda_kernel_mlp_enabled,
        "softmax": config.cuda_kernel_softmax_enabled,
    }
    return [group for group, on in switches.items() if on]


class CudnnBenchmark(Technique):
    """Convolutions are tried once per shape, and the fastest one is kept. Of all models here vision towers convolve."""

    name = "cudnn_benchmark"
    title = "cuDNN benchmark"
    family = "CUDA kernels"
    category = "hardware"
    exact = True
    flags = ("enable_cudnn_benchmark",)
    shows_on = "prefill"

    def standing(self, at: Situation) -> Standing:
        if at.device.type != "cuda":
            return not_applicable(f"cuDNN is NVIDIA's; the model runs on {at.device}")
        if not any(isinstance(module, _CONVOLUTIONS) for module in at.model.modules()):
            return not_applicable("the model convolves nothing")
        return active("convolutions are tried once per shape, for the whole process")

    def apply(self, model: nn.Module, config: Any) -> nn.Module:  # noqa: ARG002
        torch.backends.cudnn.benchmark = True
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:  # noqa: ARG002
        return {**self.facts(), "benchmark": torch.backends.cudnn.benchmark}


_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
