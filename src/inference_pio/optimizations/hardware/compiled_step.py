"""The model's step compiled by torch (TorchDynamo and Inductor, Ansel et al. 2024)."""

from __future__ import annotations

from typing import Any

from torch import nn

from inference_pio.errors import ConfigError
from inference_pio.optimizations.technique import Situation, Standing, Technique, active, dormant

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


class CompiledStep(Technique):
    """Python between two operations, and their launches, cost nothing any more; on a CPU a recorded step does that."""

    name = "compiled_step"
    title = "compiled step"
    family = "compiled step"
    category = "hardware"
    exact = True
    shows_on = "decode"
    stage = "weights"

    def standing(self, at: Situation) -> Standing:
        mode = at.config.torch_compile_mode
        if mode not in MODES:
            raise ConfigError(f"torch_compile_mode must be one of {', '.join(MODES)}, got {mode!r}")
        if at.device.type == "cpu":
            return dormant(
                "on a CPU steps are recorded once and replayed by the native kernels (engine/replay.py)"
            )
        return active(f"torch.compile, mode {mode}")

    def apply(self, model: nn.Module, config: Any) -> nn.Module:
        """In place: whoever holds the model goes on with the compiled one."""
        model.compile(
            mode=config.torch_compile_mode,
            fullgraph=config.torch_compile_fullgraph,
            dynamic=config.torch_compile_dynamic,
        )
        return model

    def get_report(self, model: nn.Module) -> dict[str, Any]:
        return {**self.facts(), "compiled": getattr(model, "_compiled_call_impl", None) is not None}
