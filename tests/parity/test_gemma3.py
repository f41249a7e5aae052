"""Gemma-3-270M, greedy and in float32, token for token with Transformers on the same dequantised weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_pio import LLM, SamplingParams
from inference_pio.loader.checkpoint import open_checkpoint
from inference_pio.loader.raw_config import raw_config
from support import gemma3_reference
from support.gemma3_reference import TEXTS, TOKENS

# Where the plugin is not there, neither are these tests.
GEMMA_GGUF = pytest.importorskip("inference_pio.models.gemma3_text.tests.case").GEMMA_GGUF

pytestmark = [pytest.mark.slow, pytest.mark.weights]

_GREEDY = SamplingParams(temperature=0.0, max_tokens=TOKENS, ignore_eos=True)
_WINDOW = 512


@pytest.fixture(scope="module")
def llm(gemma3_path: Path) -> Iterator[LLM]:
    with LLM(str(gemma3_path), dtype="float32", max_model_len=2048, kv_cache_memory_gb=0.5) as model:
        yield model


@pytest.fixture(scope="module")
def reference(gemma3_path: Path) -> Any:
    return gemma3_reference.load_reference(gemma3_path)


def test_the_header_that_the_contract_tests_hold_is_that_of_the_file(gemma3_path: Path) -> None:
    with open_checkpoint(gemma3_path) as checkpoint:
        shapes = {name: list(info.shape) for name, info in checkpoint.tensors.items()}
        stated = raw_config(checkpoint, gemma3_path)
    assert GEMMA_GGUF["tensors"] == shapes
    architecture = {key for key in stated if key.startswith("gemma3.") or key == "general.architecture"}
    assert GEMMA_GGUF["metadata"] == {key: stated[key] for key in architecture}
    assert GEMMA_GGUF["tokens"] == len(stated["tokenizer.ggml.tokens"])


def test_prompts_are_encoded_alike(llm: LLM, reference: Any) -> None:
    ours = llm.get_tokenizer()
    for text in TEXTS:
        assert ours.encode(text) == reference[1](text)["input_ids"], text[:40]


def test_transformers_reads_the_file_as_what_it_is(reference: Any) -> None:
    config = reference[0].config
    assert config.sliding_window == _WINDOW
    assert config.layer_types == (["sliding_attention"] * 5 + ["full_attention"]) * 3
    assert config.rope_parameters["full_attention"]["rope_theta"] == 1_000_000.0
    assert config.rope_parameters["sliding_attention"]["rope_theta"] == 10_000.0


def test_greedy_tokens_are_those_of_transformers(llm: LLM, reference: Any) -> None:
    prompts = [llm.get_tokenizer().encode(text) for text in TEXTS]
    lengths = sorted(map(len, prompts))
    assert lengths[0] < 10
    assert lengths[-4] < _WINDOW < lengths[-3], lengths
    assert lengths[-4] + TOKENS > _WINDOW, lengths
    results = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], _GREEDY)
    for prompt, result in zip(prompts, results, strict=True):
        answer = result.outputs[0].token_ids
        assert len(answer) == TOKENS
        assert gemma3_reference.greedy_choices(reference[0], prompt, answer) == answer, len(prompt)


def test_packed_weights_go_on_as_sensibly_past_the_window(gemma3_path: Path, reference: Any) -> None:
    """Behind 600 tokens and more, 4-bit weights with 8-bit activations choose nearly always as exact ones do."""
    ids = reference[1](TEXTS[8])["input_ids"][:1000]
    expected = gemma3_reference.greedy_choices(reference[0], ids[:600], ids[600:])
    params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)
    with LLM(str(gemma3_path), max_model_len=2048, kv_cache_memory_gb=0.2) as llm:
        some = range(600, len(ids), 10)
        results = llm.generate([{"prompt_token_ids": ids[:end]} for end in some], params)
    found = [result.outputs[0].token_ids[0] for result in results]
    alike = sum(ours == expected[end - 600] for ours, end in zip(found, some, strict=True))
    assert alike >= 0.85 * len(found), f"{alike} of {len(found)}"
