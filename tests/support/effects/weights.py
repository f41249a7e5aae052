"""Effects of techniques that round weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.layers import Linear, VocabParallelHead
from inference_pio.layers.watching import watched_linears
from inference_pio.optimizations.hardware.calibration_pass import visit_linears
from inference_pio.optimizations.registry import TECHNIQUES
from inference_pio.plugin.serving import serving_of
from support.effects import Tiny, effect_of
from support.effects.models import loaded, model_of

_TEXT = "the cat sat on the mat and looked at the other cat " * 8


@effect_of("weights_int8")
def weights_int8(tiny: Tiny) -> None:
    _rounded(tiny, "weights_int8", "Q8_0", 1 / 254)


@effect_of("weights_int4")
def weights_int4(tiny: Tiny) -> None:
    _rounded(tiny, "weights_int4", "Q4_1", 1 / 15)


@effect_of("weights_calibrated")
def weights_calibrated(tiny: Tiny) -> None:
    """On the text, products change by less than half of what rounding to nearest changes them by."""
    errors = {}
    for name in ("weights_int4", "weights_calibrated"):
        with loaded(tiny("grouped")) as plugin:
            model = model_of(plugin)
            tokens = torch.tensor(plugin.tokenize(_TEXT)[:250])[None]
            serving_of(model).calibration = lambda tokens=tokens: tokens
            exact, inputs = _weights(model), _inputs(model, tokens)
            TECHNIQUES[name].apply(model, plugin.config)
            found = _weights(model)
            changes = [x_TI @ (found[path] - exact[path]).T for path, x_TI in inputs.items()]
            errors[name] = sum(change.square().sum().item() for change in changes)
    assert 0 < errors["weights_calibrated"] < 0.5 * errors["weights_int4"], errors


def _rounded(tiny: Tiny, name: str, kind: str, step: float) -> None:
    with loaded(tiny("grouped")) as plugin:
        before = _weights(model_of(plugin))
    with loaded(tiny("grouped"), enable=(name,)) as plugin:
        model = model_of(plugin)
        found = {path: module.packed for path, module in model.named_modules() if isinstance(module, Linear)}
        assert all(
            isinstance(weight, ops.QuantizedWeight) and set(weight.kinds) == {kind}
            for weight in found.values()
        )
        for path, weight in found.items():
            blocks = before[path].unflatten(1, (-1, 32))
            reach = (blocks.amax(2) - blocks.amin(2)) if kind == "Q4_1" else 2 * blocks.abs().amax(2)
            moved = (weight.dequantize() - before[path]).unflatten(1, (-1, 32)).abs().amax(2)
            assert (moved <= 0.51 * step * reach + 2e-3 * blocks.abs().amax(2)).all(), path
            assert (moved > 0).any()


def _weights(model: nn.Module) -> dict[str, Tensor]:
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, Linear):
            packed = module.packed
            found[path] = (
                packed.dequantize() if isinstance(packed, ops.QuantizedWeight) else packed.dense().clone()
            )
    return found


def _inputs(model: nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    """What each map of the dense model is given; not the head."""
    seen: dict[str, Tensor] = {}

    def see(name: str, module: Linear, x_TI: Tensor) -> None:  # noqa: ARG001
        seen[name] = x_TI.clone()

    paths = [path for path, module in model.named_modules() if isinstance(module, Linear)]
    with watched_linears(model, see):
        visit_linears(model, tokens, paths, lambda *_: None)
    return {
        path: x for path, x in seen.items() if not isinstance(model.get_submodule(path), VocabParallelHead)
    }
