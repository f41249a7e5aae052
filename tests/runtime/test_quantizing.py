"""Quantised checkpoints: what is written, how it loads, what it loses, and that nothing is left of a failure."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from inference_pio import LLM, SamplingParams, ops
from inference_pio.benchmarks import accuracy
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.workload import Workload
from inference_pio.conformance.subject import Subject
from inference_pio.errors import ResourceError, UnavailableError, UsageError
from inference_pio.layers import Linear
from inference_pio.loader.checkpoint import open_checkpoint
from inference_pio.loader.draft import TensorsOut
from inference_pio.ops.rounding import quantize_rows
from inference_pio.optimizations.text import usual_text
from inference_pio.plugin.quantization import Recipe
from inference_pio.runtime.quantizing import quantize_model
from support.llama2c import write_gguf
from support.packed_gguf import decode

WEIGHTS = Path(__file__).parents[1] / "data" / "weights"
TEXT = Path(__file__).parents[1] / "data" / "text" / "coriolanus.txt"
QUICK = Recipe(group_size=64, tokens=256)


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """stories260K: small, trained, and dense float32. Its feed-forward rows of 172 values fit no block."""
    target = tmp_path_factory.mktemp("stories") / "stories260K.gguf"
    return write_gguf(WEIGHTS / "stories260K.bin", WEIGHTS / "tok512.bin", target)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random safetensors, a configuration and a tokenizer."""
    return Path(Subject.of("llama", tmp_path_factory.mktemp("tiny"), collected={}).checkpoint("grouped"))


@contextmanager
def scored(path: Path, dtype: str = "auto") -> Iterator[LoadedModel]:
    with LoadedModel("llama", str(path), [Workload(1, 64, 64)], dtype=dtype, text=True) as loaded:
        yield loaded


def logits(path: Path, dtype: str, ids: list[int]) -> Tensor:
    with scored(path, dtype) as loaded:
        return accuracy.score(loaded, ids).nll


def test_a_gguf_file_stays_one_with_everything_else_as_it_was(stories: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    written = quantize_model(str(stories), out, QUICK, usual_text())
    before, after = gguf.GGUFReader(stories), gguf.GGUFReader(out)
    changed = {"quantize.method", "quantize.group_size", "quantize.tokens", "general.file_type"}
    for name, field in before.fields.items():
        if not name.startswith("GGUF.") and name not in changed:
            assert after.fields[name].contents() == field.contents(), name
            assert after.fields[name].types == field.types, name
    assert after.fields["quantize.method"].contents() == "gptq"
    assert after.fields["quantize.group_size"].contents() == 64
    assert after.fields["quantize.tokens"].contents() == 256
    assert after.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q4_1
    source = {tensor.name: tensor for tensor in before.tensors}
    kinds = {tensor.name: tensor.tensor_type.name for tensor in after.tensors}
    assert list(kinds) == list(source)
    assert kinds["token_embd.weight"] == "Q8_0"
    for name, kind in kinds.items():
        packable = name.startswith("blk.") and ("attn" in name or "gate" in name or "up" in name)
        expected = (
            "Q4_1" if packable and "norm" not in name else "Q8_0" if name == "token_embd.weight" else "F32"
        )
        assert kind == expected, name
    most = {"Q4_1": 0.15, "Q8_0": 0.01, "F32": 0.0}
    for tensor in after.tensors:
        kind = tensor.tensor_type.name
        exact = torch.from_numpy(np.array(source[tensor.name].data))
        assert (decode(np.array(tensor.data), kind) - exact).norm() <= most[kind] * exact.norm(), tensor.name
    blocks = sum(kind != "F32" for kind in kinds.values())
    assert (written.compensated, written.nearest) == (blocks - 1, 1)
    assert written.kept == len(kinds) - blocks
    assert written.nbytes < written.source_bytes / 2


@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_a_folder_of_safetensors_loads_as_what_its_blocks_say(
    tiny: Path, tmp_path: Path, method: str
) -> None:
    """Logits equal those of a dense model whose weights are what the gguf package makes of the blocks."""
    out = tmp_path / "out"
    quantize_model(str(tiny), out, Recipe(8 if method == "rtn" else 4, 32, method, 256), usual_text())
    assert {file.name for file in out.iterdir()} == {file.name for file in tiny.iterdir()}
    assert (out / "config.json").read_bytes() == (tiny / "config.json").read_bytes()
    with open_checkpoint(out) as checkpoint:
        kinds = {name: info.dtype for name, info in checkpoint.tensors.items()}
        shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
    source, stored = load_file(tiny / "model.safetensors"), load_file(out / "model.safetensors")
    assert shapes == {name: tuple(tensor.shape) for name, tensor in source.items()}
    dense = {
        name: decode(tensor, kinds[name]) if tensor.dtype == torch.uint8 else tensor
        for name, tensor in stored.items()
    }
    rounded = {name for name, tensor in stored.items() if tensor.dtype == torch.uint8}
    assert rounded == {name for name in source if name.endswith("proj.weight")} | {
        "model.embed_tokens.weight",
        "lm_head.weight",
    }
    for name in set(source) - rounded:
        assert torch.equal(stored[name], source[name])
    ids = list(range(5, 45))
    with scored(out) as loaded:
        modules = {
            name: module for name, module in loaded.model.named_modules() if isinstance(module, Linear)
        }
        assert all(isinstance(module.packed, ops.QuantizedWeight) for module in modules.values())
        down = modules["model.layers.0.mlp.down_proj"].packed.dequantize()
        torch.testing.assert_close(down, dense["model.layers.0.mlp.down_proj.weight"], rtol=1e-3, atol=1e-5)
        with ops.use("reference"):
            found = accuracy.score(loaded, ids).nll
    expected = _score_dense(tiny, tmp_path / "dense", dense, ids)
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=5e-3)


def _score_dense(tiny: Path, folder: Path, tensors: dict[str, Tensor], ids: list[int]) -> Tensor:

    folder.mkdir()
    for file in tiny.iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return logits(folder, "float32", ids)


@pytest.mark.parametrize(
    "name", ["gemma3_text", "glm4_moe_lite", "qwen2", "qwen3_moe", "qwen3_next", "qwen3_vl"]
)
def test_whatever_a_model_is_made_of(name: str, tmp_path: Path) -> None:
    """Windows, latents, biases, experts, state and a tower that no text comes by: loaded in bfloat16 where this
    machine multiplies it, rounded, written, loaded again.
    """
    pytest.importorskip(f"inference_pio.models.{name}")
    subject = Subject.of(name, tmp_path, collected={})
    source, out = Path(subject.checkpoint(subject.case.typical)), tmp_path / "out"
    written = quantize_model(str(source), out, QUICK, usual_text())
    assert written.compensated >= 7
    with LLM(str(out), kv_cache_memory_gb=0.05, max_model_len=64) as llm:
        answer = llm.generate("hello", SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True))
        assert len(answer[0].outputs[0].token_ids) == 4


def test_less_is_lost_than_by_rounding_to_nearest(stories: Path, tmp_path: Path) -> None:
    """On stories that the model tells itself: some to calibrate with, others to be judged by. So small a model has
    little to make up with; what it has of it is a quarter at least.
    """
    params = [SamplingParams(temperature=1.0, max_tokens=300, seed=seed) for seed in range(24)]
    with LLM(str(stories), dtype="float32", kv_cache_memory_gb=0.05) as llm:
        told = [one.outputs[0] for one in llm.generate([""] * len(params), params)]
    text, judges = " ".join(one.text for one in told[:16]), [[1, *one.token_ids] for one in told[16:]]

    def nll(path: Path, dtype: str) -> float:
        with scored(path, dtype) as loaded, ops.use("reference"):
            return torch.cat([accuracy.score(loaded, ids).nll for ids in judges]).mean().item()

    exact = nll(stories, "float32")
    lost = {}
    for method in ("rtn", "gptq"):
        out = tmp_path / f"{method}.gguf"
        quantize_model(str(stories), out, Recipe(4, 64, method), text)
        lost[method] = nll(out, "auto") - exact
    assert lost["rtn"] > 0.04
    assert lost["gptq"] <= 0.75 * lost["rtn"], lost


@pytest.mark.slow
@pytest.mark.weights
def test_half_is_kept_of_smollm2_at_least(smollm2_path: Path, tmp_path: Path) -> None:
    """Of weights expanded from its file, in groups of 128, on a text that the calibration text does not contain."""
    text = TEXT.read_text(encoding="utf-8")

    def nll(path: Path, dtype: str) -> float:
        with scored(path, dtype) as loaded:
            return accuracy.score(loaded, loaded.plugin.tokenize(text)[:512]).nll.mean().item()

    exact = nll(smollm2_path, "float32")
    lost = {}
    for method in ("rtn", "gptq"):
        out = tmp_path / f"{method}.gguf"
        quantize_model(str(smollm2_path), out, Recipe(4, 128, method, 1024, again=True), usual_text())
        lost[method] = nll(out, "auto") - exact
    assert lost["rtn"] > 0.1
    assert lost["gptq"] <= 0.5 * lost["rtn"], lost


def test_weights_that_have_as_few_bits_are_rounded_on_request_only(stories: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    quantize_model(str(stories), first, Recipe(method="rtn"), "")
    with pytest.raises(
        UsageError, match=r"first has no weight that 4 bits would make smaller; --again rounds"
    ):
        quantize_model(str(first), second, Recipe(method="rtn"), "")
    assert not second.exists()
    written = quantize_model(str(first), second, Recipe(method="rtn", group_size=64, again=True), "")
    assert written.nearest == 30
    assert written.nbytes == written.source_bytes


def test_where_a_text_says_nothing_of_any_weight_none_is_needed(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference_pio.runtime.quantizing.seen_targets", lambda *_: {})
    written = quantize_model(str(stories), tmp_path / "out.gguf", Recipe(), "")
    assert (written.compensated, written.nearest, written.tokens) == (0, 31, 0)


def test_rounding_to_nearest_is_that_of_the_option_quantize(stories: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    quantize_model(str(stories), out, Recipe(4, 64, "rtn"), "")
    with open_checkpoint(stories) as source, open_checkpoint(out) as found:
        name = "blk.2.attn_q.weight"
        assert torch.equal(found.read_blocks(name), quantize_rows(source.read(name), "Q4_1", 64))


@pytest.mark.parametrize(
    ("text", "tokens", "words"),
    [
        ("Once upon a time.", None, "has 5 tokens, 256 are the least that says anything: give a longer one"),
        ("Once upon a time. " * 99, 5000, "tokens, 5000 were asked for: give a longer one"),
    ],
)
def test_a_text_that_is_too_short(
    stories: Path, tmp_path: Path, text: str, tokens: int | None, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        quantize_model(str(stories), tmp_path / "out.gguf", Recipe(tokens=tokens), text)
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(stories: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_text("mine")
    with pytest.raises(UsageError, match=r"out.gguf is there already: remove it, or give another name"):
        quantize_model(str(stories), out, QUICK, usual_text())
    assert out.read_text() == "mine"
    with pytest.raises(UsageError, match="cannot be written: there is no folder"):
        quantize_model(str(stories), tmp_path / "no" / "out.gguf", QUICK, usual_text())


@pytest.mark.parametrize("source", ["stories", "tiny"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_nothing_is_left_of_what_was_not_finished(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    stop: BaseException,
) -> None:
    written = []

    def write(self: TensorsOut, name: str, *_: object) -> None:  # noqa: ARG001
        written.append(name)
        if len(written) == 4:
            assert list(tmp_path.iterdir()) == [tmp_path / "out.part"]
            raise stop

    monkeypatch.setattr(TensorsOut, "write", write)
    expected = KeyboardInterrupt if isinstance(stop, KeyboardInterrupt) else UnavailableError
    with pytest.raises(expected) as failure:
        quantize_model(str(request.getfixturevalue(source)), tmp_path / "out", QUICK, usual_text())
    assert len(written) == 4
    assert not list(tmp_path.iterdir())
    if expected is UnavailableError:
        said = f"{tmp_path / 'out'} cannot be written: No space left on device; nothing of it is left"
        assert str(failure.value) == said


def test_a_disk_without_room_is_told_before_anything_is_computed(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference_pio.loader.draft.free_bytes", lambda _: 1000)
    with pytest.raises(
        UnavailableError, match=r"does not fit the disk: 0\.\d MB needed, 0\.0 MB free; free some"
    ):
        quantize_model(str(stories), tmp_path / "out.gguf", Recipe(method="rtn"), "")
    assert not list(tmp_path.iterdir())


def test_memory_that_does_not_suffice_is_told_with_the_arithmetic(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference_pio.runtime.quantizing.available_bytes", lambda: 2_000_000)
    with pytest.raises(
        ResourceError,
        match=r"weights 0\.00 \+ 8192 tokens .* GB free memory; use fewer --tokens, or --method rtn",
    ):
        quantize_model(str(stories), tmp_path / "out.gguf", Recipe(), usual_text())
    assert not list(tmp_path.iterdir())


def test_progress_goes_up_to_all_that_is_rounded(stories: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int, what: str) -> None:
        if what == "rounding weights":
            told.append((done, total))

    quantize_model(str(stories), tmp_path / "out.gguf", QUICK, usual_text(), progress=tell)
    done = [first for first, _ in told]
    assert done == sorted(done)
    assert len(done) == 31
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bits": 3}, "bits must be 4 or 8, got 3"),
        ({"group_size": 256}, "the group size must be 32, 64 or 128, got 256"),
        ({"method": "awq"}, "method must be gptq or rtn, got 'awq'"),
        ({"tokens": 12}, "tokens must be at least 256, got 12"),
    ],
)
def test_a_recipe_that_cannot_be(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Recipe(**changes)
