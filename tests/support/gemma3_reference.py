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


def greedy_choices(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> list[int]:
    """What the model would choose in place of each token of the answer, given those before it.

    Where that is the answer itself, the answer is the model's own greedy one, by induction over its tokens.
    """
    with torch.inference_mode():
        ids = torch.tensor([[*prompt, *answer]])
        logits = model(ids, logits_to_keep=len(answer) + 1).logits[0, :-1]
    choices: list[int] = logits.argmax(-1).tolist()
    return choices
