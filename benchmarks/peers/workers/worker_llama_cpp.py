"""llama.cpp's worker: its C interface through llama-cpp-python, as its own batched tools use it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np
from worker_protocol import Settings, Tokens, serve

# What `--explore` in benchmarks/README.md was measured with; defaults are what came out best.
BATCH = int(os.environ.get("LLAMA_N_BATCH", "2048"))
MICRO_BATCH = int(os.environ.get("LLAMA_N_UBATCH", "512"))
FLASH = int(os.environ.get("LLAMA_FLASH", "-1"))
UNIFIED = os.environ.get("LLAMA_UNIFIED", "1") == "1"


class LlamaCpp:
    """One model and one context; its KV cache is emptied before each request."""

    def __init__(self, settings: Settings) -> None:
        llama_cpp.llama_backend_init()
        self._model: Any = llama_cpp.llama_model_load_from_file(
            settings.model.encode(), llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot read {settings.model}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = settings.total_tokens if UNIFIED else settings.max_seqs * settings.max_len
        params.n_seq_max = settings.max_seqs
        params.kv_unified = UNIFIED
        params.n_batch, params.n_ubatch = BATCH, MICRO_BATCH
        params.n_threads = params.n_threads_batch = settings.threads
        params.flash_attn_type = FLASH
        params.no_perf = True
        self._context: Any = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError(f"llama.cpp cannot make a context of {params.n_ctx} tokens")
        self._batch: Any = llama_cpp.llama_batch_init(BATCH, 0, 1)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self.version = llama_cpp.__version__
        self.described = ""

    def generate(self, prompts: Tokens, output_len: int) -> tuple[Tokens, float | None]:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        answers = [[token] for token in self._prefill(prompts)]
        first = time.perf_counter()
        sequences = range(len(prompts))
        for step in range(output_len - 1):
            rows = [(answers[s][-1], len(prompts[s]) + step, s, True) for s in sequences]
            self._decode(rows)
            for s in sequences:
                answers[s].append(self._best(s))
        return answers, first

    def _prefill(self, prompts: Tokens) -> list[int]:
        """The first new token of each prompt; prompts fill batches one after the other."""
        rows = [
            (token, position, s, position == len(prompt) - 1)
            for s, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        first: dict[int, int] = {}
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            self._decode(part)
            for i, (_, _, s, wanted) in enumerate(part):
                if wanted:
                    first[s] = self._best(i)
        return [first[s] for s in range(len(prompts))]

    def _decode(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        if code := llama_cpp.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode of {len(rows)} tokens returned {code}")

    def _best(self, row: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._context, row)
        return int(np.ctypeslib.as_array(logits, (self.vocab_size,)).argmax())


if __name__ == "__main__":
    serve(LlamaCpp)
