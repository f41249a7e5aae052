"""From engine updates to text: what one request has answered so far."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from inference_pio.engine.ledger import Usage
from inference_pio.engine.sequence import Known
from inference_pio.engine.stream import RequestStream, as_they_come
from inference_pio.engine.updates import SequenceUpdate
from inference_pio.errors import InferencePIOError
from inference_pio.outputs import (
    CacheExplanation,
    CompletionOutput,
    RequestMetrics,
    RequestOutput,
    StreamChunk,
    TokenLogprobs,
)
from inference_pio.runtime.explaining import in_words
from inference_pio.runtime.performance import Answered, CacheSize, request_performance
from inference_pio.sampling_params import SamplingParams
from inference_pio.text.stream import TextStream
from inference_pio.text.tokenizer import Tokenizer


class Answers:
    """Turns the updates of one request (its `n` answers) into chunks of whole characters, and adds them up."""

    def __init__(
        self,
        stream: RequestStream,
        prompt: str | None,
        prompt_token_ids: list[int],
        params: SamplingParams,
        tokenizer: Tokenizer | None,
        started: float,
        kept: frozenset[int] = frozenset(),
        cache: CacheSize | None = None,
    ) -> None:
        self.stream, self._prompt, self._ids = stream, prompt, prompt_token_ids
        self._tokenizer = tokenizer
        self._texts = (
            [TextStream(tokenizer, params, prompt_token_ids, kept) for _ in range(params.n)]
            if tokenizer
            else []
        )
        scored = params.logprobs is not None
        self.outputs = [
            CompletionOutput(index, "", [], 0.0 if scored else None, [] if scored else None)
            for index in range(params.n)
        ]
        self._stops = bool(params.stop_strings)
        self.errors: list[InferencePIOError] = []
        self._started = started
        self._cached = 0
        self._usage: Usage | None = None
        self._cache = cache
        self._explanation: CacheExplanation | None = None

    def resume(self, done: Known) -> None:
        """Go on behind what an earlier run of the request gave; nothing is told of it again."""
        for output, tokens in zip(self.outputs, done, strict=False):
            if tokens is None:
                output.finish_reason = "stop"  # told already
                continue
            output.token_ids += tokens
            for token_id in tokens if self._texts else ():
                output.text += self._texts[output.index].push([token_id])[0]

    @property
    def finished(self) -> bool:
        return all(output.finished() for output in self.outputs)

    def chunks(self) -> Iterator[StreamChunk]:
        """Chunks until every answer has ended; leaving early cancels the request."""
        try:
            for update in self.stream:
                chunk = self.take(update)
                if chunk is not None:
                    yield replace(chunk, metrics=self.metrics()) if self.finished else chunk
        finally:
            self.stream.cancel()

    def take(self, update: SequenceUpdate) -> StreamChunk | None:
        """What an update adds; None where a stop string had ended that answer and the engine was a step ahead."""
        output = self.outputs[update.index]
        if output.finished():
            return None
        chunk = self._chunk(update, output)
        if self.finished:
            self.stream.cancel()  # a stop string ends an answer here; the engine has yet to hear of it
        return chunk

    def cancel(self) -> None:
        """Give the request up; nothing happens where it has ended."""
        self.stream.cancel()

    def result(self, request_id: str) -> RequestOutput:
        return RequestOutput(request_id, self._prompt, self._ids, self.outputs, True, self.metrics())

    def metrics(self) -> RequestMetrics:
        """Figures of the request so far."""
        first = self.stream.first_update_at or self._started
        seconds = (self.stream.last_update_at or self._started) - self._started
        counts = tuple([len(output.token_ids) for output in self.outputs])  # of a list: see `joined`
        answered = Answered(self._started, seconds, counts, len(self._ids), self._cached)
        performance = request_performance(answered, self._usage, self._cache)
        return RequestMetrics(first - self._started, seconds, self._cached, self._explanation, performance)

    def _chunk(self, update: SequenceUpdate, output: CompletionOutput) -> StreamChunk:
        self._cached = max(self._cached, update.num_cached_tokens)
        self._usage = self._usage or update.usage
        told = None
        if self._explanation is None and update.cache is not None:
            told = self._explanation = in_words(update.cache, self._tokenizer)
        ids, reason = list(update.token_ids), update.finish_reason
        stop_reason: int | str | None = update.stop_reason
        text = ""
        if self._texts:
            # The token that ended the answer is not part of its text.
            shown = ids[:-1] if reason == "stop" else ids
            text, count, hit = self._pushed(self._texts[update.index], shown, one_by_one=self._stops)
            if hit is not None:
                ids, reason, stop_reason = ids[:count], "stop", hit
            elif reason is not None:
                text += self._texts[update.index].finish()
        scores = update.logprobs
        named = [self._named(score) for score in scores[: len(ids)]] if scores is not None else None
        output.text += text
        output.token_ids += ids
        output.finish_reason, output.stop_reason = reason, stop_reason
        if update.error is not None:
            output.error = str(update.error)
            self.errors.append(update.error)
        if named is not None and output.logprobs is not None:
            output.logprobs += named
            output.cumulative_logprob = (output.cumulative_logprob or 0.0) + sum(
                score[token_id].logprob for score, token_id in zip(named, ids, strict=True)
            )
        return StreamChunk(update.index, text, ids, named, reason, stop_reason, told)

    @staticmethod
    def _pushed(stream: TextStream, ids: list[int], *, one_by_one: bool) -> tuple[str, int, str | None]:
        """The text of new tokens up to a stop string, how many of them it took, and the stop string."""
        if not one_by_one:
            return stream.push(ids)[0], len(ids), None
        text = ""
        # One by one: an update may hold several tokens, and those behind a stop string are not part of the answer.
        for count, token_id in enumerate(ids, 1):
            piece, hit = stream.push([token_id])
            text += piece
            if hit is not None:
                return text, count, hit
        return text, len(ids), None

    def _named(self, score: TokenLogprobs) -> TokenLogprobs:
        if self._tokenizer is None:
            return score
        tokenizer = self._tokenizer
        return {
            token_id: replace(entry, decoded_token=tokenizer.token_bytes(token_id).decode("utf-8", "replace"))
            for token_id, entry in score.items()
        }


def run_all(
    answers: list[Answers], changed: threading.Condition, on_finished: Callable[[], None] | None
) -> None:
    """Take every request to its end. Updates are read as they come, so that stop strings are seen in time."""
    for number, update in as_they_come([answer.stream for answer in answers], changed):
        was_open = not answers[number].finished
        answers[number].take(update)
        if on_finished is not None and was_open and answers[number].finished:
            on_finished()
