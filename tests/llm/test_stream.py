"""`LLM.stream`: the same text in pieces, cancelled by leaving, from any thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from inference_pio import LLM, SamplingParams


def _fields(**more: Any) -> SamplingParams:
    return SamplingParams(**{"temperature": 1.0, "seed": 4, "max_tokens": 60, "ignore_eos": True, **more})


@pytest.mark.parametrize(
    "params", [_fields(), _fields(temperature=0.0), _fields(logprobs=2), _fields(max_tokens=1)]
)
def test_pieces_are_the_whole(llm: LLM, params: SamplingParams) -> None:
    whole = llm.generate("the cat", params)[0].outputs[0]
    chunks = list(llm.stream("the cat", params))
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert [token_id for chunk in chunks for token_id in chunk.token_ids] == whole.token_ids
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == whole.finish_reason
    if params.logprobs is not None:
        assert [score for chunk in chunks for score in chunk.logprobs or []] == whole.logprobs


def test_several_answers_come_interleaved(llm: LLM) -> None:
    params = _fields(n=2, max_tokens=8)
    whole = llm.generate("the", params)[0].outputs
    chunks = list(llm.stream("the", params))
    for output in whole:
        own = [chunk for chunk in chunks if chunk.index == output.index]
        assert "".join(chunk.text for chunk in own) == output.text
    assert len({chunk.index for chunk in chunks[:6]}) == 2


def test_leaving_cancels(llm: LLM, idle: Callable[[LLM], bool]) -> None:
    before = llm.plugin.get_compute_stats()["generation_tokens"]
    stream = llm.stream("the", _fields(max_tokens=240))
    next(stream)
    stream.close()
    assert idle(llm)
    assert llm.plugin.get_compute_stats()["generation_tokens"] - before < 240


def test_an_interrupt_ends_everything(llm: LLM, idle: Callable[[LLM], bool]) -> None:
    """Ctrl-C while answers are awaited: every request is given up, and the model goes on working."""

    class Impatient:
        def __call__(self) -> None:
            raise KeyboardInterrupt

    expected = llm.generate("the", _fields())[0].outputs[0].token_ids
    params = [_fields(max_tokens=1), *[_fields(max_tokens=240)] * 5]
    with pytest.raises(KeyboardInterrupt):
        llm.plugin.runtime.generate(["the"] * 6, params, on_finished=Impatient())
    assert idle(llm)
    assert llm.generate("the", _fields())[0].outputs[0].token_ids == expected


def test_many_threads_share_one_model(llm: LLM, idle: Callable[[LLM], bool]) -> None:
    prompts = [f"{'the ' * number}cat" for number in range(1, 9)]
    alone = [llm.generate(prompt, _fields())[0].outputs[0] for prompt in prompts]

    def ask(number: int) -> str:
        prompt = prompts[number]
        if number % 2:
            return "".join(chunk.text for chunk in llm.stream(prompt, _fields()))
        return llm.generate(prompt, _fields())[0].outputs[0].text

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, [*range(8), *range(8)]))
    assert found == [output.text for output in alone] * 2
    assert idle(llm)
