"""Ten texts for Gemma 3 to go on with, and Transformers' model and tokenizer out of the same GGUF file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

TOKENS = 64
_PLAY = (Path(__file__).parents[1] / "data" / "text" / "coriolanus.txt").read_text(encoding="utf-8")
_CODE = '''def fibonacci(n: int) -> int:
    """The n-th Fibonacci number."""
    if n < 2:
        return n
    return fibonacci(n - 1) + fibonacci(n - 2)


'''
# The last four have more tokens than the window, or get there while they are continued.
TEXTS = (
    "The",
    "The capital of France is",
    "Once upon a time there was",
    "Grüße aus Köln! Das Wetter ist heute",
    "你好，世界。今天天气",
    _CODE + "def factorial(",
    _PLAY[:1700],
    _PLAY[2000:4400],
    _PLAY[4000:8000],
    _CODE * 20 + "class Stack:\n",
)


def load_reference(gguf_file: Path) -> tuple[Any, Any]:
    """Transformers' model, dequantised to float32, and its tokenizer."""
    where: dict[str, Any] = {"gguf_file": gguf_file.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(gguf_file.parent, dtype=torch.float32, **where)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(gguf_file.parent, **where)


def continue_greedily(model: Any, prompt: Sequence[int]) -> list[int]:
    """The next `TOKENS` tokens, past the end of the text."""
    model.generation_config.eos_token_id = None
    with torch.inference_mode():
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=TOKENS,
            pad_token_id=0,
        )
    answer: list[int] = out[0, len(prompt) :].tolist()
    return answer
