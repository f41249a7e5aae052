"""Greedy tokens through the whole product equal those of Transformers' `generate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from inference_pio import LLM, SamplingParams
from inference_pio.conformance.numbers import token_ids
from inference_pio.conformance.subject import Subject
from support.bridged import TINY

_COUNT = 24
_GREEDY = SamplingParams(temperature=0.0, max_tokens=_COUNT, ignore_eos=True)


@pytest.mark.parametrize("model_type", TINY)
def test_greedy_tokens_equal_transformers(model_type: str, subject: Subject) -> None:
    """Chunked prefill beside decoding, several sequences, longer than the windows; twice, the second time with hits."""
    prompts = [token_ids(length, 272, seed) for seed, length in enumerate((3, 40, 17))]
    expected = [subject.reference(model_type).generate(prompt, _COUNT) for prompt in prompts]  # type: ignore[attr-defined]
    with LLM(
        str(subject.checkpoint(model_type)),
        dtype="float32",
        plugin="transformers",
        skip_tokenizer_init=True,
        max_num_batched_tokens=16,
        block_size=16,
        kv_cache_memory_gb=0.02,
    ) as llm:
        for hits in (0, 32 + 16):
            before = llm.plugin.get_compute_stats()["prefix_cache_hit_tokens"]
            results = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], _GREEDY)
            assert [result.outputs[0].token_ids for result in results] == expected
            assert llm.plugin.get_compute_stats()["prefix_cache_hit_tokens"] - before == hits


@pytest.mark.parametrize("options", [{"kv_cache_dtype": "int8"}, {"dtype": "bfloat16"}], ids=["int8", "bf16"])
@pytest.mark.parametrize("model_type", ["olmo2", "qwen2_moe", "deepseek_v3"])
def test_other_formats_answer(model_type: str, options: dict[str, str], subject: Subject) -> None:
    path = str(subject.checkpoint(model_type))
    with LLM(
        path,
        **{"dtype": "float32", "plugin": "transformers", "kv_cache_memory_gb": 0.02, **options},  # type: ignore[arg-type]
    ) as llm:
        answer = llm.generate("once upon a time", _GREEDY)[0].outputs[0]
    assert len(answer.token_ids) == _COUNT
    expected = subject.reference(model_type).generate(llm_prompt(path), _COUNT)  # type: ignore[attr-defined]
    # Rounded to 8 or 16 bits random weights part from float32 sooner or later, and not at once.
    assert answer.token_ids[:2] == expected[:2]


def llm_prompt(path: str) -> list[int]:
    from inference_pio.text.tokenizer import Tokenizer

    return Tokenizer.from_directory(Path(path)).encode("once upon a time", add_special_tokens=True)


def test_a_stuck_user_is_not_stuck(
    checkpoint: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Without asking for anything: text in, text out, and one line that says what runs it and what that costs."""
    with LLM(str(checkpoint("olmo2")), dtype="float32", kv_cache_memory_gb=0.02) as llm:
        assert llm.plugin.manifest.name == "transformers"
        assert llm.chat([{"role": "user", "content": "hello"}], _GREEDY)[0].outputs[0].text
    lines = [record.getMessage() for record in caplog.records if record.name == "inference_pio"]
    assert len(lines) == 1
    assert "olmo2" in lines[0]
    assert "Transformers' own modules" in lines[0]
    assert "no quantised weights, GGUF files, recorded steps or tensor parallelism" in lines[0]
