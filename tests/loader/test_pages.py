"""Which layers go to the disk, and the file that holds them: whole or not there."""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

import filelock
import pytest
import torch
from torch import nn

from inference_pio import ops
from inference_pio.errors import ModelFileError, ResourceError
from inference_pio.layers import Linear
from inference_pio.loader.packing import NOTHING_PACKED
from inference_pio.loader.page_file import PageFile, page_key
from inference_pio.loader.page_plan import PagedLayer, PagePlan, pageable_layers, plan_pages
from inference_pio.loader.store import ModelStore
from inference_pio.loader.weight_plan import Target, WeightPlan
from inference_pio.ops import native

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
F32 = torch.float32


class Body(nn.Module):
    """Five layers of two weights; a stack of one layer and a head beside them, which stay."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleDict({"one": Linear(48, 64, bias=True), "two": Linear(64, 48), "norm": nn.LayerNorm(48)})
            for _ in range(5)
        )
        self.blocks = nn.ModuleList([Linear(8, 8)])
        self.head = Linear(48, 10)
        for parameter in self.parameters():
            parameter.requires_grad_(False)


def weights_of(model: nn.Module) -> WeightPlan:
    targets = {
        name: Target(name, tuple(value.shape), stacked=False, pieces=())
        for name, value in model.named_parameters()
    }
    return WeightPlan(targets)


LAYER = PagedLayer({"x": (0, 4096)}, 4096)


def test_layers_are_the_linear_maps_of_the_largest_stack() -> None:
    model = Body()
    layers = pageable_layers(model, weights_of(model), NOTHING_PACKED, F32)
    size = 48 * 64 * 4
    assert [list(layer.weights) for layer in layers] == [
        [f"layers.{number}.one.weight", f"layers.{number}.two.weight"] for number in range(5)
    ]
    assert {tuple(layer.weights.values()) for layer in layers} == {((0, size), (size, size))}
    assert {layer.nbytes for layer in layers} == {2 * size}
    tied = weights_of(model)
    tied.tied["layers.0.one.weight"] = "layers.1.one.weight"
    assert list(pageable_layers(model, tied, NOTHING_PACKED, F32)[0].weights) == ["layers.0.two.weight"]
    model.layers = model.layers[:2]
    assert pageable_layers(model, weights_of(model), NOTHING_PACKED, F32) == ()


@pytest.mark.parametrize(
    ("room", "streamed"),
    [(10, 0), (9, 4), (8, 4), (7, 6), (6, 6), (5, 8), (4, 8), (3, 10), (2, 10), (0, 10)],
)
def test_as_few_layers_are_on_the_disk_as_can_be(room: int, streamed: int) -> None:
    plan = plan_pages([LAYER] * 10, room * 4096)
    assert len(plan.streamed) == len(set(plan.streamed)) == streamed
    assert plan.memory_bytes == 4096 * (10 if not streamed else 10 - streamed + 2)
    assert plan.disk_bytes == 4096 * streamed


def test_those_on_the_disk_lie_evenly_and_take_turns() -> None:
    plan = plan_pages([LAYER] * 9, 7 * 4096)
    assert plan.streamed == (1, 3, 5, 7)
    places = plan.places()
    assert [places[number] for number in plan.streamed] == [(0, 0), (4096, 1)] * 2
    others = [place for number, place in enumerate(places) if number not in plan.streamed]
    assert others == [(4096 * (2 + turn), 2 + turn) for turn in range(5)]


def values_of(name: str) -> torch.Tensor:
    rng = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randn(48 * 64, generator=rng)


class Made:
    """The file of a `Body`, filled with its numbers."""

    def __init__(self, path: Path) -> None:
        self.path, self.model = path, Body()
        self.weights = weights_of(self.model)
        layers = pageable_layers(self.model, self.weights, NOTHING_PACKED, F32)
        self.plan = plan_pages(layers, sum(layer.nbytes for layer in layers) - 1)
        self.needed: list[int] = []

    def open(self, key: str = "one\n") -> PageFile:
        return PageFile(self.path, key, self.plan, self.needed.append)

    def fill(self, file: PageFile) -> None:
        for name in sorted(file.names, reverse=True):
            file.put_dense(name, values_of(name))

    def build(self) -> None:
        with self.open() as file:
            assert not file.complete
            self.fill(file)
            file.finish(self.model, self.weights, NOTHING_PACKED, F32)

    def check(self) -> None:
        for _ in range(2):
            for name in self.plan.names:
                packed = self.model.get_submodule(name.removesuffix(".weight")).packed
                assert torch.equal(packed.tensor.flatten(), values_of(name)), name


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "x.pages")


def files(made: Made) -> list[str]:
    return sorted(entry.name for entry in made.path.parent.iterdir() if not entry.name.endswith(".lock"))


def test_what_was_written_is_used_the_next_time(made: Made) -> None:
    made.build()
    made.check()
    kinds = {type(made.model.get_submodule(name[:-7]).packed) for name in made.plan.names}
    assert kinds == {ops.PagedWeight, ops.PackedWeight}
    again = Made(made.path)
    with again.open() as file:
        assert file.complete
        file.finish(again.model, again.weights, NOTHING_PACKED, F32)
    again.check()
    assert again.needed == []
    x = torch.randn(3, 48)
    for number in range(5):
        layer = again.model.layers[number]
        name = f"layers.{number}.two.weight"
        expected = torch.nn.functional.linear(torch.ones(2, 64), values_of(name).view(48, 64))
        assert torch.equal(layer["two"](torch.ones(2, 64)), expected)
        assert layer["one"](x).shape == (3, 64)


def test_another_budget_needs_no_other_file(made: Made) -> None:
    made.build()
    made.plan = PagePlan(made.plan.layers, tuple(range(5)))
    with made.open() as file:
        assert file.complete
        file.finish(made.model, made.weights, NOTHING_PACKED, F32)
    made.check()


def test_another_key_needs_another_file(made: Made) -> None:
    made.build()
    with made.open("two\n") as file:
        assert not file.complete
    assert files(made) == []


def test_the_key_names_the_checkpoint_and_the_layout(made: Made, tmp_path: Path) -> None:
    source = tmp_path / "x.gguf"
    source.write_bytes(b"one")

    def key(plan: PagePlan = made.plan, dtype: torch.dtype = F32) -> str:
        return page_key(plan, made.weights, NOTHING_PACKED, dtype, source)

    first = key()
    assert first == key(PagePlan(made.plan.layers, ()))
    assert first != key(dtype=torch.float16)
    assert first != key(PagePlan(made.plan.layers[:4], ()))
    source.write_bytes(b"three")
    assert first != key()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_what_was_interrupted_is_gone(made: Made, stop: type[BaseException]) -> None:
    def build() -> None:
        with made.open() as file:
            file.put_dense("layers.0.one.weight", values_of("layers.0.one.weight"))
            assert files(made) == ["x.part"]
            raise stop

    with pytest.raises(stop):
        build()
    assert files(made) == []
    made.build()
    made.check()


def test_what_a_killed_process_left_is_not_used(made: Made) -> None:
    made.path.with_suffix(".part").write_bytes(bytes(100))
    made.build()
    made.check()
    assert files(made) == ["x.pages"]


def test_two_processes_do_not_build_it_at_once(made: Made) -> None:
    with filelock.FileLock(f"{made.path}.lock"), pytest.raises(ResourceError, match="by another process"):
        made.open()
    made.build()
    with filelock.FileLock(f"{made.path}.lock"), made.open() as file:
        assert file.complete, "reading needs no lock"


def test_a_full_disk_is_said_before_anything_is_written(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        ResourceError, match=r"GB that paged weights take: No space left on device; free some"
    ):
        made.open()
    store = ModelStore(made.path.parent / "home", limit_bytes=1000)
    with pytest.raises(ResourceError, match=r"layers does not fit the disk limit: .* > 0\.0 MB allowed"):
        PageFile(made.path, "one\n", made.plan, lambda needed: store.require_room("layers", needed))
    assert files(made) == []


@pytest.mark.parametrize("number", range(5))
def test_a_damaged_layer_is_found(made: Made, number: int) -> None:
    made.build()
    with made.path.open("r+b") as file:
        file.seek(4096 + sum(layer.nbytes for layer in made.plan.layers[:number]) + 1000)
        file.write(b"\xff\x00")
    again = Made(made.path)

    def use() -> None:
        with again.open() as file:
            file.finish(again.model, again.weights, NOTHING_PACKED, F32)
        again.check()

    with pytest.raises(
        (ModelFileError, RuntimeError), match=r"x\.pages:? is damaged at byte \d+: delete it"
    ) as found:
        use()
    held = number not in made.plan.streamed
    assert isinstance(found.value, ModelFileError) == held
    if held:
        assert str(found.value).count("x.pages") == 1
        assert ".cpp" not in str(found.value)


def test_a_file_that_was_cut_off_is_written_again(made: Made) -> None:
    made.build()
    os.truncate(made.path, made.path.stat().st_size - 1)
    made.build()
    made.check()


def test_removing_a_model_removes_its_layers(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    folder = store.folder("tiny")
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(bytes(10))
    pages = store.pages_of(folder / "tiny.gguf")
    pages.parent.mkdir()
    pages.write_bytes(bytes(100))
    assert store.disk_usage_bytes() == 110
    assert store.remove("tiny") == 110
    assert not pages.exists()
