"""What llama is measured on. The default model is small, so that every benchmark ends within minutes on a laptop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.benchmarks.workload import Suite, Technique, Workload
from inference_pio.models.llama import MANIFEST
from inference_pio.ops import native


@contextmanager
def every_row(model: nn.Module) -> Iterator[None]:
    """Compute the last block, the final norm and the head for every token, and pick the rows asked for at the end:
    what `specific_optimizations/needed_rows.py` saves."""
    wanted: list[Tensor] = []

    def ask_for_all(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG001
        batch, caches = args
        wanted.append(batch.last_token)
        rows = torch.arange(batch.token_ids.shape[0], device=batch.token_ids.device)
        return replace(batch, last_token=rows), caches

    def pick(module: nn.Module, args: tuple[Any, ...], logits: Tensor) -> Tensor:  # noqa: ARG001
        return logits.index_select(0, wanted.pop())

    hooks = (model.register_forward_pre_hook(ask_for_all), model.register_forward_hook(pick))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _in_torch(model: nn.Module) -> AbstractContextManager[None]:  # noqa: ARG001
    return ops.use("reference")


PREFILL = Workload(prompt_len=512, output_len=1)
DECODE = Workload(prompt_len=64, output_len=16, concurrency=8)

SUITE = Suite(
    plugin=MANIFEST.name,
    model="smollm2-135m-instruct",
    batch=Workload(prompt_len=256, output_len=128, concurrency=32),
    prefill=Workload(prompt_len=1024, output_len=1),
    decode=Workload(prompt_len=16, output_len=64),
    techniques=(
        Technique("fused layer norm", DECODE, flag="use_fused_layer_norm"),
        Technique("FlashAttention 2", PREFILL, flag="use_flash_attention_2"),
        Technique("paged attention", DECODE, flag="use_paged_attention"),
        Technique(
            "prefix caching", Workload(512, 4, concurrency=4, shared_len=480), flag="use_prefix_caching"
        ),
        Technique("needed rows", PREFILL, without=every_row),
        Technique("native operations, prefill", PREFILL, without=_in_torch, unavailable=native.MISSING or ""),
        Technique("native operations, decode", DECODE, without=_in_torch, unavailable=native.MISSING or ""),
    ),
)
