"""The estimate of a perplexity's ratio and its error, where both are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import packed_accuracy
import perplexity_ratio
from perplexity_ratio import PerplexityRatio

RATIO, SCATTER, WINDOWS, TOKENS = 1.02, 0.1, 30, 100


def likelihoods(seed: int, windows: int = WINDOWS, shared: float = 0.0) -> tuple[Tensor, Tensor]:
    """Hard and easy tokens, and how much worse one model finds them; `shared` scatter is the same in a whole window."""
    rng = torch.Generator().manual_seed(seed)
    exact = 3 * torch.rand(windows, TOKENS, generator=rng) ** 2 + 2 * torch.rand(windows, 1, generator=rng)
    scatter = SCATTER * torch.randn(windows, TOKENS, generator=rng)
    scatter += shared * torch.randn(windows, 1, generator=rng)
    return exact + math.log(RATIO) + scatter, exact


@pytest.mark.parametrize("shared", [0.0, 0.03])
def test_ratio_and_error_are_the_known_ones(shared: float) -> None:
    found = [PerplexityRatio.of(*likelihoods(seed, shared=shared)) for seed in range(100)]
    error = math.sqrt(SCATTER**2 / TOKENS + shared**2) / math.sqrt(WINDOWS)
    assert sum(math.log(one.ratio) for one in found) / 100 == pytest.approx(
        math.log(RATIO), abs=4 * error / math.sqrt(100)
    )
    assert sum(one.error for one in found) / 100 == pytest.approx(error, rel=0.06)
    assert all(one.low < one.ratio < one.high for one in found)


@pytest.mark.parametrize("shared", [0.0, 0.05])
@pytest.mark.parametrize("windows", [4, WINDOWS])
def test_the_interval_holds_the_truth_as_often_as_it_says(windows: int, shared: float) -> None:
    """Where a window's tokens go together too: there the scatter of single tokens would hold it half as often."""
    found = [PerplexityRatio.of(*likelihoods(seed, windows, shared)) for seed in range(400)]
    held = sum(one.low <= RATIO <= one.high for one in found) / len(found)
    assert 0.915 <= held <= 0.985  # 95 % of 400 draws, give or take three standard deviations


def test_what_makes_a_token_hard_for_both_does_not_count() -> None:
    nll, exact = likelihoods(0)
    paired, unpaired = PerplexityRatio.of(nll, exact), PerplexityRatio.of(nll, exact.flip(0))
    assert paired.ratio == pytest.approx(unpaired.ratio, rel=1e-6)
    assert paired.error < unpaired.error / 5


def test_the_ratio_is_that_of_the_perplexities() -> None:
    nll, exact = likelihoods(1)
    found = PerplexityRatio.of(nll, exact)
    assert found.ratio == pytest.approx((nll.mean().exp() / exact.mean().exp()).item(), rel=1e-5)
    assert found.windows == pytest.approx((nll - exact).mean(dim=1).tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(3, 3.1824), (5, 2.5706), (10, 2.2281), (34, 2.0322), (1000, 1.9623)]
)
def test_students_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert perplexity_ratio._student(freedom) == pytest.approx(quantile, rel=0.01)


@pytest.mark.parametrize(("most", "said"), [(1.01, "above"), (1.02, "cannot tell"), (1.03, "within")])
def test_only_a_whole_interval_is_judged(most: float, said: str) -> None:
    assert PerplexityRatio.of(*likelihoods(2)).against(most) == said


def test_what_cannot_be_compared_is_refused() -> None:
    nll, exact = likelihoods(3)
    for one, other, words in (
        (nll[:-1], exact, r"got \[29, 100\] and \[30, 100\]"),
        (nll[:3], exact[:3], "likelihoods of the same tokens in 4 windows or more expected"),
        (nll.flatten(), exact.flatten(), "likelihoods of the same tokens"),
        (nll.where(exact > 0.5, math.inf), exact, r"\d+ of 3000 likelihoods are not finite"),
    ):
        with pytest.raises(ValueError, match=words):
            PerplexityRatio.of(one, other)


@pytest.mark.parametrize("start", [[], [1]])
def test_windows_are_whole_and_begin_as_texts_do(start: list[int]) -> None:
    def tokenize(text: str) -> list[int]:
        return start + [int(word) for word in text.split()]

    text = " ".join(map(str, range(3000)))
    found = packed_accuracy.windows(tokenize, text, 2100)
    assert [len(window) for window in found] == [packed_accuracy.WINDOW] * 4
    assert all(window[: len(start)] == start for window in found)
    each = packed_accuracy.WINDOW - len(start)
    assert [token for window in found for token in window[len(start) :]] == list(range(4 * each))
    with pytest.raises(ValueError, match="1500 tokens are less than 4 windows"):
        packed_accuracy.windows(tokenize, text, 1500)
