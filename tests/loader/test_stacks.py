"""Stacks of weights: out of a tensor each, or of one for all; dense, in the file's blocks, or in blocks of our own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.errors import CheckpointMismatch, PluginError
from inference_pio.layers import Experts
from inference_pio.loader import readings
from inference_pio.loader.checkpoint import Checkpoint, open_checkpoint
from inference_pio.loader.packing import NOTHING_PACKED, Packing, plan_packing
from inference_pio.loader.weights import audit, load_weights
from inference_pio.ops import native
from inference_pio.parallel import Shard, SimulatedGroup
from inference_pio.plugin.facts import GGUFNames, ShardPlan, ShardRule, WeightMap
from inference_pio.plugin.quantization import Quantization
from inference_pio.runtime.stats import loaded_weight_bytes
from support.packed_gguf import decode
from support.quant_blocks import random_bytes

EXPERTS, HIDDEN, INNER = 5, 64, 96
PARTS = ("gate", "up", "down")
MAP = WeightMap(
    unstack={f"all.{part}": f"e.*.{part}" for part in PARTS},
    merge={"e.*.gate_up": ("e.*.gate", "e.*.up")},
    stack={"experts.gate_up_proj": "e.*.gate_up", "experts.down_proj": "e.*.down"},
    gguf=GGUFNames(rename={f"blk.{part}": f"all.{part}" for part in PARTS}),
)
packs = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))


class Model(nn.Module):
    def __init__(self, shard: Shard | None = None) -> None:
        super().__init__()
        with torch.device("meta"):
            self.experts = Experts(EXPERTS, HIDDEN, INNER, shard or Shard())


def rows_of(part: str) -> tuple[int, int]:
    return (HIDDEN, INNER) if part == "down" else (INNER, HIDDEN)


def write_gguf(path: Path, kinds: Mapping[str, str]) -> dict[str, Tensor]:
    """A file of three stacks, of these kinds; what the gguf package reads out of it, [experts, rows, columns]."""
    writer = gguf.GGUFWriter(path, "llama")
    values = {}
    for seed, part in enumerate(PARTS):
        rows, columns = rows_of(part)
        if kinds[part] == "F32":
            values[part] = torch.randn(EXPERTS, rows, columns, generator=torch.Generator().manual_seed(seed))
            writer.add_tensor(f"blk.{part}", values[part].numpy())
            continue
        data = random_bytes(kinds[part], EXPERTS * rows, columns, seed)
        values[part] = decode(data, kinds[part]).view(EXPERTS, rows, columns)
        kind = gguf.GGMLQuantizationType[kinds[part]]
        writer.add_tensor(f"blk.{part}", data.view(EXPERTS, rows, -1).numpy(), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def load(
    checkpoint: Checkpoint,
    *,
    pack: bool,
    quantization: Quantization | None = None,
    weight_map: WeightMap = MAP,
    progress: Any = None,
) -> tuple[Experts, Packing]:
    model = Model()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    plan = audit(shapes, checkpoint, weight_map)
    packing = plan_packing(model, checkpoint, plan, quantization) if pack else NOTHING_PACKED
    promised = sum(packing.nbytes(plan.targets[name]) for name in packing.kinds)
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
    if packing.kinds:
        assert loaded_weight_bytes(model) == promised, "the plan knows the bytes before anything is loaded"
        assert not list(model.parameters()), "no weight is held twice"
    return model.experts, packing


def assert_holds(experts: Experts, values: Mapping[str, Tensor]) -> None:
    gate_up = torch.cat((values["gate"], values["up"]), dim=1)
    for name, want in (("gate_up_proj", gate_up), ("down_proj", values["down"])):
        if not experts.stacks:
            assert torch.equal(getattr(experts, name), want)
            continue
        for expert in range(EXPERTS):
            found = experts.stacks[name].of(expert).dequantize()
            torch.testing.assert_close(found, want[expert], rtol=1e-6, atol=2e-4)


@packs
@pytest.mark.parametrize("stack_bytes", [1, 10_000, 1 << 24])
@pytest.mark.parametrize(
    "kinds", [("Q4_0", "Q4_0", "Q8_0"), ("Q5_0", "Q8_0", "Q4_1"), ("IQ4_NL", "IQ4_NL", "IQ4_NL")]
)
def test_a_files_stacks_stay_in_blocks(
    tmp_path: Path, kinds: tuple[str, ...], stack_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many experts are read at once."""
    monkeypatch.setattr(readings, "_STACK_BYTES", stack_bytes)
    values = write_gguf(tmp_path / "x.gguf", dict(zip(PARTS, kinds, strict=True)))
    told: list[tuple[int, int]] = []
    with open_checkpoint(tmp_path / "x.gguf") as checkpoint:
        total = sum(info.nbytes for info in checkpoint.tensors.values())
        experts, packing = load(checkpoint, pack=True, progress=lambda done, of, _: told.append((done, of)))
    assert set(packing.kinds) == {"experts.gate_up_proj", "experts.down_proj"}
    assert packing.used_kinds() == tuple(sorted(set(kinds)))
    assert_holds(experts, values)
    assert told[-1] == (total, total)
    assert len(told) == (3 * EXPERTS if stack_bytes == 1 else 3 if stack_bytes > 1 << 20 else len(told))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@packs
def test_no_more_than_a_few_experts_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "_STACK_BYTES", 2 * 54 * INNER * HIDDEN // 96)
    write_gguf(tmp_path / "x.gguf", dict.fromkeys(PARTS, "Q4_0"))
    with open_checkpoint(tmp_path / "x.gguf") as checkpoint:
        sizes: list[int] = []
        original = checkpoint.read_blocks

        def noted(name: str, part: tuple[int, int] | None = None) -> Tensor:
            blocks = original(name, part)
            sizes.append(blocks.nbytes)
            return blocks

        monkeypatch.setattr(checkpoint, "read_blocks", noted)
        load(checkpoint, pack=True)
        assert sum(sizes) == sum(info.nbytes for info in checkpoint.tensors.values()), "each byte once"
    assert max(sizes) <= 2 * 18 * INNER * HIDDEN // 32


@pytest.mark.parametrize("kinds", [("F32", "F32", "F32"), ("Q4_0", "Q8_0", "F32")])
def test_stacks_become_dense(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    values = write_gguf(tmp_path / "x.gguf", dict(zip(PARTS, kinds, strict=True)))
    with open_checkpoint(tmp_path / "x.gguf") as checkpoint:
        experts, _ = load(checkpoint, pack=False)
        assert_holds(experts, values)
        if native.MISSING is None:
            experts, packing = load(checkpoint, pack=True)
            assert not packing.kinds, "where one of a module's stacks is dense, all are"
            assert_holds(experts, values)


@packs
@pytest.mark.parametrize(("kind", "name"), [("Q8_0", "int8"), ("Q4_1", "int4")])
@pytest.mark.parametrize("form", ["safetensors", "gguf"])
def test_floats_become_blocks_where_that_is_asked_for(
    tmp_path: Path, kind: str, name: str, form: str
) -> None:
    values = write_gguf(tmp_path / "x.gguf", dict.fromkeys(PARTS, "F32"))
    if form == "safetensors":
        tensors = {f"e.{n}.{part}": values[part][n].clone() for n in range(EXPERTS) for part in PARTS}
        save_file(tensors, tmp_path / "model.safetensors")
    path = tmp_path / ("x.gguf" if form == "gguf" else "model.safetensors")
    with open_checkpoint(path) as checkpoint:
        experts, packing = load(checkpoint, pack=True, quantization=Quantization.parse(name))
    assert packing.used_kinds() == (kind,)
    for part, rows in (("gate", slice(0, INNER)), ("up", slice(INNER, None))):
        found = experts.stacks["gate_up_proj"].of(3).dequantize()[rows]
        error = (found - values[part][3]).norm() / values[part][3].norm()
        assert error < (0.01 if kind == "Q8_0" else 0.12)
    chosen, weights = torch.tensor([[3, 0]]), torch.tensor([[0.7, 0.3]])
    x = torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(9))
    dense = ops.experts(x, torch.cat((values["gate"], values["up"]), 1), values["down"], chosen, weights)
    error = (experts(x, chosen, weights) - dense).norm() / dense.norm()
    assert error < (0.05 if kind == "Q8_0" else 0.3)


def test_a_rank_takes_its_rows_of_every_expert(tmp_path: Path) -> None:
    values = write_gguf(tmp_path / "x.gguf", dict.fromkeys(PARTS, "F32"))
    rules = {f"e.*.{part}": ShardRule("row" if part == "down" else "column", INNER) for part in PARTS}
    half = INNER // 2
    with open_checkpoint(tmp_path / "x.gguf") as checkpoint:
        for rank in range(2):
            shard = Shard(rank, 2, SimulatedGroup(2))
            model = Model(shard)
            plan = ShardPlan(rules, (1, 2))
            where = {"dtype": torch.float32, "device": torch.device("cpu")}
            load_weights(model, checkpoint, MAP, shard_plan=plan, shard=shard, **where)
            mine = slice(rank * half, (rank + 1) * half)
            gate_up = torch.cat((values["gate"][:, mine], values["up"][:, mine]), dim=1)
            assert torch.equal(model.experts.gate_up_proj, gate_up)
            assert torch.equal(model.experts.down_proj, values["down"][:, :, mine])


def test_stacks_that_do_not_fit(tmp_path: Path) -> None:
    write_gguf(tmp_path / "x.gguf", dict.fromkeys(PARTS, "F32"))
    with open_checkpoint(tmp_path / "x.gguf") as checkpoint:
        shapes = {
            "experts.gate_up_proj": (6, 2 * INNER, HIDDEN),
            "experts.down_proj": (EXPERTS, HIDDEN, INNER),
        }
        with pytest.raises(CheckpointMismatch) as mismatch:
            audit(shapes, checkpoint, MAP)
        assert mismatch.value.missing == ("2 of 12 parts of experts.gate_up_proj",)
        wrong = WeightMap(unstack={"all.*": "e.*"}, gguf=MAP.gguf)
        with pytest.raises(PluginError, match="unstacks all.* to e.*, which must have one . more"):
            audit(shapes, checkpoint, wrong)


def test_parts_of_tensors_are_read_alone(tmp_path: Path) -> None:
    values = write_gguf(tmp_path / "x.gguf", {"gate": "Q8_0", "up": "F32", "down": "Q4_0"})
    save_file({"up": values["up"].bfloat16()}, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path / "x.gguf") as checkpoint:
        for part in PARTS:
            assert torch.equal(checkpoint.read(f"blk.{part}", torch.float32, (1, 3)), values[part][1:4])
        with pytest.raises(ValueError, match="no entries 3 to 6"):
            checkpoint.read("blk.up", None, (3, 3))
    with open_checkpoint(tmp_path / "model.safetensors") as checkpoint:
        found = checkpoint.read("up", torch.float32, (4, 1))
        assert torch.equal(found, values["up"][4:].bfloat16().float())
