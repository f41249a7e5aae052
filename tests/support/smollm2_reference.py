"""Twenty prompts, and what Transformers answers to them in float32; run as a program it writes the answers down."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

TOKENS = 64
GOLDEN = Path(__file__).parents[1] / "data" / "parity" / "smollm2_greedy.json"
_SONNET = (
    "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\n"
    "Rough winds do shake the darling buds of May,\nAnd summer's lease hath all too short a date;\n"
    "Sometime too hot the eye of heaven shines,\nAnd often is his gold complexion dimm'd;\n"
    "And every fair from fair sometime declines,\nBy chance or nature's changing course untrimm'd;\n"
)
_CODE = '''def fibonacci(n: int) -> int:
    """The n-th Fibonacci number."""
    if n < 2:
        return n
    return fibonacci(n - 1) + fibonacci(n - 2)


class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

'''
CONVERSATIONS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "user", "content": "Write a haiku about rain."}],
    [
        {"role": "system", "content": "You answer in one sentence."},
        {"role": "user", "content": "Why is the sky blue?"},
    ],
    [
        {"role": "user", "content": "What is 17 + 25?"},
        {"role": "assistant", "content": "17 + 25 = 42."},
        {"role": "user", "content": "And twice that?"},
    ],
    [{"role": "user", "content": f"Summarise this poem:\n\n{_SONNET}"}],
)
TEXTS = (
    "The",
    "1, 2, 3, 4,",
    "Once upon a time",
    "The capital of Germany is",
    "Grüße aus Köln! Das Wetter ist heute",
    "你好，世界。今天天气",
    "Привет, как дела? Сегодня",
    "🙂🙃🙂🙃👩‍👩‍👧‍👦 emoji are",
    "def quicksort(items):\n    ",
    '{"name": "Ada", "born": 1815, "known_for": [',
    "Water boils at 100 degrees Celsius at sea level. At higher altitudes, it",
    _CODE,
    _SONNET,
    (_SONNET + "\n") * 2 + "And then,",
    _CODE * 8 + "    def pop(self):\n",
)


def load_reference(gguf_file: Path) -> tuple[Any, Any]:
    """Transformers' model, dequantised to float32, and its tokenizer, both out of the GGUF file."""
    where: dict[str, Any] = {"gguf_file": gguf_file.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(gguf_file.parent, dtype=torch.float32, **where)
    model.generation_config.eos_token_id = None  # answers go on past the end of text
    return model.eval(), transformers.AutoTokenizer.from_pretrained(gguf_file.parent, **where)


def encode_all(tokenizer: Any) -> list[list[int]]:
    """Token ids of all prompts: texts, then conversations."""
    chats = [
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        for messages in CONVERSATIONS
    ]
    return [
        *(tokenizer(text)["input_ids"] for text in TEXTS),
        *(tokenizer(chat, add_special_tokens=False)["input_ids"] for chat in chats),
    ]


def continue_greedily(model: Any, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """The next `TOKENS` tokens of each prompt, all in one batch, shorter ones padded on the left."""
    width = max(len(prompt) for prompt in prompts)
    rows = [[0] * (width - len(prompt)) + [*prompt] for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    with torch.inference_mode():
        out = model.generate(
            torch.tensor(rows),
            attention_mask=torch.tensor(mask),
            do_sample=False,
            max_new_tokens=TOKENS,
            pad_token_id=0,
        )
    answers: list[list[int]] = out[:, width:].tolist()
    return answers


def _write(gguf_file: Path) -> None:
    model, tokenizer = load_reference(gguf_file)
    prompts = encode_all(tokenizer)
    rows = [
        {"prompt": prompt, "answer": continue_greedily(model, [prompt])[0]}  # each alone: nothing is padded
        for prompt in prompts
    ]
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    versions = json.dumps({"transformers": transformers.__version__, "torch": torch.__version__})
    GOLDEN.write_text(
        f'{{\n "versions": {versions},\n "model": "{gguf_file.name}",\n "rows": [\n{lines}\n ]\n}}\n'
    )


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
