"""Filling models: every operation of the weight map, shards, strictness both ways, order of finishing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import quants
from safetensors.torch import save_file
from torch import Tensor, nn

from inference_pio.errors import CheckpointMismatch, ConfigError, ModelFileError, PluginError
from inference_pio.loader.checkpoint import Checkpoint, open_checkpoint
from inference_pio.loader.weights import audit, load_weights
from inference_pio.parallel import Shard
from inference_pio.plugin.facts import GGUFNames, ShardPlan, ShardRule, WeightMap

CPU = torch.device("cpu")
NO_PLAN = ShardPlan({}, (1,))


class Holder(nn.Module):
    """Modules nested as parameters' names say, on the meta device."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], make: Callable[[], nn.Module] = nn.Module) -> None:
        super().__init__()
        for name, shape in shapes.items():
            *path, leaf = name.split(".")
            module: nn.Module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, make())
                module = module.get_submodule(part)
            module.register_parameter(
                leaf, nn.Parameter(torch.empty(shape, device="meta"), requires_grad=False)
            )


class Open:
    """A checkpoint of the given tensors, which counts how often each is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reads: list[str] = []
        self.opened: list[Checkpoint] = []

    def __call__(self, tensors: dict[str, Tensor]) -> Checkpoint:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, self.folder / "model.safetensors"
        )
        checkpoint = open_checkpoint(self.folder)
        self.opened.append(checkpoint)
        original = checkpoint.read

        def counted(
            name: str, dtype: torch.dtype | None = None, part: tuple[int, int] | None = None
        ) -> Tensor:
            self.reads.append(name)
            return original(name, dtype, part)

        checkpoint.read = counted  # type: ignore[method-assign]
        return checkpoint


@pytest.fixture
def open_with(tmp_path: Path) -> Iterator[Open]:
    opening = Open(tmp_path)
    yield opening
    for checkpoint in opening.opened:
        checkpoint.close()


def load(
    model: nn.Module,
    checkpoint: Checkpoint,
    weight_map: WeightMap,
    *,
    plan: ShardPlan = NO_PLAN,
    shard: Shard | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    load_weights(
        model, checkpoint, weight_map, shard_plan=plan, shard=shard or Shard(), dtype=dtype, device=CPU
    )
    return dict(model.named_parameters(remove_duplicate=False))


def numbers(*shape: int, start: int = 0) -> Tensor:
    return torch.arange(start, start + int(np.prod(shape)), dtype=torch.float32).view(shape)


def test_names_that_are_equal_need_no_map(open_with: Open) -> None:
    weights = {"a.weight": numbers(2, 3), "norm": numbers(4)}
    found = load(Holder({"a.weight": (2, 3), "norm": (4,)}), open_with(weights), WeightMap())
    assert found.keys() == weights.keys()
    for name, parameter in found.items():
        assert torch.equal(parameter, weights[name])
        assert isinstance(parameter, nn.Parameter)
        assert not parameter.requires_grad
        assert parameter.is_contiguous()


def test_every_operation_together(open_with: Open) -> None:
    experts = {
        f"old.1.experts.{index}.{part}": numbers(2, 3, start=10 * index + shift)
        for index in (2, 0, 1, 10, 3, 4, 5, 6, 7, 8, 9)
        for part, shift in (("gate", 0), ("up", 500))
    }
    weights = {
        "old.1.q": numbers(4, 3),
        "old.1.kv": numbers(4, 3, start=100),
        **experts,
        "old.1.table": numbers(7),
        "head": numbers(5, 3),
        "embed": numbers(5, 3),
    }
    weight_map = WeightMap(
        rename={
            "old.*.q": "new.*.q",
            "old.*.kv": "new.*.kv",
            "old.*.experts.*.gate": "new.*.experts.*.gate",
            "old.*.experts.*.up": "new.*.experts.*.up",
            "old.*.table": "new.*.table",
        },
        split={"new.*.kv": ("new.*.k", "new.*.v")},
        merge={
            "new.*.qk": ("new.*.q", "new.*.k"),
            "new.*.experts.*.both": ("new.*.experts.*.gate", "new.*.experts.*.up"),
        },
        stack={"new.*.all": "new.*.experts.*.both"},
        tie={"head": "embed"},
        drop=("new.*.table",),
    )
    model = Holder(
        {"head": (5, 3), "embed": (5, 3), "new.1.qk": (6, 3), "new.1.v": (2, 3), "new.1.all": (11, 4, 3)}
    )
    found = load(model, open_with(weights), weight_map)
    assert torch.equal(found["new.1.qk"], torch.cat((weights["old.1.q"], weights["old.1.kv"][:2])))
    assert torch.equal(found["new.1.v"], weights["old.1.kv"][2:])
    for index in range(11):
        gate, up = experts[f"old.1.experts.{index}.gate"], experts[f"old.1.experts.{index}.up"]
        assert torch.equal(found["new.1.all"][index], torch.cat((gate, up)))
    assert found["head"] is found["embed"]
    assert torch.equal(found["embed"], weights["embed"])
    assert sorted(open_with.reads) == sorted(weights.keys() - {"old.1.table"})


def test_parts_of_a_split_tensor_do_not_keep_the_whole_in_memory(open_with: Open) -> None:
    model = Holder({"a": (2, 3), "b": (2, 3)})
    found = load(model, open_with({"ab": numbers(4, 3)}), WeightMap(split={"ab": ("a", "b")}))
    assert torch.equal(found["b"], numbers(2, 3, start=6))
    assert all(parameter.untyped_storage().nbytes() == 24 for parameter in found.values())
    assert open_with.reads == ["ab"]


def test_single_numbers_load_and_stack(open_with: Open) -> None:
    weights = {"alone": torch.tensor(3.0), "x.0.e": torch.tensor(1.0), "x.1.e": torch.tensor(2.0)}
    found = load(Holder({"alone": (), "e": (2,)}), open_with(weights), WeightMap(stack={"e": "x.*.e"}))
    assert found["alone"].item() == 3
    assert found["e"].tolist() == [1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_types(open_with: Open, stored: torch.dtype, dtype: torch.dtype) -> None:
    weights = {name: torch.randn(3, 4).to(stored) for name in ("a", "b", "c")}
    found = load(
        Holder({"a": (3, 4), "bc": (6, 4)}),
        open_with(weights),
        WeightMap(merge={"bc": ("b", "c")}),
        dtype=dtype,
    )
    assert torch.equal(found["a"], weights["a"].to(dtype))
    assert torch.equal(found["bc"], torch.cat((weights["b"], weights["c"])).to(dtype))


def test_integer_weights_are_refused(open_with: Open) -> None:
    checkpoint = open_with({"a": torch.ones(2, dtype=torch.int8)})
    with pytest.raises(ModelFileError, match="tensor a: has type I8; only floating point"):
        load(Holder({"a": (2,)}), checkpoint, WeightMap())


# Ties ---------------------------------------------------------------------------------------------------------------


def test_a_tied_parameter_needs_no_tensor(open_with: Open) -> None:
    found = load(
        Holder({"head": (2, 2), "embed": (2, 2)}),
        open_with({"embed": numbers(2, 2)}),
        WeightMap(tie={"head": "embed"}),
    )
    assert found["head"] is found["embed"]


def test_tied_and_stored_with_other_values(open_with: Open) -> None:
    checkpoint = open_with({"embed": numbers(2, 2), "head": numbers(2, 2, start=1)})
    with pytest.raises(CheckpointMismatch, match="head .tied to embed, but holds other values"):
        load(Holder({"head": (2, 2), "embed": (2, 2)}), checkpoint, WeightMap(tie={"head": "embed"}))


def test_a_tie_to_nothing_is_the_plugins_mistake(open_with: Open) -> None:
    checkpoint = open_with({"embed": numbers(2, 2)})
    with pytest.raises(PluginError, match="cannot be tied"):
        load(Holder({"head": (3, 2), "embed": (2, 2)}), checkpoint, WeightMap(tie={"head": "embed"}))


# Strictness ---------------------------------------------------------------------------------------------------------

PAIR = WeightMap(merge={"*.qk": ("*.q", "*.k")}, stack={"e": "x.*.e"}, split={"ab": ("a", "b")})


@pytest.mark.parametrize(
    ("shapes", "tensors", "message"),
    [
        ({"a": (2,)}, {"b": (2,)}, "1 missing: a; 1 unused: b"),
        ({"a": (2,)}, {"a": (2,), "z.0": (1,)}, "1 unused: z.0"),
        ({"a": (2,), "c": (2,)}, {"a": (2,)}, "1 missing: c"),
        ({"a": (2,)}, {"a": (3,)}, r"1 of another shape: a \[2\] from a \[3\]"),
        ({"a": (2, 1)}, {"a": (2,)}, "of another shape"),
        ({"0.qk": (4, 2)}, {"0.q": (2, 2)}, "missing: 1 of 2 parts of 0.qk"),
        (
            {"0.qk": (4, 2)},
            {"0.q": (2, 2), "0.k": (1, 2)},
            r"0.qk \[4, 2\] from 0.q \[2, 2\] \+ 0.k \[1, 2\]",
        ),
        ({"0.qk": (4, 2)}, {"0.q": (2, 2), "0.k": (2, 3)}, "of another shape"),
        ({"e": (3, 2)}, {"x.0.e": (2,), "x.2.e": (2,)}, "missing: 1 of 3 parts of e"),
        ({"e": (1, 2)}, {"x.0.e": (2,), "x.1.e": (2,)}, "unused: x.1.e"),
        ({"a": (1,), "b": (2,)}, {"ab": (3,)}, r"ab \[3\] cannot be split into 2"),
        ({"0.qk": (4, 2)}, {"0.q": (2, 2), "0.k": (2, 2), "00.q": (2, 2)}, "unused: 00.q"),
        ({f"p{i}": (1,) for i in range(9)}, {"p0": (1,)}, r"8 missing: p1, p2, p3, p4, p5 …"),
    ],
)
def test_mismatches_list_both_sides_before_data_is_read(
    shapes: dict[str, tuple[int, ...]], tensors: dict[str, tuple[int, ...]], message: str, open_with: Open
) -> None:
    checkpoint = open_with({name: torch.zeros(shape) for name, shape in tensors.items()})
    with pytest.raises(CheckpointMismatch, match=message):
        load(Holder(shapes), checkpoint, PAIR)
    assert open_with.reads == []
    with pytest.raises(CheckpointMismatch, match=message):
        audit(shapes, checkpoint, PAIR)


def test_two_tensors_for_one_place(open_with: Open) -> None:
    checkpoint = open_with({"a": numbers(2), "b": numbers(2)})
    with pytest.raises(CheckpointMismatch, match=r"fills a a second time"):
        load(Holder({"a": (2,)}), checkpoint, WeightMap(rename={"b": "a"}))


def test_a_literal_pattern_comes_before_a_star(open_with: Open) -> None:
    weight_map = WeightMap(rename={"l.*.x": "m.*.x", "l.7.x": "last"}, drop=("l.8.*",))
    weights = {"l.1.x": numbers(2), "l.7.x": numbers(2, start=5), "l.8.3": numbers(1)}
    found = load(Holder({"m.1.x": (2,), "last": (2,)}), open_with(weights), weight_map)
    assert found["last"].tolist() == [5, 6]
    assert found["m.1.x"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (WeightMap(merge={"m": ("a",), "n": ("a",)}), "merges a twice"),
        (WeightMap(stack={"s": "a"}), "one . more than s"),
        (WeightMap(stack={"s": "a.*", "t": "a.*"}), r"stacks a\.\* twice"),
        (WeightMap(rename={"a": "b.*"}), r"b\.\* needs 0"),
    ],
)
def test_weight_maps_that_contradict_themselves(weight_map: WeightMap, message: str, open_with: Open) -> None:
    checkpoint = open_with({"a": numbers(2)})
    with pytest.raises(PluginError, match=message):
        audit({"a": (2,)}, checkpoint, weight_map)


def test_a_name_of_many_numbers_costs_no_time(open_with: Open) -> None:
    checkpoint = open_with({".".join(["1"] * 60): numbers(1), "x." + "9" * 1000 + ".e": numbers(1)})
    with pytest.raises(CheckpointMismatch, match="2 unused"):
        audit({}, checkpoint, PAIR)


# GGUF ---------------------------------------------------------------------------------------------------------------


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's converter stores the rows of query and key projections."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
        .swapaxes(1, 2)
        .reshape(weight.shape)
    )


def test_gguf_names_rows_and_quantised_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    q, bias, k = (rng.standard_normal(shape).astype(np.float32) for shape in ((24, 64), (24,), (8, 64)))
    packed = quants.quantize(permuted(k, 2), gguf.GGMLQuantizationType.Q8_0)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("blk.0.attn_q.weight", permuted(q, 4))
    writer.add_tensor("blk.0.attn_q.bias", permuted(bias, 4))
    writer.add_tensor("blk.0.attn_k.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("rope_freqs.weight", np.ones(3, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    weight_map = WeightMap(
        merge={"l.*.qk": ("l.*.q", "l.*.k")},
        gguf=GGUFNames(
            rename={
                "blk.*.attn_q.weight": "l.*.q",
                "blk.*.attn_k.weight": "l.*.k",
                "blk.*.attn_q.bias": "l.*.b",
            },
            unpermute={"l.*.q": 4, "l.*.b": 4, "l.*.k": 2},
            drop=("rope_freqs.weight",),
        ),
    )
    with open_checkpoint(tmp_path) as checkpoint:
        found = load(Holder({"l.0.qk": (32, 64), "l.0.b": (24,)}), checkpoint, weight_map)
        decoded = quants.dequantize(
            quants.quantize(k, gguf.GGMLQuantizationType.Q8_0), gguf.GGMLQuantizationType.Q8_0
        )
        assert torch.equal(found["l.0.qk"], torch.from_numpy(np.concatenate((q, decoded))))
        assert torch.equal(found["l.0.b"], torch.from_numpy(bias))
        with pytest.raises(CheckpointMismatch, match="unused: blk.0.attn_q.weight, blk.0.attn_q.bias"):
            audit({"l.0.b": (24,)}, checkpoint, WeightMap(gguf=GGUFNames(rename={})))
        wrong = GGUFNames(weight_map.gguf.rename, unpermute={"l.*.b": 5}, drop=("rope_freqs.weight",))
        with pytest.raises(CheckpointMismatch, match="2 × 5 equal parts"):
            audit({"l.0.b": (24,)}, checkpoint, WeightMap(gguf=wrong))
        with pytest.raises(ModelFileError, match="cannot be loaded from GGUF files .use its safetensors"):
            audit({}, checkpoint, WeightMap())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_converter_added_is_taken_away_before_anything_is_rounded(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    """0.0123 in bfloat16 is 0.0123; 1.0123 in bfloat16, less 1, would be 0.0156."""
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "x")
    norm = np.array([0.0123, -0.5, 3.0, 0.0], dtype=np.float32)
    writer.add_tensor("blk.0.attn_norm.weight", norm + 1)
    writer.add_tensor("blk.0.scale.weight", norm)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    rename = {"blk.*.attn_norm.weight": "l.*.norm", "blk.*.scale.weight": "l.*.scale"}
    weight_map = WeightMap(gguf=GGUFNames(rename=rename, subtract={"l.*.norm": 1.0}))
    with open_checkpoint(tmp_path / "model.gguf") as checkpoint:
        found = load(Holder({"l.0.norm": (4,), "l.0.scale": (4,)}), checkpoint, weight_map, dtype=dtype)
    wanted = torch.from_numpy(norm).to(dtype)
    torch.testing.assert_close(found["l.0.norm"], wanted, rtol=0, atol=2.0**-23)
    assert torch.equal(found["l.0.scale"], wanted)


def test_matrices_that_a_converter_turned_over_are_turned_back(tmp_path: Path) -> None:
    stack = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "x")
    writer.add_tensor("blk.0.k.weight", stack)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    stated = GGUFNames(rename={"blk.*.k.weight": "l.*.k"}, transposed=("l.*.k",))
    with open_checkpoint(tmp_path / "model.gguf") as checkpoint:
        found = load(Holder({"l.0.k": (3, 2, 4)}), checkpoint, WeightMap(gguf=stated))
        with pytest.raises(CheckpointMismatch, match=r"l.0.k \[3, 4, 2\]"):
            audit({"l.0.k": (3, 4, 2)}, checkpoint, WeightMap(gguf=stated))
    assert torch.equal(found["l.0.k"], torch.from_numpy(stack).transpose(1, 2))


# Shards -------------------------------------------------------------------------------------------------------------

PLAN = ShardPlan(
    {
        "q": ShardRule("column", 4),
        "k": ShardRule("column", 2),
        "bias": ShardRule("column", 4),
        "o": ShardRule("row", 4),
        "o_bias": ShardRule("row", 4),
        "embed": ShardRule("vocab"),
        "norm": ShardRule("replicate"),
    },
    (1, 2, 4, 8),
)
FULL = {
    "q": numbers(8, 3),
    "k": numbers(4, 3, start=50),
    "bias": numbers(8),
    "o": numbers(3, 8),
    "o_bias": numbers(3, start=1),
    "embed": numbers(16, 3),
    "norm": numbers(3),
}


def rank_parameters(open_with: Open, rank: int, size: int) -> dict[str, Tensor]:
    shapes = {
        "qk": (8 // size + max(4 // size, 2), 3),
        "bias": (8 // size,),
        "o": (3, 8 // size),
        "o_bias": (3,),
        "embed": (16 // size, 3),
        "norm": (3,),
    }
    return load(
        Holder(shapes),
        open_with(FULL),
        WeightMap(merge={"qk": ("q", "k")}),
        plan=PLAN,
        shard=Shard(rank, size),
    )


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_ranks_parts_make_the_whole(size: int, open_with: Open) -> None:
    ranks = [rank_parameters(open_with, rank, size) for rank in range(size)]
    rows = 8 // size
    assert torch.equal(torch.cat([rank["qk"][:rows] for rank in ranks]), FULL["q"])
    assert torch.equal(torch.cat([rank["bias"] for rank in ranks]), FULL["bias"])
    assert torch.equal(torch.cat([rank["o"] for rank in ranks], dim=1), FULL["o"])
    assert torch.equal(torch.stack([rank["o_bias"] for rank in ranks]).sum(0), FULL["o_bias"])
    assert torch.equal(torch.cat([rank["embed"] for rank in ranks]), FULL["embed"])
    for number, rank in enumerate(ranks):
        assert torch.equal(rank["norm"], FULL["norm"])
        # two units of keys: with four ranks each is held by two of them, side by side
        unit = number * 2 // size
        expected = FULL["k"] if size == 1 else FULL["k"][2 * unit : 2 * unit + 2]
        assert torch.equal(rank["qk"][rows:], expected)
        for parameter in rank.values():
            assert parameter.untyped_storage().nbytes() == parameter.nbytes


def test_parts_of_a_tensor_are_divided_each_on_its_own(open_with: Open) -> None:
    """Rows of queries, keys and values in one tensor: a rank holds its share of each, one below the other."""
    whole = numbers(16, 1, 3)
    plan = ShardPlan({"a": ShardRule("column", 2, parts=(4, 4, 8))}, (1, 2))
    for rank, rows in enumerate(((0, 1, 4, 5, 8, 9, 10, 11), (2, 3, 6, 7, 12, 13, 14, 15))):
        model = Holder({"a": (8, 1, 3)})
        load_weights(
            model,
            open_with({"a": whole}),
            WeightMap(),
            shard_plan=plan,
            shard=Shard(rank, 2),
            dtype=torch.float32,
            device=CPU,
        )
        assert torch.equal(model.a, whole[list(rows)])
    with pytest.raises(PluginError, match="divides 16 entries of a, which has 12"):
        audit(
            {"a": (6, 1)}, open_with({"a": numbers(12, 1)}), WeightMap(), shard_plan=plan, shard=Shard(0, 2)
        )


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_tensor_that_is_one_unit_is_held_where_the_unit_is(size: int, open_with: Open) -> None:
    """As the rows of one tensor of all units are."""
    units = [torch.full((3, 2), float(number)) for number in range(4)]
    parts = {f"w.{number}": unit for number, unit in enumerate(units)}
    apart = open_with(parts)
    plan = ShardPlan({f"w.{number}": ShardRule("unit", 4, unit=number) for number in range(4)}, (1, 2, 4, 8))
    rows = max(1, 4 // size) * 3
    for rank in range(size):
        shard = Shard(rank, size)
        merged = WeightMap(merge={"all": tuple(parts)})
        found = load(Holder({"all": (rows, 2)}), apart, merged, plan=plan, shard=shard)
        first = rank * 4 // size
        assert torch.equal(found["all"], torch.cat(units[first : first + max(1, 4 // size)]))


@pytest.mark.parametrize(
    ("plan", "size", "error", "message"),
    [
        (PLAN, 3, ConfigError, "cannot be divided over 3 ranks; possible: 1, 2, 4, 8"),
        (ShardPlan({}, (1, 2)), 2, PluginError, "no rule for a"),
        (ShardPlan({"a": ShardRule("row", 1)}, (1, 2)), 2, PluginError, "cannot divide the 1 units of a"),
        (ShardPlan({"a": ShardRule("column", 3)}, (1, 2)), 2, PluginError, "4 entries of a into 3 units"),
    ],
)
def test_plans_that_do_not_fit(
    plan: ShardPlan, size: int, error: type[Exception], message: str, open_with: Open
) -> None:
    with pytest.raises(error, match=message):
        audit(
            {"a": (4, 4)}, open_with({"a": numbers(4, 4)}), WeightMap(), shard_plan=plan, shard=Shard(0, size)
        )


# Finishing ----------------------------------------------------------------------------------------------------------

EVENTS: list[str] = []


class Packing(nn.Module):
    """Drops its weight when finished, and notes when that was."""

    def __init__(self, label: str, rows: int = 2) -> None:
        super().__init__()
        self.label = label
        self.weight = nn.Parameter(torch.empty(rows, 2, device="meta")) if rows else None

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:
        assert (device, dtype) == (CPU, torch.bfloat16)
        if self.weight is not None:
            assert self.weight.device == CPU
            self.packed, self.weight = self.weight.data, None
        EVENTS.append(self.label)


class Around(Packing):
    """Has a weight of its own and modules inside."""

    def __init__(self) -> None:
        super().__init__("around")
        self.first, self.second, self.table = Packing("first"), Packing("second"), Packing("table", rows=0)


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block, self.head = Packing("embed"), Around(), Packing("head")


def test_modules_finish_once_and_as_early_as_they_can(open_with: Open) -> None:
    EVENTS.clear()
    names = ("embed.weight", "block.second.weight", "block.weight", "block.first.weight")
    checkpoint = open_with({name: numbers(2, 2, start=index) for index, name in enumerate(names)})
    model = Whole()
    steps: list[tuple[int, int, list[str]]] = []
    load_weights(
        model,
        checkpoint,
        WeightMap(tie={"head.weight": "embed.weight"}),
        shard_plan=NO_PLAN,
        shard=Shard(),
        dtype=torch.bfloat16,
        device=CPU,
        progress=lambda done, total, _: steps.append((done, total, EVENTS.copy())),
    )
    assert steps == [
        (16, 64, []),
        (32, 64, []),
        (48, 64, ["first"]),
        (64, 64, ["first", "second", "around"]),
    ]
    assert sorted(EVENTS[3:]) == ["embed", "head", "table"]
    assert model.embed.packed.data_ptr() == model.head.packed.data_ptr()
    assert torch.equal(model.block.second.packed.float(), numbers(2, 2, start=1))


def test_a_module_may_keep_its_own_type(open_with: Open) -> None:
    class Precise(nn.Module):
        parameter_dtype = torch.float32

        def __init__(self) -> None:
            super().__init__()
            self.factors = nn.Parameter(torch.empty(3, device="meta"))

    model = nn.Sequential(Precise(), nn.Linear(2, 2, bias=False, device="meta"))
    weights = {"0.factors": torch.tensor([1.1, 2.2, 3.3]), "1.weight": numbers(2, 2)}
    found = load(model, open_with(weights), WeightMap(), dtype=torch.bfloat16)
    assert torch.equal(found["0.factors"], weights["0.factors"])
    assert found["1.weight"].dtype == torch.bfloat16
