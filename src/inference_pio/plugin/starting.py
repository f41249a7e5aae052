"""What a caller asks for when a model is to run, wherever it then runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference_pio.plugin.runtime import Progress, Runtime

if TYPE_CHECKING:
    from inference_pio.config import BaseModelConfig, Profile
    from inference_pio.plugin.base import ModelPlugin
    from inference_pio.runtime.settle import Settled
    from inference_pio.security import ResourceLimits, SecurityLevel


@dataclass(frozen=True)
class StartRequest:
    """
    options, config  fields of `RuntimeOptions` and of the model's configuration that the caller named
    tuned            use a stored result of `inference-pio tune`
    level            how far the plugin is trusted; None: built-in ones to the most, others' least
    enforcement      "strict" or "best_effort", where limits cannot be held here; None: as the level has it
    """

    model: str
    plugin: str | None
    options: Mapping[str, Any]
    config: Mapping[str, Any]
    profile: str | Profile | None
    tuned: bool
    level: SecurityLevel | None
    enforcement: str | None
    limits: ResourceLimits | None
    progress: Progress | None


@dataclass(frozen=True)
class Running:
    """
    config    of the model; the standard's fields at least
    plugin    and `settled` where they are in this process; None where they are in a worker
    warnings  and notes, a line each: what to tell whoever asked
    """

    name: str
    runtime: Runtime
    config: BaseModelConfig
    plugin: ModelPlugin | None = None
    settled: Settled | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


Starter = Callable[[StartRequest], Running]
