"""vLLM's worker, on its CPU backend: `LLM` in this process, bfloat16 weights from a directory."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from worker_protocol import Settings, Tokens, serve

_KV_GIB = 2


def load(settings: Settings) -> VLLM:
    """vLLM reads its environment on import."""
    cores = sorted(os.sched_getaffinity(0))[: settings.threads]
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no second process, and no thread that polls it
        "VLLM_CPU_KVCACHE_SPACE": str(_KV_GIB),
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "VLLM_CACHE_ROOT": os.path.join(sys.prefix, "cache"),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return VLLM(settings)


class VLLM:
    """Compiled as it is by default, except for a start. No cache of prefixes: it could help nothing here."""

    def __init__(self, settings: Settings) -> None:
        import vllm

        self._vllm: Any = vllm
        self._llm: Any = vllm.LLM(
            settings.model,
            dtype="bfloat16",
            max_model_len=settings.max_len,
            max_num_seqs=settings.max_seqs,
            enable_prefix_caching=False,
            enforce_eager=settings.once,  # compiling takes a minute at every start
            disable_log_stats=False,  # else it does not say when the first token came
        )
        self.vocab_size: int = self._llm.llm_engine.model_config.get_vocab_size()
        self.version: str = vllm.__version__
        self.described = (
            f"LLM on the CPU backend, bfloat16 (the same weights, dequantised), max_num_seqs {settings.max_seqs}, "
            f"{_KV_GIB} GiB of KV cache, compiled, in one process"
        )

    def generate(self, prompts: Tokens, output_len: int) -> tuple[Tokens, float | None]:
        params = self._vllm.SamplingParams(
            temperature=0.0, max_tokens=output_len, min_tokens=output_len, ignore_eos=True, detokenize=False
        )
        start = time.perf_counter()
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False
        )
        first = min(output.metrics.first_token_latency for output in outputs)
        return [list(output.outputs[0].token_ids) for output in outputs], start + first


if __name__ == "__main__":
    serve(load)
