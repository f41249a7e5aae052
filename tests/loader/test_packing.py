"""Loading weights that stay in blocks: what every module then holds, against the gguf package's decoding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.errors import CheckpointMismatch, ModelFileError
from inference_pio.layers import Linear, RMSNorm, VocabParallelEmbedding
from inference_pio.loader.checkpoint import Checkpoint, open_checkpoint
from inference_pio.loader.packing import Packing, plan_packing
from inference_pio.loader.weights import audit, load_weights
from inference_pio.ops import native
from inference_pio.ops.quantized import KINDS
from inference_pio.parallel import Shard
from inference_pio.plugin.facts import GGUFNames, ShardPlan, WeightMap
from inference_pio.plugin.quantization import Quantization
from inference_pio.plugin.runtime import Progress
from support.packed_gguf import decode, write_tensors
from support.quant_blocks import random_bytes

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
COLUMNS = 512


class Model(nn.Module):
    """Modules by name, on the meta device."""

    def __init__(self, **modules: Callable[[], nn.Module]) -> None:
        super().__init__()
        with torch.device("meta"):
            for name, make in modules.items():
                self.add_module(name, make())


def linear(rows: int, columns: int = COLUMNS, *, bias: bool = False) -> Callable[[], nn.Module]:
    return lambda: Linear(columns, rows, bias=bias)


def embedding(rows: int) -> Callable[[], nn.Module]:
    return lambda: VocabParallelEmbedding(rows, COLUMNS, Shard())


def load(
    model: nn.Module,
    checkpoint: Checkpoint,
    weight_map: WeightMap,
    quantization: Quantization | None = None,
    progress: Progress | None = None,
) -> Packing:
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    plan = audit(shapes, checkpoint, weight_map)
    packing = plan_packing(model, checkpoint, plan, quantization)
    promised = {name: packing.nbytes(plan.targets[name]) for name in packing.kinds}
    load_weights(
        model,
        checkpoint,
        weight_map,
        shard_plan=ShardPlan({}, (1,)),
        shard=Shard(),
        dtype=torch.float32,
        device=torch.device("cpu"),
        packing=packing,
        progress=progress,
    )
    held = {name: packed_of(model, name.removesuffix(".weight")).nbytes for name in packing.kinds}
    assert held == promised, "the plan knows the bytes before anything is loaded"
    return packing


def packed_of(model: nn.Module, name: str) -> ops.QuantizedWeight:
    module = model.get_submodule(name)
    assert module.weight is None, "no weight is held twice"
    assert isinstance(module.packed, ops.QuantizedWeight)
    return module.packed


def names(*some: str, **unpermute: int) -> WeightMap:
    return WeightMap(gguf=GGUFNames({name: name for name in some}, unpermute=unpermute))


def close(packed: ops.QuantizedWeight, want: Tensor) -> bool:
    """Exact, but for the 16-bit minima of Q4_1 and Q5_1."""
    found = packed.dequantize()
    if not {"Q4_1", "Q5_1"} & set(packed.kinds):
        return torch.equal(found, want)
    return torch.allclose(found, want, rtol=2.0**-15, atol=2.0**-15)


def test_every_kind_stays_in_its_blocks(tmp_path: Path) -> None:
    blocks = {f"{kind}.weight": (kind, random_bytes(kind, 40, COLUMNS)) for kind in KINDS}
    path = write_tensors(tmp_path / "m.gguf", blocks, {"norm.weight": torch.arange(8.0)})
    model = Model(**dict.fromkeys(KINDS, linear(40)), norm=lambda: RMSNorm(8, 1e-5))
    told: list[tuple[int, int, str]] = []
    with open_checkpoint(path) as checkpoint:
        packing = load(model, checkpoint, names(*blocks, "norm.weight"), progress=lambda *at: told.append(at))
        total = sum(info.nbytes for info in checkpoint.tensors.values())
    assert packing.kinds == {f"{kind}.weight": (kind,) for kind in KINDS}
    for kind in KINDS:
        packed = packed_of(model, kind)
        assert packed.kinds == (kind,)
        assert (packed.out_features, packed.in_features) == (40, COLUMNS)
        assert close(packed, decode(blocks[f"{kind}.weight"][1], kind)), kind
    assert torch.equal(model.get_parameter("norm.weight"), torch.arange(8.0))
    done = [at for at, _, _ in told]
    assert len(told) == len(KINDS) + 1
    assert done == sorted(done)
    assert told[-1] == (total, total, "loading")


def test_matrices_that_are_stored_turned_over_become_dense(tmp_path: Path) -> None:
    """Scales of blocks hold along stored rows, which are the parameter's columns."""
    stored = random_bytes("Q8_0", 2 * 32, 32)
    path = write_tensors(tmp_path / "m.gguf", {"p": ("Q8_0", stored.view(2, 32, -1))}, {})
    weight_map = WeightMap(
        unstack={"p": "p.*"},
        merge={"w.weight": ("p.1", "p.0")},
        gguf=GGUFNames({"p": "p"}, transposed=("p",)),
    )
    model = Model(w=linear(64, 32))
    with open_checkpoint(path) as checkpoint:
        assert not load(model, checkpoint, weight_map).kinds
    wanted = decode(stored, "Q8_0").view(2, 32, 32).transpose(1, 2).flip(0).flatten(0, 1)
    assert torch.equal(model.get_submodule("w").packed.tensor, wanted)


def test_rows_of_queries_and_keys_come_back_into_order(tmp_path: Path) -> None:
    """Blocks lie within rows: a file's order of rows is undone without touching them, also of merged weights."""
    rows = {"q": 24, "k": 8, "v": 10}
    blocks = {
        "q": ("Q4_K", random_bytes("Q4_K", 24, COLUMNS, seed=1)),
        "k": ("Q5_0", random_bytes("Q5_0", 8, COLUMNS, seed=2)),
        "v": ("Q6_K", random_bytes("Q6_K", 10, COLUMNS, seed=3)),
    }
    stored = {
        "q": blocks["q"][1].view(4, 2, 3, -1).transpose(1, 2).reshape(24, -1),  # 4 heads, halves interleaved
        "k": blocks["k"][1].view(2, 2, 2, -1).transpose(1, 2).reshape(8, -1),
        "v": blocks["v"][1],
    }
    bias = torch.arange(42.0)
    path = write_tensors(
        tmp_path / "m.gguf",
        {name: (blocks[name][0], stored[name].contiguous()) for name in rows},
        {"qkv.bias": bias},
    )
    weight_map = WeightMap(
        merge={"qkv.weight": ("q", "k", "v")},
        gguf=GGUFNames({name: name for name in (*rows, "qkv.bias")}, unpermute={"q": 4, "k": 2}),
    )
    model = Model(qkv=linear(42, bias=True))
    with open_checkpoint(path) as checkpoint:
        packing = load(model, checkpoint, weight_map)
    assert packing.kinds == {"qkv.weight": ("Q4_K", "Q5_0", "Q6_K")}
    want = torch.cat([decode(data, kind) for kind, data in blocks.values()])
    assert close(packed_of(model, "qkv"), want)
    assert torch.equal(model.get_parameter("qkv.bias"), bias)
    x_TK = torch.randn(3, COLUMNS)
    with ops.use("reference"):
        torch.testing.assert_close(model.qkv(x_TK), x_TK @ want.T + bias, rtol=1e-4, atol=1e-3)


def test_a_split_weight_takes_its_rows(tmp_path: Path) -> None:
    data = random_bytes("Q8_0", 48, COLUMNS)
    path = write_tensors(tmp_path / "m.gguf", {"ab": ("Q8_0", data)})
    weight_map = WeightMap(split={"ab": ("a.weight", "b.weight", "c.weight")}, gguf=GGUFNames({"ab": "ab"}))
    model = Model(a=linear(16), b=linear(16), c=linear(16))
    with open_checkpoint(path) as checkpoint:
        load(model, checkpoint, weight_map)
    want = decode(data, "Q8_0").split(16)
    for name, part in zip("abc", want, strict=True):
        assert close(packed_of(model, name), part)


def test_a_tied_head_is_the_embedding(tmp_path: Path) -> None:
    data = random_bytes("Q6_K", 70, COLUMNS)
    path = write_tensors(tmp_path / "m.gguf", {"embed.weight": ("Q6_K", data)})
    weight_map = WeightMap(
        tie={"head.weight": "embed.weight"}, gguf=GGUFNames({"embed.weight": "embed.weight"})
    )
    model = Model(head=linear(70), embed=embedding(70))
    with open_checkpoint(path) as checkpoint:
        load(model, checkpoint, weight_map)
    head, embed = packed_of(model, "head"), packed_of(model, "embed")
    assert head.address == embed.address
    want = decode(data, "Q6_K")
    ids = torch.tensor([69, 0, 13])
    assert torch.equal(model.embed(ids), want[ids])
    assert model.head(torch.randn(2, COLUMNS)).shape == (2, 70)


@pytest.mark.parametrize("equal", [True, False])
def test_a_tied_head_that_the_file_holds_too_is_compared(tmp_path: Path, equal: bool) -> None:
    """As floats: the two may be in blocks of different kinds."""
    data = random_bytes("Q8_0", 32, COLUMNS)
    other = data if equal else random_bytes("Q8_0", 32, COLUMNS, seed=9)
    path = write_tensors(
        tmp_path / "m.gguf", {"embed.weight": ("Q8_0", data), "head.weight": ("Q8_0", other)}
    )
    weight_map = WeightMap(
        tie={"head.weight": "embed.weight"},
        gguf=GGUFNames({name: name for name in ("embed.weight", "head.weight")}),
    )
    model = Model(head=linear(32), embed=embedding(32))
    with open_checkpoint(path) as checkpoint:
        if equal:
            assert load(model, checkpoint, weight_map).kinds == {}
            assert torch.equal(model.get_parameter("embed.weight"), decode(data, "Q8_0"))
        else:
            with pytest.raises(CheckpointMismatch, match="head.weight .tied to embed.weight"):
                load(model, checkpoint, weight_map)


def test_what_cannot_stay_in_blocks_becomes_dense(tmp_path: Path) -> None:
    """A weight one of whose pieces is plain, a module that takes no blocks, and everything without native kernels."""
    data = random_bytes("Q4_0", 16, COLUMNS)
    plain = torch.randn(16, COLUMNS)
    path = write_tensors(
        tmp_path / "m.gguf", {"a": ("Q4_0", data), "norm.weight": ("Q4_0", data[:1])}, {"b": plain}
    )
    weight_map = WeightMap(
        merge={"ab.weight": ("a", "b")}, gguf=GGUFNames({name: name for name in ("a", "b", "norm.weight")})
    )

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(1, COLUMNS), requires_grad=False)

    model = Model(ab=linear(32), norm=Table)
    with open_checkpoint(path) as checkpoint:
        assert load(model, checkpoint, weight_map).kinds == {}
    want = torch.cat((decode(data, "Q4_0"), plain))
    assert torch.equal(model.ab.packed.tensor, want)
    assert torch.equal(model.get_parameter("norm.weight"), want[:1])


def test_without_native_kernels_nothing_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_bytes("Q4_0", 16, COLUMNS)
    path = write_tensors(tmp_path / "m.gguf", {"a.weight": ("Q4_0", data)})
    monkeypatch.setattr(native, "MISSING", "no compiler")
    model = Model(a=linear(16))
    with open_checkpoint(path) as checkpoint:
        assert load(model, checkpoint, names("a.weight")).kinds == {}
    assert torch.equal(model.a.packed.tensor, decode(data, "Q4_0"))


def test_a_file_that_ends_while_it_is_read(tmp_path: Path) -> None:
    blocks = {f"{i}.weight": ("Q8_0", random_bytes("Q8_0", 40, COLUMNS)) for i in range(3)}
    path = write_tensors(tmp_path / "m.gguf", blocks)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    with pytest.raises(ModelFileError, match="download incomplete|shorter|bytes"):
        open_checkpoint(path)
    path.write_bytes(whole)
    model = Model(**{str(i): linear(40) for i in range(3)})
    with open_checkpoint(path) as checkpoint:
        path.write_bytes(whole[:-1000])
        with pytest.raises(ModelFileError, match=str(path)) as refused:
            load(model, checkpoint, names(*blocks))
    assert "\n" not in str(refused.value)


# Quantising at load ---------------------------------------------------------------------------------------------------


def test_floats_are_quantised_where_the_caller_asks(tmp_path: Path) -> None:
    stored = torch.randn(20, 192).bfloat16()
    weights = {"a.weight": stored.float(), "odd.weight": torch.randn(20, 48), "a.bias": torch.randn(20)}
    save_file({**weights, "a.weight": stored}, tmp_path / "model.safetensors")
    for quantization, kind in ((Quantization("Q8_0"), "Q8_0"), (Quantization("Q4_1", 64), "Q4_1")):
        model = Model(a=linear(20, 192, bias=True), odd=linear(20, 48))
        with open_checkpoint(tmp_path) as checkpoint:
            packing = load(model, checkpoint, WeightMap(), quantization)
        assert packing.kinds == {"a.weight": (kind,)}
        packed = packed_of(model, "a")
        step = 2 * weights["a.weight"].abs().amax() / {"Q8_0": 254, "Q4_1": 15}[kind]
        assert (packed.dequantize() - weights["a.weight"]).abs().max() <= 0.55 * step
        assert torch.equal(model.a.bias, weights["a.bias"])
        assert torch.equal(model.odd.packed.tensor, weights["odd.weight"]), "48 columns are no whole blocks"


@pytest.mark.parametrize(
    ("asked", "kinds"),
    [
        (Quantization("Q8_0"), {"F32": "Q8_0", "Q4_K": "Q4_K", "Q8_0": "Q8_0"}),
        (Quantization("Q4_1"), {"F32": "Q4_1", "Q4_K": "Q4_K", "Q8_0": "Q4_1"}),
    ],
)
def test_blocks_that_are_small_enough_stay(
    tmp_path: Path, asked: Quantization, kinds: dict[str, str]
) -> None:
    data = {kind: random_bytes(kind, 16, COLUMNS) for kind in ("Q4_K", "Q8_0")}
    path = write_tensors(
        tmp_path / "m.gguf",
        {f"{kind}.weight": (kind, rows) for kind, rows in data.items()},
        {"F32.weight": torch.randn(16, COLUMNS)},
    )
    model = Model(**dict.fromkeys(kinds, linear(16)))
    with open_checkpoint(path) as checkpoint:
        packing = load(model, checkpoint, names(*(f"{kind}.weight" for kind in kinds)), asked)
    assert packing.kinds == {f"{kind}.weight": (becomes,) for kind, becomes in kinds.items()}
    assert close(packed_of(model, "Q4_K"), decode(data["Q4_K"], "Q4_K"))
    exact = decode(data["Q8_0"], "Q8_0")
    found = packed_of(model, "Q8_0").dequantize()
    low, high = (getattr(exact.unflatten(1, (-1, 32)), which)(2).flatten() for which in ("amin", "amax"))
    assert (found - exact).abs().max() <= ((high - low) / 15 * 0.55 + low.abs() * 2.0**-11).max()
