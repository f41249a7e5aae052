"""How sure the ratio of two perplexities is, from what both models thought of the same tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

_Z = 1.959964  # standard errors on either side of the mean that hold it with 95 % probability
_RUN = 32  # neighbouring tokens whose mean counts as one observation
Judgement = Literal["within", "above", "cannot tell"]


@dataclass(frozen=True)
class PerplexityRatio:
    """Perplexity of one model by that of another, and the 95 % interval of what a text without end would give.

    Perplexity is exp of the mean negative log-likelihood, so the ratio is exp of the mean difference. Both models see
    the same tokens: what makes a token hard for both cancels in the difference, and only its own scatter counts.
    Neighbours share their context, so that their differences are not independent: the standard error is that of the
    means of runs of 32 tokens (batch means; Law, Simulation Modeling and Analysis, section 9.5.3), not of single ones.

    ratio         exp of the mean difference
    error         standard error of the mean difference: that of the ratio's logarithm
    low, high     the interval
    tokens        how many differences there are
    """

    ratio: float
    error: float
    low: float
    high: float
    tokens: int

    @classmethod
    def of(cls, nll: Tensor, exact_nll: Tensor) -> PerplexityRatio:
        """Both [tokens]: negative log-likelihoods of the same tokens in their order, in nats.

        Raises:
            ValueError: the shapes differ, there are fewer than two runs, or a likelihood is not finite.
        """
        if nll.shape != exact_nll.shape or nll.dim() != 1 or len(nll) < 2 * _RUN:
            raise ValueError(
                f"{2 * _RUN} likelihoods of the same tokens or more expected, "
                f"got {list(nll.shape)} and {list(exact_nll.shape)}"
            )
        differences = nll.double() - exact_nll.double()
        if missing := int((~differences.isfinite()).sum()):
            raise ValueError(f"{missing} of {len(nll)} likelihoods are not finite")
        runs = len(nll) // _RUN
        run_means = differences[: runs * _RUN].view(runs, _RUN).mean(dim=1)
        mean, error = differences.mean().item(), run_means.std().item() / math.sqrt(len(nll) / _RUN)
        low, high = math.exp(mean - _Z * error), math.exp(mean + _Z * error)
        return cls(math.exp(mean), error, low, high, len(nll))

    def against(self, most: float) -> Judgement:
        """Whether the ratio is at most `most`; where the interval lies on both sides of it, nobody can tell."""
        if self.high <= most:
            return "within"
        return "above" if self.low > most else "cannot tell"
