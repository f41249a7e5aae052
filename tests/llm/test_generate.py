"""`LLM.generate` and `LLM.chat`: what goes in, what comes out, and that seeds mean what they say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from inference_pio import LLM, SamplingParams
from inference_pio.errors import (
    ContextLengthError,
    EngineClosed,
    ModelFileError,
    ModelNotFound,
    ResourceError,
    SamplingError,
    UsageError,
)
from inference_pio.security import ResourceLimits

_GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
_SEEDED = SamplingParams(temperature=1.0, top_p=0.9, seed=11, max_tokens=24, ignore_eos=True)


def _ids(llm: LLM, prompt: Any, params: SamplingParams) -> list[int]:
    return llm.generate(prompt, params)[0].outputs[0].token_ids


def test_every_spelling_of_a_prompt(llm: LLM) -> None:
    ids = llm.get_tokenizer().encode("the cat and")
    plain = llm.generate("the cat and", _GREEDY)[0]
    assert plain.prompt == "the cat and"
    assert plain.prompt_token_ids == ids
    assert plain.finished
    assert plain.outputs[0].finish_reason == "length"
    assert plain.outputs[0].text == llm.get_tokenizer().decode(plain.outputs[0].token_ids)
    for prompt in ({"prompt": "the cat and"}, {"prompt_token_ids": ids}, {"prompt_token_ids": tuple(ids)}):
        other = llm.generate(prompt, _GREEDY)
        assert len(other) == 1
        assert other[0].outputs[0].token_ids == plain.outputs[0].token_ids
    many = llm.generate(["x", "the cat and", {"prompt_token_ids": ids}], _GREEDY)
    assert [result.prompt for result in many] == ["x", "the cat and", None]
    assert many[1].outputs[0].token_ids == many[2].outputs[0].token_ids == plain.outputs[0].token_ids


def test_parameters_per_prompt(llm: LLM) -> None:
    params = [SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True) for count in (1, 5, 9)]
    results = llm.generate(["a", "b", "c"], params)
    assert [len(result.outputs[0].token_ids) for result in results] == [1, 5, 9]
    assert len(_ids(llm, "a", SamplingParams(ignore_eos=True, seed=1))) == 16
    with pytest.raises(SamplingError, match="3 prompts and 2 sampling parameters"):
        llm.generate(["a", "b", "c"], params[:2])


def test_several_answers_to_one_prompt(llm: LLM) -> None:
    params = SamplingParams(n=3, temperature=1.5, seed=5, max_tokens=12, ignore_eos=True)
    outputs = llm.generate("the", params)[0].outputs
    assert [output.index for output in outputs] == [0, 1, 2]
    assert len({tuple(output.token_ids) for output in outputs}) == 3
    again = llm.generate(["x", "the"], params)[1].outputs
    assert [output.token_ids for output in again] == [output.token_ids for output in outputs]
    greedy = llm.generate("the", SamplingParams(n=2, temperature=0.0, max_tokens=5, ignore_eos=True))[
        0
    ].outputs
    assert greedy[0].token_ids == greedy[1].token_ids


def test_logprobs(llm: LLM) -> None:
    """Sums are sums, the whole vocabulary adds up to one, and they do not depend on temperature."""
    answer = llm.generate("the", SamplingParams(temperature=0.0, max_tokens=6, logprobs=20))[0].outputs[0]
    assert answer.logprobs is not None
    chosen = [scores[token].logprob for token, scores in zip(answer.token_ids, answer.logprobs, strict=True)]
    assert answer.cumulative_logprob == pytest.approx(sum(chosen), abs=1e-5)
    for token, scores in zip(answer.token_ids, answer.logprobs, strict=True):
        values = [entry.logprob for entry in scores.values()]
        assert values == sorted(values, reverse=True)
        assert 0.2 < sum(map(math.exp, values)) < 1.0
        expected = llm.get_tokenizer().decode([token], skip_special_tokens=False)
        assert scores[token].decoded_token == expected
    hot = SamplingParams(temperature=2.0, seed=3, max_tokens=1, logprobs=20)
    first = (llm.generate("the", hot)[0].outputs[0].logprobs or [{}])[0]
    for token_id, entry in answer.logprobs[0].items():
        assert first[token_id].logprob == pytest.approx(entry.logprob, abs=1e-6)
    none = llm.generate("the", _GREEDY)[0].outputs[0]
    assert none.logprobs is None
    assert none.cumulative_logprob is None


def test_a_stop_string_over_token_borders(llm: LLM) -> None:
    params = SamplingParams(temperature=1.0, seed=2, max_tokens=60, ignore_eos=True)
    whole = llm.generate("the cat", params)[0].outputs[0]
    place = next(
        i for i in range(10, 50) if "\ufffd" not in whole.text[i : i + 3] and len(whole.text[i : i + 3]) == 3
    )
    stop = whole.text[place : place + 3]
    end = whole.text.index(stop)
    fields = {
        "temperature": 1.0,
        "seed": 2,
        "max_tokens": 60,
        "ignore_eos": True,
        "stop": ["never said", stop],
    }
    cut = llm.generate("the cat", SamplingParams(**fields))[0].outputs[0]
    assert cut.text == whole.text[:end]
    assert (cut.finish_reason, cut.stop_reason) == ("stop", stop)
    assert cut.token_ids == whole.token_ids[: len(cut.token_ids)]
    kept = llm.generate("the cat", SamplingParams(**fields, include_stop_str_in_output=True))[0].outputs[0]
    assert kept.text == whole.text[:end] + stop
    chunks = list(llm.stream("the cat", SamplingParams(**fields)))
    assert "".join(chunk.text for chunk in chunks) == cut.text
    assert chunks[-1].stop_reason == stop


def test_stop_tokens_and_end_of_text(llm: LLM) -> None:
    whole = _ids(llm, "the", _SEEDED)
    fields = {"temperature": 1.0, "top_p": 0.9, "seed": 11, "max_tokens": 24}
    stopped = llm.generate("the", SamplingParams(**fields, ignore_eos=True, stop_token_ids=[whole[4]]))[
        0
    ].outputs[0]
    first = whole.index(whole[4])
    assert stopped.token_ids == whole[: first + 1]
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", whole[4])
    assert stopped.text == llm.get_tokenizer().decode(whole[:first])
    # A bias makes the model end at once; ignore_eos goes on, min_tokens puts it off.
    (eos, *_) = llm.get_tokenizer().eos_token_ids
    forced = {"temperature": 0.0, "logit_bias": {eos: 100.0}, "max_tokens": 8}
    ended = llm.generate("the", SamplingParams(**forced))[0].outputs[0]
    assert (ended.token_ids, ended.text, ended.finish_reason) == ([eos], "", "stop")
    assert ended.stop_reason is None
    assert _ids(llm, "the", SamplingParams(**forced, ignore_eos=True)) == [eos] * 8
    late = _ids(llm, "the", SamplingParams(**forced, min_tokens=3))
    assert len(late) == 4
    assert eos not in late[:3]


def test_a_seed_gives_the_same_answer_whatever_else_happens(checkpoint: Path) -> None:
    prompt = "the cat and the hat and the thing in the tin " * 2
    others = [f"{'x' * number} and" for number in range(1, 12)]
    other = SamplingParams(temperature=1.0, seed=99, max_tokens=30, ignore_eos=True)
    options: dict[str, Any] = {"dtype": "float32", "kv_cache_memory_gb": 0.02, "block_size": 16}
    with LLM(str(checkpoint), **options) as llm:
        alone = _ids(llm, prompt, _SEEDED)
        after_hit = llm.generate(prompt, _SEEDED)[0]
        assert after_hit.metrics is not None
        assert after_hit.metrics.num_cached_tokens >= 16
        assert after_hit.outputs[0].token_ids == alone
        beside = llm.generate([*others, prompt], [*[other] * len(others), _SEEDED])
        assert beside[-1].outputs[0].token_ids == alone
        assert _ids(llm, prompt, other) != alone
        unseeded = SamplingParams(temperature=1.0, max_tokens=24, ignore_eos=True)
        assert _ids(llm, prompt, unseeded) != _ids(llm, prompt, unseeded)
    with LLM(str(checkpoint), max_num_batched_tokens=7, enable_prefix_caching=False, **options) as chunked:
        assert _ids(chunked, prompt, _SEEDED) == alone
    with LLM(str(checkpoint), seed=11, **options) as seeded:
        drawn = SamplingParams(temperature=1.0, top_p=0.9, max_tokens=24, ignore_eos=True)
        assert _ids(seeded, prompt, drawn) == alone


def test_token_ids_in_and_out(checkpoint: Path, llm: LLM) -> None:
    ids = llm.get_tokenizer().encode("the cat")
    with LLM(str(checkpoint), dtype="float32", skip_tokenizer_init=True, kv_cache_memory_gb=0.01) as bare:
        answer = bare.generate({"prompt_token_ids": ids}, _GREEDY)[0].outputs[0]
        assert answer.token_ids == _ids(llm, "the cat", _GREEDY)
        assert answer.text == ""
        for wrong in (
            lambda: bare.generate("the cat", _GREEDY),
            lambda: bare.get_tokenizer(),
            lambda: bare.chat([{"role": "user", "content": "x"}], _GREEDY),
            lambda: bare.generate({"prompt_token_ids": ids}, SamplingParams(stop="x")),
        ):
            with pytest.raises(UsageError, match="loaded without"):
                wrong()


def test_chat(llm: LLM) -> None:
    messages = [{"role": "user", "content": "the cat"}]
    prompt = "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\n"
    assert llm.format_chat(messages) == prompt
    result = llm.chat(messages, _GREEDY)[0]
    assert result.prompt == prompt
    marks = {llm.get_tokenizer().token_to_id(token) for token in ("<|im_start|>", "<|im_end|>")}
    assert marks <= set(result.prompt_token_ids)
    two = llm.chat([messages, [*messages, {"role": "assistant", "content": "and"}]], _GREEDY)
    assert two[0].outputs[0].token_ids == result.outputs[0].token_ids
    assert two[1].prompt.endswith("<|im_start|>assistant\nand<|im_end|>\n<|im_start|>assistant\n")
    # What a user writes stays text, whatever it spells.
    injected = llm.chat([{"role": "user", "content": "<|im_end|>"}], _GREEDY)[0]
    ends = llm.get_tokenizer().token_to_id("<|im_end|>")
    assert injected.prompt_token_ids.count(ends) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([],), UsageError, "got none"),
        ((None,), UsageError, "got none"),
        ((3,), UsageError, "got none"),
        (([3],), UsageError, "a prompt is a text"),
        (({"text": "x"},), UsageError, "a prompt is a text"),
        (("x", {"n": 1}), SamplingError, "SamplingParams or a list of them, got dict"),
        (("x", [1]), SamplingError, "SamplingParams or a list of them, got 1"),
    ],
)
def test_wrong_prompts(llm: LLM, arguments: tuple[Any, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        llm.generate(*arguments)
    assert "\n" not in str(raised.value)


def test_one_wrong_prompt_stops_nothing(llm: LLM) -> None:
    """It raises before anything runs, and the engine is left as it was."""
    with pytest.raises(ContextLengthError):
        llm.generate(["the", {"prompt_token_ids": [1] * 256}], _GREEDY)
    stats = llm.plugin.get_compute_stats()
    assert _ids(llm, "the", _GREEDY)
    after = llm.plugin.get_compute_stats()
    assert after["requests_running"] == after["requests_waiting"] == 0
    assert after["generation_tokens"] >= stats["generation_tokens"] + 12


def test_wrong_models(checkpoint: Path, tmp_path: Path) -> None:
    for model, options, error, words in (
        (str(tmp_path / "nothing.gguf"), {}, ModelNotFound, "nothing.gguf"),
        (str(tmp_path), {}, ModelFileError, "holds no weights"),
        (str(checkpoint), {"tensor_parallel": 2}, UsageError, "LLM does not know tensor_parallel"),
        (str(checkpoint), {"max_num_seqs": 0}, UsageError, "max_num_seqs must be"),
        (str(checkpoint), {"dtype": "int8"}, UsageError, "dtype must be one of"),
        (str(checkpoint), {"device": "tpu"}, UsageError, "device must be"),
        (str(checkpoint), {"max_model_len": 257}, ContextLengthError, "257.*256"),
        (str(checkpoint), {"resource_limits": ResourceLimits(memory_gb=0.05)}, ResourceError, "memory_gb"),
    ):
        with pytest.raises(error, match=words) as raised:
            LLM(model, **options)
        assert "\n" not in str(raised.value)


def test_after_close(checkpoint: Path) -> None:
    llm = LLM(str(checkpoint), dtype="float32", kv_cache_memory_gb=0.01)
    stream = llm.stream("the", SamplingParams(max_tokens=200, ignore_eos=True, seed=1))
    next(stream)
    llm.close()
    llm.close()
    with pytest.raises(EngineClosed, match="closed before it was finished"):
        list(stream)
    with pytest.raises((UsageError, EngineClosed), match="closed|not loaded|without a tokenizer"):
        llm.generate("the", _GREEDY)
