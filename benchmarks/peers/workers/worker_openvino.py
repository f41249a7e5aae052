"""OpenVINO GenAI's worker: its continuous batching pipeline, which reads the GGUF file itself."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
from worker_protocol import Settings, Tokens, serve

_KV_GIB = 2


class OpenVINO:
    """The pipeline's defaults, which measured fastest: bfloat16 where the processor has it, activations quantised as
    they come, keys and values in 8 bits. No cache of prefixes: it could help nothing here."""

    def __init__(self, settings: Settings) -> None:
        scheduler: Any = genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False
        scheduler.max_num_seqs = settings.max_seqs
        scheduler.cache_size = _KV_GIB
        self._pipeline: Any = genai.ContinuousBatchingPipeline(
            settings.model, scheduler, "CPU", {"INFERENCE_NUM_THREADS": settings.threads}
        )
        self.vocab_size = len(self._pipeline.get_tokenizer().get_vocab())
        self.version: str = genai.__version__
        core: Any = openvino.Core()
        chosen = ("INFERENCE_PRECISION_HINT", "KV_CACHE_PRECISION", "DYNAMIC_QUANTIZATION_GROUP_SIZE")
        facts = ", ".join(f"{name} {core.get_property('CPU', name)}" for name in chosen)
        self.described = (
            f"ContinuousBatchingPipeline on the GGUF file, {_KV_GIB} GiB of KV cache, max_num_seqs "
            f"{settings.max_seqs}, {scheduler.max_num_batched_tokens} tokens a step, no prefix cache; defaults: {facts}"
        )

    def generate(self, prompts: Tokens, output_len: int) -> tuple[Tokens, float | None]:
        config: Any = genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = output_len
        config.ignore_eos = True
        config.do_sample = False
        inputs = [openvino.Tensor(np.array([prompt], dtype=np.int64)) for prompt in prompts]
        start = time.perf_counter()
        results: Any = self._pipeline.generate(inputs, [config] * len(prompts))
        first = min(result.perf_metrics.get_ttft().mean for result in results) / 1000
        return [list(result.m_generation_ids[0]) for result in results], start + first


if __name__ == "__main__":
    serve(OpenVINO)
