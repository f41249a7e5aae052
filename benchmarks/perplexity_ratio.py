"""How sure the ratio of two perplexities is, from what both models thought of the same tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

LEAST_WINDOWS = 4
_Z = 1.959964  # the normal distribution's quantile of 97.5 %
Judgement = Literal["within", "above", "cannot tell"]


@dataclass(frozen=True)
class PerplexityRatio:
    """Perplexity of one model by that of another, and the 95 % interval of what a text without end would give.

    Perplexity is exp of the mean negative log-likelihood, so the ratio is exp of the mean difference. Both models see
    the same tokens: what makes a token hard for both cancels in the difference, and only its own scatter counts. What
    a model gets wrong at a window's beginning goes on to its end, so that the differences of its tokens are not
    independent, only those of windows are: the standard error is that of the windows' means, the interval Student's.

    ratio         exp of the mean difference
    error         standard error of the mean difference: that of the ratio's logarithm
    low, high     the interval
    windows       mean difference of each, in nats per token
    """

    ratio: float
    error: float
    low: float
    high: float
    windows: tuple[float, ...]

    @classmethod
    def of(cls, nll: Tensor, exact_nll: Tensor) -> PerplexityRatio:
        """Both [windows, tokens]: negative log-likelihoods of the same tokens, in nats.

        Raises:
            ValueError: the shapes differ, there are fewer than four windows, or a likelihood is not finite.
        """
        if nll.shape != exact_nll.shape or nll.dim() != 2 or len(nll) < LEAST_WINDOWS:
            raise ValueError(
                f"likelihoods of the same tokens in {LEAST_WINDOWS} windows or more expected, "
                f"got {list(nll.shape)} and {list(exact_nll.shape)}"
            )
        differences = nll.double() - exact_nll.double()
        if missing := int((~differences.isfinite()).sum()):
            raise ValueError(f"{missing} of {nll.numel()} likelihoods are not finite")
        means = differences.mean(dim=1)
        mean, error = means.mean().item(), means.std().item() / math.sqrt(len(means))
        reach = _student(len(means) - 1) * error
        return cls(
            math.exp(mean), error, math.exp(mean - reach), math.exp(mean + reach), tuple(means.tolist())
        )

    def against(self, most: float) -> Judgement:
        """Whether the ratio is at most `most`; where the interval lies on both sides of it, nobody can tell."""
        if self.high <= most:
            return "within"
        return "above" if self.low > most else "cannot tell"


def _student(freedom: int) -> float:
    """Quantile of 97.5 % for three degrees of freedom or more, to 1 % (Abramowitz and Stegun, 26.7.5)."""
    z = _Z
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
