"""Units of a file that take turns in memory: what is entered is there, whatever came before, or an error says why."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from inference_pio import ops
from inference_pio.ops import native
from support.quant_blocks import random_blocks

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
PAGE = ops.PAGE
# Of more than one chunk of 1 MiB, of a part of one, of a page.
SIZES = [(1 << 20) + PAGE, PAGE, 3 * PAGE, 2 * (1 << 20), 5 * PAGE]


class Layers:
    """Five units in a file behind a header; the third stays, the others share two slots."""

    def __init__(self, path: Path) -> None:
        rng = torch.Generator().manual_seed(7)
        self.path = path
        self.data = [torch.randint(0, 256, (size,), generator=rng, dtype=torch.uint8) for size in SIZES]
        path.write_bytes(bytes(PAGE) + b"".join(one.numpy().tobytes() for one in self.data))
        self.sums = torch.cat([ops.unit_sums(one) for one in self.data])
        self.offsets = [PAGE + sum(SIZES[:number]) for number in range(5)]
        wide = max(SIZES)
        places = [(0, 0), (wide, 1), (2 * wide, 2), (0, 0), (wide, 1)]
        self.units = [
            ops.PageUnit(at, size, *place)
            for at, size, place in zip(self.offsets, SIZES, places, strict=True)
        ]

    def open(self) -> ops.Pager:
        return ops.Pager(self.path, self.units, self.sums)

    def check(self, pager: ops.Pager, number: int) -> None:
        pager.enter(number)
        place = pager.memory.narrow(0, self.units[number].place, SIZES[number])
        assert torch.equal(place, self.data[number])


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    return Layers(tmp_path / "x.pages")


@pytest.mark.parametrize("leaves", [True, False])
def test_in_turn_every_unit_is_there(layers: Layers, leaves: bool) -> None:
    pager = layers.open()
    layers.check(pager, 2)
    for _ in range(20):
        for number in (0, 1, 3, 4):
            layers.check(pager, number)
            if leaves:
                pager.leave(number)
    layers.check(pager, 2)
    assert pager.streamed_bytes == sum(SIZES) - SIZES[2]
    counts = pager.counts()
    # Nothing is read twice for one turn: at most the window more than was used.
    used = 20 * pager.streamed_bytes + SIZES[2]
    assert used <= counts.read_bytes <= used + sum(SIZES)
    assert counts.waited_seconds > 0


def test_out_of_turn_it_is_there_too(layers: Layers) -> None:
    pager, order = layers.open(), random.Random(3)
    for _ in range(300):
        number = order.randrange(5)
        layers.check(pager, number)
        if order.random() < 0.5:
            pager.leave(number)


def test_reading_goes_on_meanwhile(layers: Layers) -> None:
    """What comes next is read without anybody asking for it."""
    pager = layers.open()
    pager.enter(0)
    pager.leave(0)
    for _ in range(1000):
        if pager.counts().read_bytes >= SIZES[0] + SIZES[1] + SIZES[3]:
            break
        threading.Event().wait(0.005)
    assert pager.counts().read_bytes == SIZES[0] + SIZES[1] + SIZES[3]


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("where", ["first", "last"])
def test_one_wrong_bit_is_found(layers: Layers, number: int, where: str) -> None:
    at = layers.offsets[number] + (0 if where == "first" else SIZES[number] - 1)
    with layers.path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x80]))
    pager = layers.open()
    for other in range(5):
        if other != number:
            layers.check(pager, other)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"x\.pages is damaged at byte \d+: delete it"):
            pager.enter(number)
    with layers.path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([byte]))
    layers.check(pager, number)


def test_a_file_that_was_cut_off_is_an_error(layers: Layers) -> None:
    pager = layers.open()
    layers.check(pager, 0)
    with layers.path.open("r+b") as file:
        file.truncate(layers.offsets[4] + PAGE)
    with pytest.raises(RuntimeError, match=r"x\.pages ends within a layer"):
        pager.enter(4)
    layers.check(pager, 1)


def test_a_file_that_is_not_there(layers: Layers) -> None:
    layers.path.unlink()
    with pytest.raises(FileNotFoundError):
        layers.open()


@pytest.mark.parametrize("bit", [0, 7, 8, 31, 32, 63])
def test_two_changes_do_not_cancel(bit: int) -> None:
    """The same bit of words that follow one another in one of the eight sums."""
    data = torch.zeros(PAGE, dtype=torch.uint8)
    clean = ops.unit_sums(data).item()
    found = {clean}
    for step in range(1, 40):
        changed = data.clone()
        changed[bit // 8] ^= 1 << bit % 8
        changed[64 * step + bit // 8] ^= 1 << bit % 8
        found.add(ops.unit_sums(changed).item())
    assert len(found) == 40


class Model:
    """Four products, one behind the other, of weights that are on the disk."""

    def __init__(self, path: Path) -> None:
        blocks = [random_blocks("Q8_0", 64, 64, seed) for seed in range(4)]
        self.whole = [ops.pack_quantized([one]) for one in blocks]
        size = -(-self.whole[0].nbytes // PAGE) * PAGE
        padded = [torch.nn.functional.pad(one.data, (0, size - one.nbytes)) for one in self.whole]
        path.write_bytes(b"".join(one.numpy().tobytes() for one in padded))
        units = [ops.PageUnit(number * size, size, number % 2 * size, number % 2) for number in range(4)]
        self.path, self.size = path, size
        self.pager = ops.Pager(path, units, torch.cat([ops.unit_sums(one) for one in padded]))
        self.paged = [
            ops.PagedQuantizedWeight(
                ops.Page(self.pager, number, self.pager.memory.narrow(0, units[number].place, one.nbytes)),
                one.parts,
                64,
            )
            for number, one in enumerate(self.whole)
        ]

    def step(self, x: Tensor, weights: list[ops.QuantizedWeight]) -> Tensor:
        for weight in weights:
            x = ops.linear(x, weight)
        return x


def test_a_recorded_step_waits_for_its_weights(tmp_path: Path) -> None:
    model, x = Model(tmp_path / "x.pages"), torch.randn(3, 64)
    step = ops.RecordedStep(lambda: model.step(x, list(model.paged)))
    for seed in range(10):
        x.copy_(torch.randn(3, 64, generator=torch.Generator().manual_seed(seed)))
        assert torch.equal(step.replay(), model.step(x.clone(), model.whole))
    for weight, one in zip(model.paged, model.whole, strict=True):
        assert torch.equal(weight.dequantize(), one.dequantize())
        assert (weight.nbytes, weight.kinds) == (one.nbytes, one.kinds)


def test_a_recorded_step_ends_where_a_weight_is_damaged(tmp_path: Path) -> None:
    model, x = Model(tmp_path / "x.pages"), torch.randn(3, 64)
    step = ops.RecordedStep(lambda: model.step(x, list(model.paged)))
    right = step.replay().clone()
    with model.path.open("r+b") as file:
        file.seek(2 * model.size + 5)
        byte = file.read(1)[0]
        file.seek(2 * model.size + 5)
        file.write(bytes([byte ^ 1]))

    def until_read() -> None:
        for _ in range(3):  # what was read before the damage is right
            step.result.fill_(7.0)
            step.replay()

    with pytest.raises(RuntimeError, match="is damaged at byte"):
        until_read()
    assert torch.all(step.result == 7.0), "nothing was computed from it"
    with model.path.open("r+b") as file:
        file.seek(2 * model.size + 5)
        file.write(bytes([byte]))
    assert torch.equal(step.replay(), right)
