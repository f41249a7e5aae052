"""The model that `bench` measures, and how its options are kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference_pio.cli.engine_options import EngineOptions
from inference_pio.cli.progress import download_bars

if TYPE_CHECKING:
    from inference_pio.benchmarks.command import Settings
    from inference_pio.benchmarks.records import Record
    from inference_pio.benchmarks.report import Report
    from inference_pio.benchmarks.suites import Found


@dataclass(frozen=True)
class Subject:
    """The model that is measured."""

    name: str
    plugin: str
    checkpoint: str
    found: Found

    def record(self, reports: Sequence[Report], settings: Settings, finished: bool) -> Record:
        from inference_pio.benchmarks.history import record_of

        return record_of(
            self.name, self.plugin, self.checkpoint, stated(settings), list(reports), finished=finished
        )


def subject_of(model: str, engine: EngineOptions, quiet: bool) -> Subject:
    """Find the model and its suite; only headers are read."""
    from inference_pio.benchmarks.suites import suite_for
    from inference_pio.loader.identity import checkpoint_identity
    from inference_pio.plugin.registry import default_registry
    from inference_pio.runtime.opened import model_store, open_model

    with download_bars(quiet) as progress, ExitStack() as files:
        opened = open_model(model, engine.runtime_options(1), progress, model_store(engine.limits()))
        files.callback(opened.checkpoint.close)
        manifest = default_registry().choose(opened.raw, str(opened.source.path), engine.plugin)
        return Subject(
            opened.source.name,
            manifest.name,
            checkpoint_identity(opened.checkpoint),
            suite_for(manifest.name, opened),
        )


def engine_settings(engine: EngineOptions) -> dict[str, Any]:
    """Fields of `Settings` that say how the model runs; wrong values raise `UsageError` here."""
    return {
        "dtype": engine.dtype_of_all(),
        "device": engine.device,
        "options": engine.asked(None),
        "tuned": not engine.no_tuned,
        "flags": {"use_prefix_caching": False} if engine.no_prefix_caching else {},
        "limits": engine.limits(),
    }


def stated(settings: Settings) -> dict[str, Any]:
    """What the caller set, as it is kept: values that change figures."""
    from inference_pio.benchmarks.records import plain_settings

    plain, usual = plain_settings(settings), plain_settings(type(settings)())
    ungrouped = {"options", "flags"}
    stated = {
        name: value
        for name, value in plain.items()
        if name not in ungrouped | {"model"} and value != usual[name]
    }
    no_figures = {"accept_licence", "download"}
    return stated | {
        name: value for group in ungrouped for name, value in plain[group].items() if name not in no_figures
    }
