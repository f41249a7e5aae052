"""From a model's name to a plugin that has planned it; nothing large is in memory so far."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from inference_pio.errors import PluginError
from inference_pio.imports import import_object
from inference_pio.loader.resolve import resolve
from inference_pio.packages.choice import external_for
from inference_pio.plugin.base import ModelPlugin
from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.plugin.starting import Running, Starter, StartRequest
from inference_pio.runtime.local import LocalRuntime
from inference_pio.runtime.opened import model_store, open_model
from inference_pio.runtime.settle import Settled, settle
from inference_pio.security import SecurityLevel

_IN_A_WORKER = "inference_pio.worker.start:run_in_a_worker"


@dataclass(frozen=True)
class Started:
    """`plugin` is ready for `load_model`; `name` is what the model is called."""

    name: str
    plugin: ModelPlugin
    runtime: LocalRuntime
    settled: Settled

    @property
    def warnings(self) -> tuple[str, ...]:
        fallback = self.plugin.manifest.fallback
        return (f"{self.name} runs through {fallback}",) if fallback else ()

    @property
    def notes(self) -> tuple[str, ...]:
        told = (self.settled.note, self.runtime.fitted.in_words())
        return tuple(note for note in told if note)


def run_here(asked: StartRequest) -> Running:
    """A `Starter`: the model is loaded, in this process; by a plugin of others in a worker, unless the operator trusts
    it to the most.
    """
    if asked.level is None and _is_of_others(asked):
        apart: Starter = import_object(_IN_A_WORKER)
        return apart(replace(asked, level=SecurityLevel.LOW_TRUST))
    started = start(asked)
    with ExitStack() as undo:
        undo.callback(started.plugin.cleanup)
        started.plugin.load_model()
        undo.pop_all()
    plugin = started.plugin
    return Running(
        started.name,
        started.runtime,
        plugin.config,
        plugin,
        started.settled,
        started.warnings,
        started.notes,
    )


def _is_of_others(asked: StartRequest) -> bool:
    registry = default_registry()
    if asked.plugin is not None:
        return registry.is_elsewhere(asked.plugin)
    if not registry.has_external:
        return False
    options = RuntimeOptions(**asked.options)
    source = resolve(
        asked.model,
        store=model_store(asked.limits),
        progress=asked.progress,
        download=options.download,
        accept_licence=options.accept_licence,
    )
    found = external_for(source.path, None)
    return found is not None and registry.is_elsewhere(found.name)


def start(asked: StartRequest) -> Started:
    """Find the model, choose its plugin and its options, plan its memory.

    Raises:
        InferencePIOError: the model cannot be found, read or run here.
    """
    limits = asked.limits
    store = model_store(limits)
    with ExitStack() as undo:
        opened = open_model(asked.model, RuntimeOptions(**asked.options), asked.progress, store)
        undo.callback(opened.checkpoint.close)
        name, path = opened.source.name, str(opened.source.path)
        registry = default_registry()
        manifest = registry.choose(opened.raw, path, asked.plugin)
        if asked.level is SecurityLevel.MAXIMUM_TRUST:
            registry.trust(manifest.name)
        runtime = LocalRuntime(opened)
        made = registry.create(manifest.name, runtime=runtime)
        undo.callback(made.cleanup)
        settled = settle(
            opened,
            store,
            asked.options,
            asked.config,
            profile=asked.profile,
            tuned=asked.tuned,
            limits=limits,
        )
        wanted = made.config_class(**{"model_name": name, **settled.config, "model_path": path})
        limited = {} if limits is None else {"resource_limits": limits}
        if not made.initialize(config=wanted, progress=asked.progress, **limited, **settled.options):
            raise made.last_error or PluginError(f"{manifest.name!r} could not be initialised")
        undo.pop_all()
    return Started(name, made, runtime, settled)
