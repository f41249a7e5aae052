"""Whether a model is prepared with its checkpoint's own layer for drafts."""

from __future__ import annotations

from typing import Any

from inference_pio.loader.tensor_info import CheckpointHeader
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.runtime import RuntimeOptions


def with_drafting(
    plugin: ModelPlugin, stated: Any, options: RuntimeOptions, header: CheckpointHeader | None
) -> Any:
    """The configuration that a checkpoint states, changed so that its layer for drafts is loaded, if it has one and
    speculation is on. Where its tensors are not known (None), it is taken to have none.
    """
    if header is None or not (options.mtp and options.speculation):
        return stated
    return plugin.with_drafting(stated, header.tensors.keys()) or stated
