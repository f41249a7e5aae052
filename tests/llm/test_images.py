"""Images given to a model that does not see are refused by name, before anything runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inference_pio import LLM
from inference_pio.errors import UsageError
from inference_pio.plugin.media import PromptMedia
from inference_pio.plugin.runtime import EncodedPrompt

TEXT = {"type": "text", "text": "What is this?"}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "x.png"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ],
)
def test_chat(llm: LLM, part: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"messages\[0\].content\[0\].type 'image.*' is not supported"):
        llm.chat([{"role": "user", "content": [part, TEXT]}])


@pytest.mark.parametrize("prompt", [{"prompt": "a"}, {"prompt_token_ids": [1]}])
def test_prompts(llm: LLM, prompt: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^multi_modal_data.image\[0\]: .* takes text only, not images$"):
        llm.generate({**prompt, "multi_modal_data": {"image": "x.png"}})
    encoded = EncodedPrompt("a", [1], PromptMedia((), torch.zeros(3, 1, dtype=torch.int64), 0))
    with pytest.raises(UsageError, match="takes text only, and the prompt has images$"):
        llm.generate(encoded)
    for nothing in (None, {"image": []}):
        assert llm.generate({**prompt, "multi_modal_data": nothing})[0].outputs[0].finish_reason


@pytest.mark.parametrize("data", [{}, {"video": "x"}, {"image": "x", "audio": "y"}, "x.png", ["x.png"]])
def test_other_data(llm: LLM, data: Any) -> None:
    with pytest.raises(UsageError, match=r"^multi_modal_data must be {'image': …}, got "):
        llm.generate({"prompt": "a", "multi_modal_data": data})
