"""From engine updates to text: what one request has answered so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from time import perf_counter

from inference_pio.engine.stream import RequestStream
from inference_pio.engine.updates import SequenceUpdate
from inference_pio.errors import InferencePIOError
from inference_pio.outputs import CompletionOutput, RequestMetrics, RequestOutput, StreamChunk, TokenLogprobs
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
    ) -> None:
        self._stream, self._prompt, self._ids = stream, prompt, prompt_token_ids
        self._tokenizer = tokenizer
        self._texts = (
            [TextStream(tokenizer, params, prompt_token_ids) for _ in range(params.n)] if tokenizer else []
        )
        scored = params.logprobs is not None
        self.outputs = [
            CompletionOutput(index, "", [], 0.0 if scored else None, [] if scored else None)
            for index in range(params.n)
        ]
        self.errors: list[InferencePIOError] = []
        self._started = perf_counter()
        self._first: float | None = None
        self._cached = 0

    def chunks(self) -> Iterator[StreamChunk]:
        """Chunks until every answer has ended; leaving early cancels the request."""
        try:
            for update in self._stream:
                output = self.outputs[update.index]
                if output.finished():
                    continue  # ended by a stop string; the engine was a step ahead
                self._first = self._first or perf_counter()
                yield self._chunk(update, output)
                if all(answer.finished() for answer in self.outputs):
                    break
        finally:
            self._stream.cancel()

    def cancel(self) -> None:
        """Give the request up; nothing happens where it has ended."""
        self._stream.cancel()

    def result(self, request_id: str) -> RequestOutput:
        now = perf_counter()
        metrics = RequestMetrics((self._first or now) - self._started, now - self._started, self._cached)
        return RequestOutput(request_id, self._prompt, self._ids, self.outputs, True, metrics)

    def _chunk(self, update: SequenceUpdate, output: CompletionOutput) -> StreamChunk:
        self._cached = max(self._cached, update.num_cached_tokens)
        ids, scores = list(update.token_ids), update.logprobs
        text, reason = "", update.finish_reason
        stop_reason: int | str | None = update.stop_reason
        if self._texts:
            # The token that ended the answer is not part of its text.
            shown = ids[:-1] if reason == "stop" else ids
            text, hit = self._texts[update.index].push(shown)
            if hit is not None:
                reason, stop_reason = "stop", hit
            elif reason is not None:
                text += self._texts[update.index].finish()
        named = [self._named(score) for score in scores] if scores is not None else None
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
        return StreamChunk(update.index, text, ids, named, reason, stop_reason)

    def _named(self, score: TokenLogprobs) -> TokenLogprobs:
        if self._tokenizer is None:
            return score
        tokenizer = self._tokenizer
        return {
            token_id: replace(entry, decoded_token=tokenizer.decode([token_id], skip_special_tokens=False))
            for token_id, entry in score.items()
        }


def run_all(answers: list[Answers], on_finished: Callable[[], None] | None) -> None:
    """Take every request to its end, in order; the engine works on all of them meanwhile."""
    for answer in answers:
        for _ in answer.chunks():
            pass
        if on_finished is not None:
            on_finished()
