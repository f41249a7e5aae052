"""Perplexity against Transformers' loss on the same tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from inference_pio.benchmarks import accuracy
from inference_pio.benchmarks.command import Settings
from inference_pio.models.llama.benchmarks.workloads import SUITE


def test_scores_equal_the_reference_across_chunks(tiny_llama: Path) -> None:
    ids = torch.randint(0, 272, (600,), generator=torch.Generator().manual_seed(3)).tolist()
    settings = Settings(model=str(tiny_llama), dtype="float32", device="cpu")
    with settings.load(SUITE, SUITE.decode) as loaded:
        scores = accuracy.score(loaded, ids)
    reference = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    with torch.inference_mode():
        expected = reference(torch.tensor([ids]), labels=torch.tensor([ids]))
    assert len(scores.nll) == len(ids) - 1
    assert scores.perplexity == pytest.approx(expected.loss.exp().item(), rel=1e-4)
    assert torch.equal(scores.best, expected.logits[0, :-1].argmax(dim=-1))
