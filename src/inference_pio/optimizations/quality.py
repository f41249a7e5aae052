"""Quality levels: how far approximate techniques may move a model's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Level:
    """Bounds against the reference logits on calibration text: mean KL divergence in nats per token, and the share of
    tokens whose most likely successor is the same.
    """

    name: str
    max_kl: float
    min_top1: float

    def keeps(self, kl: float, top1: float) -> bool:
        """Whether what was measured lies within; NaN does not."""
        return kl <= self.max_kl and top1 >= self.min_top1

    def violation(self, kl: float, top1: float) -> str:
        """Which bound does not hold, with the arithmetic; empty where all do."""
        if not kl <= self.max_kl:
            return f"KL {kl:.4g} > {self.max_kl:g} of level {self.name}"
        if not top1 >= self.min_top1:
            return f"top-1 agreement {top1:.3f} < {self.min_top1:g} of level {self.name}"
        return ""


LEVELS: Mapping[str, Level] = MappingProxyType(
    {
        level.name: level
        for level in (Level("exact", 0.0, 1.0), Level("faithful", 0.01, 0.95), Level("fast", 0.1, 0.85))
    }
)


@dataclass(frozen=True)
class Grant:
    """What a receipt says of one approximate technique at one level: allowed or not, why, and the layers that it must
    leave as they are.
    """

    allowed: bool
    reason: str
    exempt: tuple[int, ...] = ()


Grants = Callable[[str], Grant]


def no_receipt(name: str) -> Grant:  # noqa: ARG001 - the same for each
    return Grant(False, "approximate, and this checkpoint has no receipt: inference-pio calibrate makes one")
