"""llama.cpp's worker: its C interface through llama-cpp-python, one `llama_decode` a step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np
from worker_protocol import Settings, Tokens, serve

# Its defaults. Micro-batches of 128 to 1024 prefill equally fast.
_BATCH, _MICRO_BATCH = 2048, 512
_PAGE = 256


class LlamaCpp:
    """One model, and a context for each number and length of sequences that it is asked for.

    Sequences have a part of the cache each: with one cache for all of them (`kv_unified`) the prompts of 32 sequences
    took a quarter longer. Flash attention is left to llama.cpp, which turns it on; without it a batch is slower too.
    """

    def __init__(self, settings: Settings) -> None:
        llama_cpp.llama_backend_init()
        self._threads = settings.threads
        self._model: Any = llama_cpp.llama_model_load_from_file(
            settings.model.encode(), llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot read {settings.model}")
        self._contexts: dict[tuple[int, int], Any] = {}
        self._batch: Any = llama_cpp.llama_batch_init(_BATCH, 0, 1)
        self.vocab_size: int = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self.version: str = llama_cpp.__version__
        system = " ".join(llama_cpp.llama_print_system_info().decode().split())
        self.described = (
            f"llama-cpp-python compiled for this machine; the GGUF file; batches of {_BATCH}, micro-batches of "
            f"{_MICRO_BATCH}, flash attention auto, a cache per sequence; {system}"
        )

    def generate(self, prompts: Tokens, output_len: int) -> tuple[Tokens, float | None]:
        context = self._context(len(prompts), max(map(len, prompts)) + output_len)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), False)
        answers = [[token] for token in self._prefill(context, prompts)]
        first = time.perf_counter()
        for step in range(output_len - 1):
            rows = [(answers[s][-1], len(prompt) + step, s, True) for s, prompt in enumerate(prompts)]
            self._decode(context, rows)
            for s, answer in enumerate(answers):
                answer.append(self._best(context, s))
        return answers, first

    def _context(self, sequences: int, length: int) -> Any:
        padded = -(-length // _PAGE) * _PAGE
        if (sequences, padded) not in self._contexts:
            params = llama_cpp.llama_context_default_params()
            params.n_ctx = sequences * padded
            params.n_seq_max = sequences
            params.n_batch, params.n_ubatch = _BATCH, _MICRO_BATCH
            params.n_threads = params.n_threads_batch = self._threads
            context = llama_cpp.llama_init_from_model(self._model, params)
            if not context:
                raise RuntimeError(f"llama.cpp cannot make a context of {sequences} x {padded} tokens")
            self._contexts[sequences, padded] = context
        return self._contexts[sequences, padded]

    def _prefill(self, context: Any, prompts: Tokens) -> list[int]:
        """The first new token of each prompt; prompts fill batches one after the other."""
        rows = [
            (token, position, s, position == len(prompt) - 1)
            for s, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        first: list[int] = []
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            self._decode(context, part)
            first += [self._best(context, i) for i, (_, _, _, wanted) in enumerate(part) if wanted]
        return first

    def _decode(self, context: Any, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        """Rows of (token, position, sequence, whether its logits are wanted)."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        if code := llama_cpp.llama_decode(context, batch):
            raise RuntimeError(f"llama_decode of {len(rows)} tokens returned {code}")

    def _best(self, context: Any, row: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(context, row)
        return int(np.ctypeslib.as_array(logits, (self.vocab_size,)).argmax())


if __name__ == "__main__":
    serve(LlamaCpp)
