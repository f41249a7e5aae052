"""Updates of several tokens, as speculation makes them, against the same tokens one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference_pio.conformance.tiny_tokenizer import write_tokenizer
from inference_pio.engine.stream import Mailbox, RequestStream
from inference_pio.engine.updates import SequenceUpdate
from inference_pio.outputs import CompletionOutput, FinishReason, Logprob, StreamChunk
from inference_pio.runtime.requests import Answers
from inference_pio.sampling_params import SamplingParams
from inference_pio.text.tokenizer import Tokenizer

TEXT = "and the caf\u00e9 in the inn: STOP here"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return Tokenizer.from_directory(folder)


def answered(
    tokenizer: Tokenizer | None,
    ids: list[int],
    size: int,
    *,
    finish_reason: FinishReason | None = "length",
    stop_reason: int | None = None,
    **fields: Any,
) -> tuple[CompletionOutput, list[StreamChunk], bool]:
    """What becomes of these ids in updates of `size`, in chunks too, and whether the engine was told to stop."""
    told: list[bool] = []
    mailbox = Mailbox(1)
    stream = RequestStream("r", mailbox, lambda: told.append(True))
    params = SamplingParams(**{"max_tokens": None, **fields})
    answers = Answers(stream, "", [], params, tokenizer, 0.0)
    chunks = []
    for start in range(0, len(ids), size):
        part, last = ids[start : start + size], start + size >= len(ids)
        scores = [{token: Logprob(-1.0 - start - i, 1)} for i, token in enumerate(part)]
        update = SequenceUpdate(
            "r",
            0,
            tuple(part),
            0,
            logprobs=scores if params.logprobs is not None else None,
            finish_reason=finish_reason if last else None,
            stop_reason=stop_reason if last else None,
        )
        chunk = answers.take(update)
        if chunk is not None:
            chunks.append(chunk)
    return answers.outputs[0], chunks, bool(told)


@pytest.mark.parametrize("size", [2, 3, 5, 8, 100])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stop": "STOP"},
        {"stop": ["inn", "é in"], "include_stop_str_in_output": True},
        {"stop": "a"},
        {"stop": "never", "logprobs": 0},
        {"stop": "the c", "logprobs": 0},
    ],
)
def test_several_tokens_at_once_are_as_good_as_one_by_one(
    tokenizer: Tokenizer, size: int, fields: dict[str, Any]
) -> None:
    ids = tokenizer.encode(TEXT)
    expected, _, _ = answered(tokenizer, ids, 1, **fields)
    output, chunks, told = answered(tokenizer, ids, size, **fields)
    assert output == expected
    assert "".join(chunk.text for chunk in chunks) == output.text
    assert [token for chunk in chunks for token in chunk.token_ids] == output.token_ids
    assert [score for chunk in chunks for score in chunk.logprobs or ()] == (output.logprobs or [])
    assert (chunks[-1].finish_reason, chunks[-1].stop_reason) == (output.finish_reason, output.stop_reason)
    assert told == output.finished()


def test_tokens_behind_the_one_that_completes_a_stop_string_are_not_counted(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the hat and the end")
    output, chunks, told = answered(tokenizer, ids, 100, stop="hat", logprobs=0)
    assert (output.text, output.finish_reason, output.stop_reason) == ("the ", "stop", "hat")
    assert tokenizer.decode(output.token_ids) == "the hat"
    assert output.logprobs is not None
    assert len(output.logprobs) == len(output.token_ids) < len(ids)
    assert output.cumulative_logprob == -sum(range(1, len(output.token_ids) + 1))
    assert len(chunks) == 1
    assert told


def test_a_stop_string_before_a_stop_token_of_the_same_update_is_what_ended_it(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("one two!")
    ended = {"finish_reason": "stop", "stop_reason": ids[-1]}
    output, _, _ = answered(tokenizer, ids, 100, stop="two", **ended)
    assert (output.text, output.stop_reason, output.token_ids) == ("one ", "two", ids[:-1])
    output, _, _ = answered(tokenizer, ids, 100, stop="two!", **ended)
    assert (output.text, output.stop_reason, output.token_ids) == ("one two", ids[-1], ids)


def test_without_a_tokenizer_everything_stays() -> None:
    output, _, _ = answered(None, [1, 2, 3, 4], 3)
    assert (output.token_ids, output.text) == ([1, 2, 3, 4], "")
