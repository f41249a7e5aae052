"""The estimate of a perplexity's ratio and its error, where both are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import packed_accuracy
from perplexity_ratio import PerplexityRatio

RATIO, SCATTER, TOKENS = 1.02, 0.1, 3200


def likelihoods(seed: int, repeated: int = 1) -> tuple[Tensor, Tensor]:
    """Hard and easy tokens, and how much worse one model finds them, `repeated` neighbours alike."""
    rng = torch.Generator().manual_seed(seed)
    exact = 3 * torch.rand(TOKENS, generator=rng) ** 2 + 2 * torch.rand(TOKENS, generator=rng)
    scatter = SCATTER * torch.randn(TOKENS // repeated, generator=rng).repeat_interleave(repeated)
    return exact + math.log(RATIO) + scatter, exact


def test_ratio_and_error_are_the_known_ones() -> None:
    found = [PerplexityRatio.of(*likelihoods(seed)) for seed in range(50)]
    error = SCATTER / math.sqrt(TOKENS)
    assert all(one.tokens == TOKENS for one in found)
    assert sum(math.log(one.ratio) for one in found) / 50 == pytest.approx(
        math.log(RATIO), abs=4 * error / math.sqrt(50)
    )
    assert sum(one.error for one in found) / 50 == pytest.approx(error, rel=0.05)
    assert all(one.low < one.ratio < one.high for one in found)


@pytest.mark.parametrize("repeated", [1, 8])
def test_the_interval_holds_the_truth_as_often_as_it_says(repeated: int) -> None:
    """Where neighbours go together too: there the scatter of single tokens would promise 2.8 times too much."""
    found = [PerplexityRatio.of(*likelihoods(seed, repeated)) for seed in range(400)]
    held = sum(one.low <= RATIO <= one.high for one in found) / len(found)
    assert 0.91 <= held <= 0.98  # 95 % of 400 draws, give or take three standard deviations


def test_what_makes_a_token_hard_for_both_does_not_count() -> None:
    nll, exact = likelihoods(0)
    paired, unpaired = PerplexityRatio.of(nll, exact), PerplexityRatio.of(nll, exact.flip(0))
    assert paired.ratio == pytest.approx(unpaired.ratio, rel=1e-6)
    assert paired.error < unpaired.error / 5


def test_the_ratio_is_that_of_the_perplexities() -> None:
    nll, exact = likelihoods(1)
    assert PerplexityRatio.of(nll, exact).ratio == pytest.approx(
        (nll.mean().exp() / exact.mean().exp()).item(), rel=1e-5
    )


@pytest.mark.parametrize(("most", "said"), [(1.01, "above"), (1.02, "cannot tell"), (1.03, "within")])
def test_only_a_whole_interval_is_judged(most: float, said: str) -> None:
    assert PerplexityRatio.of(*likelihoods(2)).against(most) == said


def test_what_cannot_be_compared_is_refused() -> None:
    nll, exact = likelihoods(3)
    for one, other, words in (
        (nll[:-1], exact, r"got \[3199\] and \[3200\]"),
        (nll[:63], exact[:63], "64 likelihoods of the same tokens or more expected"),
        (nll.view(2, -1), exact.view(2, -1), "likelihoods of the same tokens"),
        (nll.where(exact > 0.5, math.inf), exact, r"\d+ of 3200 likelihoods are not finite"),
    ):
        with pytest.raises(ValueError, match=words):
            PerplexityRatio.of(one, other)


@pytest.mark.parametrize("start", [[], [1]])
def test_windows_are_whole_and_begin_as_texts_do(start: list[int]) -> None:
    def tokenize(text: str) -> list[int]:
        return start + [int(word) for word in text.split()]

    text = " ".join(map(str, range(2000)))
    found = packed_accuracy.windows(tokenize, text, 1600)
    assert [len(window) for window in found] == [packed_accuracy.WINDOW] * 3
    assert all(window[: len(start)] == start for window in found)
    each = packed_accuracy.WINDOW - len(start)
    assert [token for window in found for token in window[len(start) :]] == list(range(3 * each))
    with pytest.raises(ValueError, match="100 tokens are less than one window"):
        packed_accuracy.windows(tokenize, text, 100)
