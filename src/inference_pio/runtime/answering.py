"""Prompts in, answers out: many at once, one as it comes, or along answers that are given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from inference_pio.engine.script import Script
from inference_pio.outputs import RequestOutput, StreamChunk
from inference_pio.plugin.runtime import EncodedPrompt
from inference_pio.runtime.requests import Answers, run_all
from inference_pio.sampling_params import SamplingParams
from inference_pio.text.reading import AnswerReader, chunk_of

_NONE: frozenset[int] = frozenset()


class Submits(Protocol):
    """`LocalRuntime.submit`."""

    def __call__(
        self,
        prompt: EncodedPrompt,
        params: SamplingParams,
        changed: threading.Condition | None = None,
        kept: frozenset[int] = _NONE,
        *,
        whole: bool = False,
        script: Script | None = None,
    ) -> Answers: ...


def answer_all(
    submit: Submits,
    prompts: Sequence[EncodedPrompt],
    params: Sequence[SamplingParams],
    reader: AnswerReader | None,
    on_finished: Callable[[], None] | None,
) -> list[RequestOutput]:
    """Answers in the order of the prompts. One failed request does not keep the others from theirs; a single one
    raises.
    """
    answers: list[Answers] = []
    changed = threading.Condition()
    kept = reader.kept if reader else _NONE
    try:
        for prompt, wanted in zip(prompts, params, strict=True):
            answers.append(submit(prompt, wanted, changed, kept, whole=True))
        run_all(answers, changed, on_finished)
    finally:
        for answer in answers:
            answer.cancel()
    if len(answers) == 1 and answers[0].errors:
        raise answers[0].errors[0]
    results = [answer.result(str(index)) for index, answer in enumerate(answers)]
    if reader is not None:
        for prompt, result in zip(prompts, results, strict=True):
            for output in result.outputs:
                reader.read(prompt.text or "", output)
    return results


def answer_as_it_comes(
    submit: Submits, encode: Callable[[], EncodedPrompt], params: SamplingParams, reader: AnswerReader | None
) -> Iterator[StreamChunk]:
    """Chunks; closing the iterator cancels the request. A failed request raises."""
    prompt = encode()
    answer = submit(prompt, params, kept=reader.kept if reader else _NONE)
    if reader is None:
        yield from answer.chunks()
    else:
        parsers = [reader.parser(prompt.text or "") for _ in range(params.n)]
        for chunk in answer.chunks():
            yield chunk_of(parsers[chunk.index], chunk)
    if answer.errors:
        raise answer.errors[0]


def follow(
    submit: Submits, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[Tensor]:
    """Logits [tokens, vocab_size] in front of each token of each answer, all prompts at once, under everything that
    the engine does with them. It must draft nothing.
    """
    scripts = [Script(answer) for answer in answers]
    changed = threading.Condition()
    followed = []
    for ids, script in zip(prompts, scripts, strict=True):
        params = SamplingParams(temperature=0.0, max_tokens=len(script.token_ids), ignore_eos=True)
        followed.append(submit(EncodedPrompt(None, list(ids)), params, changed, whole=True, script=script))
    run_all(followed, changed, None)
    for answer in followed:
        if answer.errors:
            raise answer.errors[0]
    return [torch.stack(script.logits) for script in scripts]
