"""What gemma3_text is measured on: a prompt three times as long as the default model's window is among it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from inference_pio.benchmarks.usual import usual_techniques
from inference_pio.benchmarks.workload import Suite, Technique, Workload
from inference_pio.models.gemma3_text import MANIFEST
from inference_pio.models.gemma3_text.attention.multi_query_attention import Attention


@contextmanager
def _without_windows(model: nn.Module) -> Iterator[None]:
    """Every layer attends to everything: other answers, and what they would cost."""
    layers = [module for module in model.modules() if isinstance(module, Attention)]
    windowed = [layer.attend for layer in layers]
    for layer in layers:
        layer.attend = replace(layer.attend, window=None)
    try:
        yield
    finally:
        for layer, attend in zip(layers, windowed, strict=True):
            layer.attend = attend


PREFILL = Workload(prompt_len=256, output_len=1)
DECODE = Workload(prompt_len=64, output_len=16, concurrency=4)

SUITE = Suite(
    plugin=MANIFEST.name,
    model="gemma-3-270m",
    batch=Workload(prompt_len=256, output_len=64, concurrency=8),
    prefill=Workload(prompt_len=512, output_len=1),
    decode=Workload(prompt_len=16, output_len=64),
    techniques=usual_techniques(
        PREFILL,
        DECODE,
        Technique("sliding windows", Workload(prompt_len=1536, output_len=1), without=_without_windows),
    ),
)
