"""Transformers' side of the comparison, set up as fast as it runs on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM


class TransformersPeer:
    """A causal language model in bfloat16 with torch's fused attention; a GGUF file is dequantised on loading."""

    def __init__(self, path: Path) -> None:
        logging: Any = transformers.logging
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        folder, file = (path, None) if path.is_dir() else (path.parent, path.name)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=file, dtype=torch.bfloat16, attn_implementation="sdpa", local_files_only=True
        )
        self._model = model.eval()
        # Not through the settings of a call: what is None there is filled in from here.
        settings: Any = transformers.GenerationConfig
        self._model.generation_config = settings(eos_token_id=None, pad_token_id=0)

    @property
    def vocab_size(self) -> int:
        size: int = self._model.config.vocab_size
        return size

    @property
    def described(self) -> str:
        attention = self._model.config._attn_implementation
        return (
            f"{transformers.__version__}, generate with attention {attention!r}, bfloat16, inference_mode, "
            f"dynamic KV cache, no logits processors; all sequences of a batch at once, of equal length (no padding)"
        )

    @torch.inference_mode()
    def generate(self, prompts: list[list[int]], output_len: int) -> list[list[int]]:
        """Greedy continuations of exactly `output_len` tokens; prompts are of equal length."""
        token_ids = torch.tensor(prompts)
        output = self._model.generate(
            token_ids,
            attention_mask=torch.ones_like(token_ids),
            max_new_tokens=output_len,
            do_sample=False,
            use_cache=True,
        )
        answers: list[list[int]] = output[:, token_ids.shape[1] :].tolist()
        if any(len(answer) != output_len for answer in answers):
            raise RuntimeError(f"generate gave {len(answers[0])} tokens instead of {output_len}")
        return answers
