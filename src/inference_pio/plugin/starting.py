"""What a caller asks for when a model is to run, wherever it then runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference_pio.plugin.runtime import Progress, Runtime

if TYPE_CHECKING:
    from inference_pio.config import Profile
    from inference_pio.plugin.base import ModelPlugin
    from inference_pio.security import ResourceLimits, SecurityLevel


@dataclass(frozen=True)
class StartRequest:
    """
    options, config  fields of `RuntimeOptions` and of the model's configuration that the caller named
    tuned            use a stored result of `inference-pio tune`
    level            how far the plugin is trusted
    """

    model: str
    plugin: str | None
    options: Mapping[str, Any]
    config: Mapping[str, Any]
    profile: str | Profile | None
    tuned: bool
    level: SecurityLevel
    limits: ResourceLimits | None
    progress: Progress | None


@dataclass(frozen=True)
class Running:
    """
    plugin    where it is in this process; None where it is in a worker
    warnings  and notes, a line each: what to tell whoever asked
    """

    name: str
    runtime: Runtime
    plugin: ModelPlugin | None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


Starter = Callable[[StartRequest], Running]
