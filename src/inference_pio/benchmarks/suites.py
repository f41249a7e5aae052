"""Which suite measures a model: its plugin's own, or one by its size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from inference_pio.benchmarks.usual import usual_techniques
from inference_pio.benchmarks.workload import Suite, Workload
from inference_pio.errors import PluginError
from inference_pio.loader.checkpoint import CheckpointHeader
from inference_pio.plugin.registry import Registry, default_registry
from inference_pio.runtime.opened import OpenedModel

# Where a plugin declares its suite, below its package.
PLACE = "benchmarks.workloads:SUITE"
_SMALL, _MEDIUM = 300_000_000, 2_000_000_000


@dataclass(frozen=True)
class Found:
    """`notes` say in words what is not as the plugin declares it."""

    suite: Suite
    notes: tuple[str, ...] = ()


def suite_for(plugin: str, opened: OpenedModel, registry: Registry | None = None) -> Found:
    """The suite of the plugin called `plugin`, within the context of the opened model.

    Raises:
        PluginError: what the plugin declares is not a suite.
    """
    declared = (registry or default_registry()).part(plugin, PLACE)
    notes = []
    if declared is None:
        parameters = parameters_of(opened.header)
        suite = by_size(plugin, parameters)
        notes.append(
            f"plugin {plugin!r} declares no workloads ({PLACE}): usual ones for {parameters / 1e6:,.0f} M parameters"
        )
    elif not isinstance(declared, Suite):
        raise PluginError(f"{PLACE} of {plugin!r} is not a Suite but {type(declared).__name__}")
    else:
        suite = declared
    positions = context_of(opened)
    if positions is not None:
        fitting = suite.within(positions)
        if replace(fitting, context=suite.context) != suite:
            notes.append(f"prompts are shortened to the model's context of {positions} tokens")
        suite = fitting
    return Found(suite, tuple(notes))


def by_size(plugin: str, parameters: int) -> Suite:
    """Work that ends within minutes on a laptop."""
    if parameters <= _SMALL:
        batch, prompt, answer = Workload(256, 128, concurrency=32), 1024, 64
    elif parameters <= _MEDIUM:
        batch, prompt, answer = Workload(256, 64, concurrency=8), 512, 32
    else:
        batch, prompt, answer = Workload(128, 32, concurrency=4), 256, 16
    return Suite(
        plugin=plugin,
        model="",
        batch=batch,
        prefill=Workload(prompt, 1),
        decode=Workload(16, answer),
        techniques=usual_techniques(Workload(prompt // 2, 1), Workload(64, 8, concurrency=4)),
    )


def parameters_of(header: CheckpointHeader) -> int:
    """Weights in the checkpoint's tensors."""
    return sum(tensor.num_elements for tensor in header.tensors.values())


def context_of(opened: OpenedModel) -> int | None:
    """Positions that the checkpoint says the model has; None where it does not."""
    raw = opened.raw
    architecture = raw.get("general.architecture")
    stated: Any = raw.get(f"{architecture}.context_length" if architecture else "max_position_embeddings")
    if stated is None and isinstance(text := raw.get("text_config"), dict):
        stated = text.get("max_position_embeddings")
    return stated if isinstance(stated, int) and stated > 1 else None
