"""A calibration text through a loaded model: what each of its linear maps is given, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from inference_pio.cache.specs import state_specs
from inference_pio.errors import NonFiniteLogits
from inference_pio.layers import GatedMLP, Linear, VocabParallelHead
from inference_pio.layers.watching import watched_linears
from inference_pio.ops.gptq import Compensation, add_moments
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.serving import serving_of


class _Done(Exception):
    """Nothing is left to be seen: what the model would compute from here on is of no use."""


@torch.inference_mode()
def visit_linears(
    model: nn.Module,
    windows: Tensor,
    names: Collection[str],
    visit: Callable[[str, Linear, Compensation], None],
) -> None:
    """Run `windows`, token ids [windows, tokens], as sequences of their own in one step, and call `visit` with each of
    the named modules and what its input says about rounding its weight, when the model first comes to it and before it
    computes.

    Whatever `visit` does to a module's weight, everything after it sees: in one pass each weight meets the inputs that
    the weights rounded before it leave. So that no layer leaves tokens out, all of them ask for logits; the head is
    never reached, the model stops in front of it.

    Raises:
        NonFiniteLogits: an input is not finite.
    """
    left = set(names)

    def see(name: str, module: Linear, x_TI: Tensor) -> None:
        if isinstance(module, VocabParallelHead):
            raise _Done
        if name in left:
            left.remove(name)
            visit(name, module, _compensation(name, x_TI))
        if not left:
            raise _Done

    if not left:
        return
    count, length = windows.shape
    specs, block = serving_of(model).cache_specs, serving_of(model).block_size
    caches = [spec.allocate(count * -(-length // block), block, count, windows.device) for spec in specs]
    with _whole_steps(model), watched_linears(model, see):
        try:
            model(_step(windows, block, keeps_state=bool(state_specs(specs))), caches)
        except _Done:
            return


@contextmanager
def _whole_steps(model: nn.Module) -> Iterator[None]:
    """Feed-forward blocks that take a step in pieces (bounded_mlp) take it whole: the first piece is not all inputs."""
    blocks = [module for module in model.modules() if isinstance(module, GatedMLP)]
    kept = [block.rows for block in blocks]
    for block in blocks:
        block.rows = None
    try:
        yield
    finally:
        for block, rows in zip(blocks, kept, strict=True):
            block.rows = rows


def _compensation(name: str, x_TI: Tensor) -> Compensation:
    moments = torch.zeros(x_TI.shape[1], x_TI.shape[1])
    add_moments(moments, x_TI)
    if not bool(moments.diagonal().isfinite().all()):
        raise NonFiniteLogits(f"on the calibration text the input of {name} is not finite")
    return Compensation.of(moments.div_(len(x_TI)))


def _step(windows: Tensor, block: int, *, keeps_state: bool) -> ForwardBatch:
    count, length = windows.shape
    device = windows.device
    blocks = -(-length // block)
    numbers = torch.arange(count, device=device)
    positions = torch.arange(length, device=device)
    return ForwardBatch(
        token_ids=windows.flatten(),
        positions=positions.repeat(count),
        query_start=torch.arange(count + 1, dtype=torch.int32, device=device) * length,
        seq_lens=torch.full((count,), length, dtype=torch.int32, device=device),
        block_tables=torch.arange(count * blocks, dtype=torch.int32, device=device).view(count, blocks),
        slot_mapping=(numbers[:, None] * blocks * block + positions).flatten(),
        state_slots=numbers if keeps_state else None,
        last_token=torch.arange(count * length, device=device),
        max_query_len=length,
        max_seq_len=length,
    )
