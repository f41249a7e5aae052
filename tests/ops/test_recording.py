"""A recorded step computes, from whatever its inputs hold then, exactly what the operations compute one by one."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from inference_pio import ops
from support.quant_blocks import random_blocks

pytestmark = pytest.mark.usefixtures("isa")
T, D, INNER, V, HEADS, KV_HEADS, H = 5, 128, 192, 50, 4, 2, 32


@dataclass
class Inputs:
    ids: Tensor
    positions: Tensor
    slots: Tensor
    tables: Tensor
    starts: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, seed: int) -> Inputs:
        """A step of `T` sequences, one token each, somewhere within their first 40 tokens."""
        rng = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, 40, (T,), generator=rng, dtype=torch.int32)
        tables = torch.randperm(3 * T, generator=rng).view(T, 3).int()
        positions = lengths.long() - 1
        blocks = tables.gather(1, positions[:, None] // 16).squeeze(1).long()
        ids = torch.randint(0, V, (T,), generator=rng)
        starts = torch.arange(T + 1, dtype=torch.int32)
        return cls(ids, positions, blocks * 16 + positions % 16, tables, starts, lengths)

    def take(self, other: Inputs) -> None:
        for name, tensor in vars(self).items():
            tensor.copy_(getattr(other, name))


class Layer:
    """Two decoder layers of packed weights, every native operation in them."""

    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        def pack(rows: int, columns: int, *kinds: str) -> ops.QuantizedWeight:
            pieces = [random_blocks(kind, rows, columns, seed) for seed, kind in enumerate(kinds)]
            return ops.pack_quantized(pieces)

        self.embed = pack(V, D, "Q8_0")
        self.qkv = pack((HEADS + 2 * KV_HEADS) * H, D, "Q4_1")
        self.out, self.down = pack(D, HEADS * H, "Q5_0"), pack(D, INNER, "Q4_0")
        self.gate_up = pack(INNER, D, "IQ4_NL", "IQ4_NL")
        self.norm = torch.rand(D)
        self.table = torch.cat((torch.rand(64, H // 2), torch.rand(64, H // 2)), dim=1)
        shape = (2, 3 * T, KV_HEADS, 16, H)
        whole = dtype in ops.WHOLE_NUMBERS
        shape = (*shape[:-1], ops.kept_width(H, dtype))
        bits = torch.int8 if whole else dtype
        self.k, self.v = (torch.randn(shape).mul(30 if whole else 1).to(bits).view(dtype) for _ in range(2))
        self.scales = (torch.rand(*shape[:3], 2, 16) / 30).to(ops.SCALE_DTYPE) if whole else None
        self.caches = [cache for cache in (self.k, self.v, self.scales) if cache is not None]

    def step(self, at: Inputs) -> Tensor:
        residual = ops.quantized_embedding(at.ids, self.embed, 1.5)
        x = ops.rms_norm(residual, self.norm, 1e-5)
        for layer in range(2):
            qkv = ops.linear(x, self.qkv)
            caches, scales = (
                (self.k[layer], self.v[layer]),
                None if self.scales is None else self.scales[layer],
            )
            q = ops.rope_and_cache(qkv, at.positions, self.table, *caches, at.slots, HEADS, KV_HEADS, scales)
            where = (at.tables, at.starts, at.lengths)
            window, activation = ((None, "silu"), (9, "gelu_tanh"))[layer]
            y = ops.paged_attention(q, *caches, *where, H**-0.5, 1, 40, scales, window)
            x, residual = ops.add_rms_norm(ops.linear(y.flatten(1), self.out), residual, self.norm, 1e-5)
            y = ops.linear(ops.gated_linear(x, self.gate_up, activation=activation), self.down)
            x, residual = ops.add_rms_norm(y, residual, self.norm, 1e-5)
        return ops.linear(x, self.embed)


class Recorded(ops.RecordedStep):
    """Keeps what a recording needs: the model and its inputs."""

    def __init__(self, layer: Layer, seed: int) -> None:
        self.layer, self.at = layer, Inputs.of(seed)
        super().__init__(lambda: layer.step(self.at))


@pytest.mark.parametrize("cache_dtype", [torch.bfloat16, torch.float32, *ops.WHOLE_NUMBERS])
def test_replays_equal_the_operations_bit_for_bit(cache_dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = Layer(cache_dtype)
    want = layer.step(Inputs.of(0)).clone()
    step = Recorded(layer, 0)
    assert torch.equal(step.result, want), "recording computes too"
    for seed in (1, 2, 0, 3):
        other = Inputs.of(seed)
        before = [cache.clone() for cache in layer.caches]
        want = layer.step(other).clone()
        written = [cache.clone() for cache in layer.caches]
        for cache, was in zip(layer.caches, before, strict=True):
            cache.copy_(was)
        step.at.take(other)
        got = step.replay()
        assert got.data_ptr() == step.result.data_ptr()
        assert torch.equal(got, want)
        assert all(map(torch.equal, layer.caches, written))
    assert torch.equal(step.replay(), got), "nothing is left over from the replay before"


def test_two_recordings_do_not_share_memory() -> None:
    torch.manual_seed(0)
    layer = Layer()
    first, second = Recorded(layer, 1), Recorded(Layer(), 2)
    first.at.take(Inputs.of(3))
    second.at.take(Inputs.of(4))
    one, two = first.replay().clone(), second.replay().clone()
    assert torch.equal(one, layer.step(Inputs.of(3)))
    assert torch.equal(two, second.layer.step(Inputs.of(4)))
    assert torch.equal(first.result, one), "the second replay left the first result alone"


def test_recordings_replay_in_several_threads_at_once() -> None:
    torch.manual_seed(0)
    steps = [Recorded(Layer(), seed) for seed in range(3)]
    wanted = [step.replay().clone() for step in steps]
    wrong: list[int] = []

    def repeat(number: int) -> None:
        for _ in range(30):
            if not torch.equal(steps[number].replay(), wanted[number]):
                wrong.append(number)

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_any_number_of_threads_replays_the_same() -> None:
    torch.manual_seed(0)
    step = Recorded(Layer(), 1)
    want, before = step.replay().clone(), torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(step.replay(), want)
    finally:
        torch.set_num_threads(before)


def test_what_lies_between_needs_no_tensor_to_live() -> None:
    """Memory that the recording freed is written over; the replay has its own."""
    torch.manual_seed(0)
    step = Recorded(Layer(), 1)
    want = step.result.clone()
    gc.collect()
    _rubbish = [
        torch.full((T, width), float("nan")) for width in (D, INNER, 2 * INNER, 256) for _ in range(50)
    ]
    assert torch.equal(step.replay(), want)


@pytest.mark.parametrize(
    ("foreign", "name"),
    [
        (lambda x: x + 1, "add"),
        (lambda x: x.bfloat16(), "bfloat16"),
        (lambda x: x[:, ::2].contiguous(), "contiguous"),
        (lambda x: torch.softmax(x, dim=1), "softmax"),
        (lambda x: x.mul_(2.0), "mul_"),
    ],
)
def test_another_operation_is_named(foreign: Callable[[Tensor], Tensor], name: str) -> None:
    layer, at = Layer(), Inputs.of(0)

    def step() -> Tensor:
        x = foreign(layer.step(at))
        return ops.rms_norm(x, torch.ones(x.shape[1], dtype=x.dtype), 1e-5)

    with pytest.raises(ops.CannotRecord, match=f"the step calls {name}"):
        ops.RecordedStep(step)
    Recorded(layer, 0).replay()  # the failure leaves no recording open


@pytest.mark.parametrize("view", [lambda x: x, lambda x: x.view(-1), lambda x: x[1:]])
def test_a_result_that_no_operation_made_is_refused(view: Callable[[Tensor], Tensor]) -> None:
    given = torch.randn(3, V)
    with pytest.raises(ops.CannotRecord, match="no native operation made"):
        ops.RecordedStep(lambda: view(given))


def test_an_error_within_the_step_comes_through() -> None:
    layer, wrong = Layer(), Inputs.of(0)
    wrong.ids[2] = V
    with pytest.raises(RuntimeError, match=rf"token_ids\[2\] is {V}"):
        ops.RecordedStep(lambda: layer.step(wrong))
    step = Recorded(layer, 0)
    step.at.ids[1] = -1
    with pytest.raises(RuntimeError, match=r"token_ids\[1\] is -1"):
        step.replay()
    step.at.take(Inputs.of(0))
    assert torch.equal(step.replay(), layer.step(Inputs.of(0)))


def test_a_step_within_a_step_is_refused() -> None:
    layer, at = Layer(), Inputs.of(0)

    def nested() -> Tensor:
        ops.RecordedStep(lambda: layer.step(at))
        return layer.step(at)

    with pytest.raises(RuntimeError, match="this thread records a step already"):
        ops.RecordedStep(nested)
    Recorded(layer, 0).replay()


def test_nothing_is_recorded_where_operations_run_in_torch() -> None:
    layer, at = Layer(), Inputs.of(0)
    with ops.use("reference"), pytest.raises(ops.CannotRecord, match="operations run in torch"):
        ops.RecordedStep(lambda: layer.step(at))
