"""From an opened model, options and limits to a plan that may be loaded."""

from __future__ import annotations

from dataclasses import replace

from inference_pio.config import BaseModelConfig
from inference_pio.metrics.hardware import usable_threads
from inference_pio.optimizations.quality import Grant, Grants, no_receipt
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.runtime import Progress, RuntimeOptions
from inference_pio.runtime.fitting import Fitted, Step, prepared_to_fit
from inference_pio.runtime.opened import DescribedModel, OpenedModel, model_store
from inference_pio.runtime.prepared import Prepared, prepare_model
from inference_pio.runtime.receipts import receipt_grants, word_of_receipts
from inference_pio.security import ResourceLimits
from inference_pio.security.report import threads_for


def plan_within(
    plugin: ModelPlugin,
    config: BaseModelConfig,
    options: RuntimeOptions,
    limits: ResourceLimits | None,
    progress: Progress | None,
    opened: OpenedModel | DescribedModel,
    grants: Grants | None = None,
) -> Fitted:
    """
    Args:
        grants: what approximate techniques may do, in place of what the checkpoint's receipt says.

    Raises:
        ResourceError: the plan does not fit, and is not to be made to, or cannot be; with what would fit.
        InferencePIOError: the model cannot be planned.
    """
    store = model_store(limits)

    def planned(config: BaseModelConfig, options: RuntimeOptions) -> Prepared:
        allowed: Grants = grants or no_receipt
        if grants is None and isinstance(opened, OpenedModel):
            allowed = receipt_grants(store, opened.checkpoint, config, options)
        return prepare_model(plugin, config, options, limits, progress, opened, allowed)

    if isinstance(opened, OpenedModel):
        return prepared_to_fit(planned, config, options, word_of_receipts(store, opened.checkpoint, config))
    return prepared_to_fit(planned, config, options, _no_word)


def fewer_threads(options: RuntimeOptions, limits: ResourceLimits | None) -> tuple[RuntimeOptions, str]:
    """With `fit` no more threads than there may be, and that in words; empty where there are none too many."""
    most = usable_threads() if limits is None else min(usable_threads(), threads_for(limits.cpu_percent))
    if not options.fit or options.threads is None or options.threads <= most:
        return options, ""
    return replace(options, threads=most), f"{most} compute threads, not {options.threads}"


def with_fewer_threads(fitted: Fitted, reason: str) -> Fitted:
    """That was done first; it takes no part in the sum."""
    least = fitted.asked.plan.least
    return replace(fitted, steps=(Step("fewer_threads", reason, least, least), *fitted.steps))


def _no_word(technique: str, options: RuntimeOptions) -> Grant | None:  # noqa: ARG001
    return None
