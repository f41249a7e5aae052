"""Checkpoints are told apart by what they hold, not by where it lies."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from inference_pio.loader import identity
from inference_pio.loader.checkpoint import open_checkpoint
from inference_pio.loader.identity import checkpoint_identity


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "b.weight": torch.randn(64, 48, generator=generator),
        "a.weight": torch.randn(48, 64, generator=generator),
        "norm.weight": torch.ones(5),
    }


def of(path: Path) -> str:
    with open_checkpoint(path) as checkpoint:
        return checkpoint_identity(checkpoint)


def saved(path: Path, content: dict[str, torch.Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(content, str(path))
    return path


@pytest.fixture
def original(tmp_path: Path) -> str:
    return of(saved(tmp_path / "one" / "model.safetensors", tensors()))


def test_a_copy_under_another_name_is_the_same_checkpoint(tmp_path: Path, original: str) -> None:
    assert re.fullmatch("[0-9a-f]{64}", original)
    assert of(saved(tmp_path / "two" / "other.safetensors", tensors())) == original


def test_shards_change_nothing(tmp_path: Path, original: str) -> None:
    held = {name: f"model-{place}.safetensors" for place, name in enumerate(tensors(), 1)}
    for name, file in held.items():
        saved(tmp_path / "cut" / file, {name: tensors()[name]})
    index = tmp_path / "cut" / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": held}))
    assert of(index.parent) == original


@pytest.mark.parametrize("what", ["value", "name", "shape", "kind", "missing"])
def test_what_makes_another_checkpoint(tmp_path: Path, original: str, what: str) -> None:
    content = tensors()
    if what == "value":
        content["b.weight"][0, 7] += 1
    elif what == "name":
        content["c.weight"] = content.pop("b.weight")
    elif what == "shape":
        content["b.weight"] = content["b.weight"].view(48, 64)
    elif what == "kind":
        content["norm.weight"] = content["norm.weight"].view(torch.int32)
    else:
        del content["norm.weight"]
    assert of(saved(tmp_path / "changed.safetensors", content)) != original


def test_of_many_tensors_a_part_gives_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_SAMPLED_TENSORS", 2)
    first, second = tensors(), tensors()
    first["a.weight"][0, 0] += 1  # the first by name is among the part, the second is not
    second["b.weight"][0, 0] += 1
    base = of(saved(tmp_path / "model.safetensors", tensors()))
    assert of(saved(tmp_path / "first.safetensors", first)) != base
    assert of(saved(tmp_path / "second.safetensors", second)) == base


@pytest.mark.weights
def test_a_large_file_takes_no_time(qwen2_coder_path: Path) -> None:
    with open_checkpoint(qwen2_coder_path) as checkpoint:
        started = time.perf_counter()
        found = checkpoint_identity(checkpoint)
        seconds = time.perf_counter() - started
        assert checkpoint_identity(checkpoint) == found
    assert seconds < 0.3
