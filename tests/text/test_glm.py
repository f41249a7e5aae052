"""GLM's vocabulary against token ids that were published with its model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inference_pio.text.tokenizer import Tokenizer
from support.htk import gguf_metadata

DATA = Path(__file__).parents[1] / "data" / "tokenizers"
RECORDS = json.loads((DATA / "glm-4.7-flash_reference_token_ids.json").read_text())["records"]


@pytest.fixture(scope="module")
def glm() -> Tokenizer:
    file = DATA / "glm-5.2.htk"
    return Tokenizer.from_gguf(gguf_metadata(file, pre="glm4"), file)


@pytest.mark.slow
@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["prompt"][:20])
def test_published_ids(glm: Tokenizer, record: dict[str, object]) -> None:
    prompt = f"[gMASK]<sop><|user|>{record['prompt']}<|assistant|><think>"
    assert glm.encode(prompt, add_special_tokens=False) == record["prompt_token_ids"]
    assert glm.decode(glm.encode(prompt), skip_special_tokens=False) == prompt
