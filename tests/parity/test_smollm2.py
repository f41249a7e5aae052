"""SmolLM2-135M-Instruct, greedy and in float32, token for token with Transformers on the same dequantised weights.

Transformers takes minutes for twenty prompts on two cores, so its answers are kept in `data/parity`; one test asks it
again for some of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_pio import LLM, SamplingParams
from inference_pio.loader.checkpoint import open_checkpoint
from inference_pio.loader.raw_config import raw_config
from inference_pio.models.llama.tests.case import SMOLLM2_CHAT, SMOLLM2_GGUF
from support import smollm2_reference
from support.smollm2_reference import CONVERSATIONS, TEXTS, TOKENS

pytestmark = [pytest.mark.slow, pytest.mark.weights]

_GREEDY = SamplingParams(temperature=0.0, max_tokens=TOKENS, ignore_eos=True)
_GOLDEN = json.loads(smollm2_reference.GOLDEN.read_text())
PROMPTS: list[list[int]] = [row["prompt"] for row in _GOLDEN["rows"]]
ANSWERS: list[list[int]] = [row["answer"] for row in _GOLDEN["rows"]]


@pytest.fixture(scope="module")
def llm(smollm2_path: Path) -> Iterator[LLM]:
    with LLM(str(smollm2_path), dtype="float32", max_model_len=1024, kv_cache_memory_gb=1.2) as model:
        yield model


@pytest.fixture(scope="module")
def reference(smollm2_path: Path) -> Any:
    return smollm2_reference.load_reference(smollm2_path)


def _answers(llm: LLM, prompts: list[list[int]]) -> list[list[int]]:
    results = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], _GREEDY)
    return [result.outputs[0].token_ids for result in results]


def test_prompts_are_of_many_lengths() -> None:
    lengths = sorted(len(prompt) for prompt in PROMPTS)
    assert len(PROMPTS) == 20
    assert lengths[0] == 1
    assert 600 < lengths[-1] < 750
    assert len(set(lengths)) >= 15
    assert all(len(answer) == TOKENS for answer in ANSWERS)


def test_the_header_that_the_contract_tests_hold_is_that_of_the_file(smollm2_path: Path) -> None:
    with open_checkpoint(smollm2_path) as checkpoint:
        shapes = {name: list(info.shape) for name, info in checkpoint.tensors.items()}
        stated = raw_config(checkpoint, smollm2_path)
    assert SMOLLM2_GGUF["tensors"] == shapes
    architecture = {key for key in stated if not key.startswith(("tokenizer.", "gguf."))}
    assert SMOLLM2_GGUF["metadata"] == {key: stated[key] for key in architecture}
    assert stated["tokenizer.chat_template"] == SMOLLM2_CHAT


def test_all_at_once(llm: LLM) -> None:
    assert _answers(llm, PROMPTS) == ANSWERS


@pytest.mark.parametrize("which", [0, 12, 15])
def test_one_by_one(llm: LLM, which: int) -> None:
    assert _answers(llm, [PROMPTS[which]]) == [ANSWERS[which]]


def test_transformers_still_says_so(reference: Any) -> None:
    """Text, unicode, code and chat in one padded batch of short prompts."""
    some = [0, 5, 8, 15, 17]
    found = smollm2_reference.continue_greedily(reference[0], [PROMPTS[which] for which in some])
    assert found == [ANSWERS[which] for which in some]


def test_prompts_are_encoded_alike(llm: LLM, reference: Any) -> None:
    """Token ids of every text and of every conversation, Transformers' tokenizer being made from the same file."""
    theirs = reference[1]
    ours = llm.get_tokenizer()
    assert smollm2_reference.encode_all(theirs) == PROMPTS
    for text, ids in zip(TEXTS, PROMPTS, strict=False):
        assert ours.encode(text) == ids
    for messages, ids in zip(CONVERSATIONS, PROMPTS[len(TEXTS) :], strict=True):
        rendered = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert llm.format_chat(messages) == rendered
        assert ours.encode(rendered, add_special_tokens=False) == ids
