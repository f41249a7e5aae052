"""Qwen3-Next from a path to text, and what is said of it before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference_pio import create_plugin, initialize_plugin
from inference_pio.cli.plan import _show
from inference_pio.conformance.subject import Subject
from inference_pio.conformance.tiny_tokenizer import END_OF_TURN
from inference_pio.engine.step_costs import DRAFT_COUNTS, StepCosts
from inference_pio.llm import LLM
from inference_pio.models.qwen3_next.config import Qwen3NextConfig
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.plan_only import plan_only
from inference_pio.sampling_params import SamplingParams
from inference_pio.security import ResourceLimits

_GREEDY = SamplingParams(temperature=0.0, max_tokens=20)
# 3 layers: 3 inputs of 2 · 64 + 96 channels, 8 matrices of 16 × 12, in float32.
_STATE = 3 * 4 * (3 * 224 + 8 * 16 * 12)
# Of each draft what the convolution takes and gives, and two numbers for each matrix.
_DRAFT = 3 * 4 * 2 * (224 + 8)


def test_one_file_and_many_give_the_same_answer(subject: Subject, tiny_llm: LLM) -> None:
    expected = tiny_llm.generate("the cat and the hat", _GREEDY)[0].outputs[0]
    path = str(subject.checkpoint("three-to-one", "sharded"))
    with LLM(path, dtype="float32", kv_cache_memory_gb=0.01) as llm:
        answer = llm.generate("the cat and the hat", _GREEDY)[0].outputs[0]
    assert (answer.token_ids, answer.text) == (expected.token_ids, expected.text)


def test_the_plugin_and_the_facade_answer_alike(tiny_path: Path, tiny_llm: LLM) -> None:
    plugin = create_plugin("qwen3_next")
    config = Qwen3NextConfig(
        model_path=str(tiny_path), torch_dtype="float32", do_sample=False, repetition_penalty=1.0
    )
    assert initialize_plugin(plugin, config=config, kv_cache_memory_gb=0.01)
    messages = [{"role": "user", "content": "the hat"}]
    prompt = f"<|im_start|>user\nthe hat{END_OF_TURN}\n<|im_start|>assistant\n"
    expected = tiny_llm.chat(messages, _GREEDY)[0]
    assert expected.prompt == prompt == plugin._format_chat_messages(messages)
    assert plugin.chat_completion(messages, max_new_tokens=20) == expected.outputs[0].text
    assert plugin.detokenize(plugin.tokenize("Grüße, 你好")) == "Grüße, 你好"
    plugin.cleanup()


def _planned(path: Path, limits: ResourceLimits | None = None, **options: int):
    return plan_only(str(path), "float32", "cpu", RuntimeOptions(**options), limits, None)


def test_the_plan_tells_states_from_tokens(tiny_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A snapshot for each of 3 · 256 / 32 blocks: more would not fit 128 MiB, but be of no use."""
    planned = _planned(tiny_path, max_num_seqs=3)
    plan = planned.prepared.plan
    assert (plan.num_seqs, plan.state_bytes_per_sequence) == (3, _STATE)
    assert (plan.num_snapshots, plan.snapshots) == (24, 24 * _STATE)
    # 15 drafts for each, and a block of tokens behind a snapshot's place.
    assert (plan.num_held, plan.held) == (77, 77 * _DRAFT)
    assert plan.state == 27 * _STATE + 77 * _DRAFT
    assert plan.kv_cache == plan.state + plan.kv_tokens * plan.kv_bytes_per_token
    assert plan.logit_rows == 3 + 45
    _show(planned)
    shown = capsys.readouterr().out
    assert "3 × 26.5 kB for a sequence" in shown
    assert "24 × 26.5 kB, states for later requests" in shown
    assert "77 × 5.6 kB, what each adds" in shown
    _show(_planned(tiny_path, speculation=0))
    assert "32 × 5.6 kB, what each adds" in capsys.readouterr().out


def test_snapshots_are_half_of_what_the_prefix_cache_may_keep(tiny_path: Path) -> None:
    """Rounded up to whole ones; unused blocks may fill the rest."""
    for most, snapshots in ((_STATE - 1, 0), (_STATE, 1), (5 * _STATE, 3), (6 * _STATE + 1, 4)):
        config = Qwen3NextConfig(model_path=str(tiny_path), torch_dtype="float32", prefix_cache_max_size=most)
        plugin = create_plugin("qwen3_next")
        assert plugin.initialize(config=config, kv_cache_memory_gb=0.01)
        plugin.load_model()
        sizes, plan = plugin.runtime._loop._core.config, plugin.runtime.plan
        assert (plan.num_snapshots, sizes.num_snapshots) == (snapshots, snapshots)
        left = (most - snapshots * _STATE) // (32 * plan.kv_bytes_per_token)
        assert sizes.prefix_cache_max_blocks == left
        plugin.cleanup()


def test_memory_is_what_the_plan_says(tiny_path: Path) -> None:
    with LLM(str(tiny_path), dtype="float32", max_num_seqs=3) as llm:
        plan = llm.plugin.runtime.plan
        assert llm.plugin.get_memory_stats()["kv_cache_reserved_bytes"] == plan.kv_cache
        stream = llm.stream({"prompt_token_ids": [1] * 9}, SamplingParams(max_tokens=200, ignore_eos=True))
        next(stream)
        used = llm.plugin.get_memory_stats()["kv_cache_used_bytes"]
        stream.close()
        assert used > _STATE
        assert (used - _STATE) % (32 * plan.kv_bytes_per_token) == 0
        assert llm.plugin.runtime._loop._core.config.max_num_seqs == 3


def test_scarce_memory_means_fewer_sequences(tiny_path: Path) -> None:
    """Of what is left half may be states: 64 sequences are asked for, as many run as have room for theirs.

    Of the rest half may be snapshots, as long as one sequence keeps its room.
    """
    fixed = _planned(tiny_path).prepared.plan
    room = 40 * _STATE + (63 + 32) * _DRAFT
    limit = ResourceLimits(memory_gb=(fixed.total - fixed.kv_cache + room + 1000) / 1e9)
    scarce = _planned(tiny_path, limit).prepared.plan
    assert (scarce.num_seqs, scarce.num_snapshots, scarce.fits) == (20, 10, True)
    assert scarce.kv_cache <= room
    whole = _planned(tiny_path, limit, max_model_len=256).prepared.plan
    assert (whole.num_seqs, whole.num_snapshots, whole.fits) == (20, 10, True)


@pytest.fixture
def always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where drafts cost nothing."""
    monkeypatch.setattr(StepCosts, "comparable", True)
    monkeypatch.setattr(
        StepCosts, "ratios", lambda _, most: [(count, 1.0) for count in DRAFT_COUNTS if count <= most]
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.0},
        {"temperature": 0.0, "logit_bias": {65: 90.0}},
        {"temperature": 0.3, "seed": 3, "top_k": 3, "logit_bias": {65: 90.0, 66: 90.0}},
        {"temperature": 1.0, "seed": 5, "n": 2, "logit_bias": {65: 90.0, 66: 90.0}},
    ],
)
def test_drafts_change_nothing_but_the_number_of_steps(
    tiny_path: Path,
    fields: dict[str, Any],
    always_worth_it: None,  # noqa: ARG001
) -> None:
    params = SamplingParams(max_tokens=60, ignore_eos=True, **fields)
    texts = ["aaaaaaaaaaaaaaaa", "the cat and the hat and the cat and the"]
    found = []
    for speculation in (0, 15):
        with LLM(str(tiny_path), dtype="float32", kv_cache_memory_gb=0.01, speculation=speculation) as llm:
            outputs = llm.generate(texts, params)
            found.append([answer.token_ids for output in outputs for answer in output.outputs])
            stats = llm.plugin.get_compute_stats()
    assert found[0] == found[1]
    if "logit_bias" in fields:
        assert stats["accepted_draft_tokens"] > 40
    assert stats["draft_tokens"] > stats["accepted_draft_tokens"] or fields["temperature"] == 0


def test_a_conversation_goes_on_where_it_was(tiny_path: Path) -> None:
    """The second turn computes what it adds, and what stood behind the last block's border of the first."""
    params = SamplingParams(temperature=0.0, max_tokens=50, ignore_eos=True)
    turns = [[1 + number % 60 for number in range(70)], [7, 8, 9] * 4]
    found = []
    for caching in (False, True):
        prompt: list[int] = []
        cached = []
        with LLM(
            str(tiny_path),
            dtype="float32",
            kv_cache_memory_gb=0.01,
            block_size=16,
            enable_prefix_caching=caching,
        ) as llm:
            for turn in turns:
                prompt = prompt + turn
                output = llm.generate({"prompt_token_ids": prompt}, params)[0]
                assert output.metrics is not None
                cached.append(output.metrics.num_cached_tokens)
                prompt = prompt + list(output.outputs[0].token_ids)
        found.append((prompt, cached))
    # The last of 120 tokens was never computed.
    assert found[0] == (found[1][0], [0, 0])
    assert found[1][1] == [0, 112]
