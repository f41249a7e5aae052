"""What a caller may choose about two of the benchmarks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from inference_pio.errors import UsageError

TASKS = ("perplexity", "lambada", "mmlu", "gsm8k", "humaneval")
USUAL_TASKS = TASKS[:4]


@dataclass(frozen=True)
class TaskChoice:
    """What accuracy asks.

    names        of `TASKS`, in their order
    limit        questions of each task; 0: as many as each asks usually
    data         folder with the complete test sets; empty: the subsets that come with the package
    completions  file to write HumanEval's completions to

    Raises:
        UsageError: a value is wrong.
    """

    names: tuple[str, ...] = USUAL_TASKS
    limit: int = 0
    data: str = ""
    completions: str = ""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.names) - set(TASKS)):
            raise UsageError(f"no task is called {', '.join(unknown)}; there are {', '.join(TASKS)}")
        if self.limit < 0:
            raise UsageError(f"the limit of questions must be 0 (the usual number) or more, got {self.limit}")
        if ("humaneval" in self.names) != bool(self.completions):
            raise UsageError(
                "humaneval and a file for its completions go together: --task humaneval --completions FILE"
            )


@dataclass(frozen=True)
class PowerChoice:
    """What power efficiency reads, and what it assumes where it can only estimate.

    watts_per_core  that a busy core takes beyond an idle one, in the estimate
    idle_seconds    to watch the idle machine before the runs
    """

    watts_per_core: float = 8.0
    idle_seconds: float = 3.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise UsageError(f"{name} must be 0 or more and finite, got {value}")
