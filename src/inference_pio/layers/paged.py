"""Which layers of a loaded model are on the disk."""

from __future__ import annotations

from torch import nn

from inference_pio import ops
from inference_pio.layers.protocol import TakesQuantized


def pagers_of(model: nn.Module) -> list[ops.Pager]:
    """What reads the layers that are not all in memory at once; empty where all are."""
    packed = [module.packed for module in model.modules() if isinstance(module, TakesQuantized)]
    kinds = (ops.PagedQuantizedWeight, ops.PagedWeight)
    return list(dict.fromkeys(weight.page.pager for weight in packed if isinstance(weight, kinds)))
