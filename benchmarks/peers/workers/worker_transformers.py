"""Transformers' worker: `generate` in bfloat16 as fast as it runs on a CPU; a GGUF file is dequantised on loading."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
from worker_protocol import Settings, Tokens, serve


class FirstToken(transformers.StoppingCriteria):
    """Stops nothing: notes when it is first asked, which is when the first token of every sequence is there."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        self.time = self.time or time.perf_counter()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


class Transformers:
    """A causal language model with torch's fused attention."""

    def __init__(self, settings: Settings) -> None:
        logging: Any = transformers.logging
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        path = Path(settings.model)
        folder, file = (path, None) if path.is_dir() else (path.parent, path.name)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=file, local_files_only=True)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=file, dtype=torch.bfloat16, attn_implementation="sdpa", local_files_only=True
        )
        self._model = model.eval()
        # Not through the settings of a call: what is None there is filled in from here.
        generation: Any = transformers.GenerationConfig
        self._model.generation_config = generation(eos_token_id=None, pad_token_id=0)
        self.vocab_size: int = self._model.config.vocab_size
        self.version = transformers.__version__
        self.described = (
            f"generate, bfloat16, attention {self._model.config._attn_implementation!r}, inference_mode, dynamic KV "
            f"cache, no logits processors, torch {torch.__version__}; a batch at once, of equal length (no padding)"
        )

    @torch.inference_mode()
    def generate(self, prompts: Tokens, output_len: int) -> tuple[Tokens, float | None]:
        token_ids, first = torch.tensor(prompts), FirstToken()
        output = self._model.generate(
            token_ids,
            attention_mask=torch.ones_like(token_ids),
            max_new_tokens=output_len,
            do_sample=False,
            use_cache=True,
            stopping_criteria=transformers.StoppingCriteriaList([first]),
        )
        return output[:, token_ids.shape[1] :].tolist(), first.time


if __name__ == "__main__":
    serve(Transformers)
