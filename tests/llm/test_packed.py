"""A model whose weights stay in blocks, through the whole product: memory, recorded steps, engines side by side."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from inference_pio import LLM, SamplingParams, ops
from inference_pio.conformance.subject import Subject
from inference_pio.engine.replay import StepReplay
from inference_pio.engine.runner import ModelRunner
from inference_pio.errors import ConfigError, ResourceError, UsageError
from inference_pio.layers import Linear, VocabParallelEmbedding
from inference_pio.ops import native
from inference_pio.plugin.batch import ForwardBatch
from requantize import requantize

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
GREEDY = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True)
PROMPTS = [{"prompt_token_ids": [3 + (7 * n + i) % 200 for i in range(length)]} for n, length in
           enumerate((1, 5, 40, 1, 90))]  # fmt: skip
OPTIONS: dict[str, Any] = {"skip_tokenizer_init": True, "kv_cache_memory_gb": 0.02, "block_size": 16}


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject.of("llama", tmp_path_factory.mktemp("packed"), collected={})


@pytest.fixture(scope="module")
def packed(subject: Subject) -> Path:
    """An untied head; gate and up of different kinds in one layer, so that both ways to multiply them run."""

    def kind_of(name: str) -> str:
        kinds = {"token_embd": "Q8_0", "attn_v": "Q5_1", "ffn_down": "Q4_1", "output": "Q8_0"}
        if name == "blk.1.ffn_up.weight":
            return "Q5_0"
        return kinds.get(name.removesuffix(".weight").rpartition(".")[2], "Q8_0")

    return requantize(subject.checkpoint("grouped", "gguf"), subject.workdir / "packed.gguf", kind_of)


@pytest.fixture(scope="module")
def tied(subject: Subject) -> Path:
    return requantize(
        subject.checkpoint("multi-head", "gguf"), subject.workdir / "tied.gguf", lambda _: "Q8_0"
    )


def answers(llm: LLM, params: SamplingParams = GREEDY) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, params)]


@pytest.fixture
def runners(monkeypatch: pytest.MonkeyPatch) -> list[ModelRunner]:
    """Every runner that is made."""
    made: list[ModelRunner] = []
    original = ModelRunner.__init__

    def noted(self: ModelRunner, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        made.append(self)

    monkeypatch.setattr(ModelRunner, "__init__", noted)
    return made


def model_of(llm: LLM) -> Any:
    return llm.plugin.runtime._model


def replay_of(runner: ModelRunner) -> StepReplay:
    return runner._replay


# Weights and memory -------------------------------------------------------------------------------------------------


def test_auto_keeps_the_blocks_and_a_named_dtype_does_not(packed: Path) -> None:
    with LLM(str(packed), **OPTIONS) as llm:
        kept = llm.plugin.get_memory_stats()["weights_bytes"]
        modules = [m for m in model_of(llm).modules() if isinstance(m, Linear | VocabParallelEmbedding)]
        assert all(isinstance(module.packed, ops.QuantizedWeight) for module in modules)
        packed_bytes = sum(module.packed.nbytes for module in modules)
        plain = sum(p.nbytes for p in model_of(llm).parameters())
    assert kept == packed_bytes + plain, "each weight once, the embedding too"
    with LLM(str(packed), dtype="float32", **OPTIONS) as llm:
        dense = llm.plugin.get_memory_stats()["weights_bytes"]
        modules = [m for m in model_of(llm).modules() if isinstance(m, Linear)]
        assert not any(isinstance(module.packed, ops.QuantizedWeight) for module in modules)
    assert kept < 0.35 * dense


def test_the_plan_is_what_then_lies_in_memory(packed: Path) -> None:
    with LLM(str(packed), **OPTIONS) as llm:
        plan = llm.plugin.runtime.plan
        kept = llm.plugin.get_memory_stats()["weights_bytes"]
        stored = llm.plugin.get_disk_stats()["model_bytes"]
    assert kept == plan.weights
    assert 0 < plan.loading < stored


def test_a_tied_head_takes_no_second_place(tied: Path) -> None:
    with LLM(str(tied), **OPTIONS) as llm:
        model = model_of(llm)
        assert model.lm_head.packed.address == model.model.embed_tokens.packed.address


def test_keys_and_values_are_bfloat16_beside_blocks_unless_asked(packed: Path) -> None:
    with LLM(str(packed), **OPTIONS) as llm:
        half = llm.plugin.runtime.plan.kv_bytes_per_token
    with LLM(str(packed), kv_cache_dtype="float32", **OPTIONS) as llm:
        assert llm.plugin.runtime.plan.kv_bytes_per_token == 2 * half
        assert len(answers(llm)[0]) == 20
    words = (
        "kv_cache_dtype float32 goes with float32 activations on a CPU, not with bfloat16 on cpu: use .* auto"
    )
    with pytest.raises(ConfigError, match=words):
        LLM(str(packed), dtype="bfloat16", kv_cache_dtype="float32", **OPTIONS)
    with pytest.raises(UsageError, match="kv_cache_dtype must be one of auto, float32, bfloat16, int8, int4"):
        LLM(str(packed), kv_cache_dtype="int3", **OPTIONS)


def test_answers_follow_the_dequantised_model(packed: Path) -> None:
    """Logits of the packed model beside those of the same blocks in float32: close, as 8 bits of activations allow."""
    found = []
    for dtype in ("auto", "float32"):
        with LLM(str(packed), dtype=dtype, **OPTIONS) as llm:
            params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True, logprobs=5)
            found.append(llm.generate(PROMPTS[1:], params))
    for ours, exact in zip(*found, strict=True):
        [mine], [theirs] = (output.outputs[0].logprobs for output in (ours, exact))
        shared = mine.keys() & theirs.keys()
        assert len(shared) >= 4
        differences = [abs(mine[token].logprob - theirs[token].logprob) for token in shared]
        assert max(differences) < 0.25, differences


@pytest.mark.parametrize("asked", ["int8", "int4:64"])
def test_floats_quantised_at_load(subject: Subject, asked: str) -> None:
    path = str(subject.checkpoint("grouped"))
    with LLM(path, dtype="float32", **OPTIONS) as llm:
        dense = llm.plugin.get_memory_stats()["weights_bytes"]
    with LLM(path, quantize=asked, **OPTIONS) as llm:
        kept = llm.plugin.get_memory_stats()["weights_bytes"]
        assert kept == llm.plugin.runtime.plan.weights
        assert all(len(answer) == 20 for answer in answers(llm))
    assert kept < dense * {"int8": 0.32, "int4:64": 0.25}[asked]


def test_a_word_for_quantising_that_is_none(packed: Path) -> None:
    with pytest.raises(UsageError, match="quantize must be int8 or int4.*got 'int3'"):
        LLM(str(packed), quantize="int3", **OPTIONS)


def test_without_native_kernels_quantising_is_refused_and_blocks_become_dense(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "MISSING", "no compiler")
    with pytest.raises(ResourceError, match="quantize int8 needs the native kernels, on the CPU"):
        LLM(str(packed), quantize="int8", **OPTIONS)
    with LLM(str(packed), **OPTIONS) as llm:
        modules = [m for m in model_of(llm).modules() if isinstance(m, Linear)]
        assert not any(isinstance(module.packed, ops.QuantizedWeight) for module in modules)


# Recorded steps -----------------------------------------------------------------------------------------------------


def test_decoding_is_recorded_and_replayed(packed: Path, runners: list[ModelRunner]) -> None:
    """The first step decodes a prompt of one token; whatever it calls for the first time must not end recording."""
    with LLM(str(packed), speculation=0, **OPTIONS) as llm:
        llm.generate([PROMPTS[0]], SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True))
        [runner] = runners
        replay = replay_of(runner)
        assert replay.refused is None
        assert list(replay._steps) == [(1, 1)]
        calls: list[int] = []
        forward = replay._forward
        replay._forward = lambda batch: calls.append(len(batch.token_ids)) or forward(batch)
        llm.generate([PROMPTS[1]], SamplingParams(temperature=0.0, max_tokens=9, ignore_eos=True))
        assert calls == [5], "the model itself runs the prompt; its eight further steps are replayed"


@pytest.mark.parametrize("kv", ["auto", "int8"])
@pytest.mark.parametrize("speculation", [0, 15])
@pytest.mark.parametrize(
    "params", [GREEDY, SamplingParams(temperature=0.9, max_tokens=20, seed=5, ignore_eos=True)]
)
def test_tokens_are_the_same_without_replay(
    packed: Path,
    params: SamplingParams,
    speculation: int,
    kv: str,
    runners: list[ModelRunner],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five requests of different lengths: steps of many shapes, each recorded once."""
    with LLM(str(packed), speculation=speculation, kv_cache_dtype=kv, **OPTIONS) as llm:
        replayed = [answers(llm, params) for _ in range(2)]
        assert replay_of(runners[0])._steps
        assert replay_of(runners[0]).refused is None

    def plainly(self: StepReplay, batch: ForwardBatch) -> Tensor:
        return self._forward(batch)

    monkeypatch.setattr(StepReplay, "run", plainly)
    with LLM(str(packed), speculation=speculation, kv_cache_dtype=kv, **OPTIONS) as llm:
        plain = answers(llm, params)
    assert replayed == [plain, plain]


@pytest.mark.parametrize("kv", ["auto", "int8"])
def test_a_request_alone_gets_the_tokens_it_gets_in_company(packed: Path, kv: str) -> None:
    with LLM(str(packed), kv_cache_dtype=kv, **OPTIONS) as llm:
        together = answers(llm)
        alone = [llm.generate([prompt], GREEDY)[0].outputs[0].token_ids for prompt in PROMPTS]
    assert together == alone


def test_two_engines_in_one_process(packed: Path, tied: Path) -> None:
    """Each with its recordings, answering at the same time what they answer one after the other."""
    with LLM(str(packed), **OPTIONS) as one, LLM(str(tied), **OPTIONS) as two:
        wanted = {id(llm): answers(llm) for llm in (one, two)}
        found: dict[int, list[list[list[int]]]] = {id(llm): [] for llm in (one, two)}

        def repeat(llm: LLM) -> None:
            for _ in range(4):
                found[id(llm)].append(answers(llm))

        threads = [threading.Thread(target=repeat, args=(llm,)) for llm in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {key: [answer] * 4 for key, answer in wanted.items()}


def test_recordings_are_forgotten_with_their_engine(packed: Path, runners: list[ModelRunner]) -> None:
    with LLM(str(packed), **OPTIONS) as llm:
        answers(llm)
        [(_, step), *_] = replay_of(runners[0])._steps.values()
        number = step._number
    runners.clear()
    del llm, step, _
    gc.collect()
    with pytest.raises(RuntimeError, match=f"there is no recorded step {number}"):
        torch.ops.inference_pio.replay(number)


def test_a_model_that_calls_other_operations_runs_as_it_is_written(
    subject: Subject, runners: list[ModelRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    with LLM(str(subject.checkpoint("grouped")), dtype="float32", **OPTIONS) as llm:
        found = answers(llm)
        replay = replay_of(runners[0])
        assert replay.refused is not None
        assert replay.refused.startswith("the step calls ")
        assert not replay._steps
    monkeypatch.setattr(StepReplay, "run", lambda self, batch: self._forward(batch))
    with LLM(str(subject.checkpoint("grouped")), dtype="float32", **OPTIONS) as llm:
        assert answers(llm) == found
