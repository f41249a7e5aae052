"""A model that runs in a worker from the beginning, without its plugin in this process."""

from __future__ import annotations

from collections.abc import Sequence

from inference_pio.config import BaseModelConfig, Profile
from inference_pio.errors import UsageError, one_line
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.plugin.starting import Running, StartRequest
from inference_pio.worker.as_data import with_figures
from inference_pio.worker.messages import Load
from inference_pio.worker.runtime import WorkerRuntime

_MOST_LINES, _MOST_COLUMNS = 32, 1000


def run_in_a_worker(asked: StartRequest) -> Running:
    """A `Starter`.

    Raises:
        UsageError: a value cannot be given to another process.
        InferencePIOError: the model cannot be found, read or run, within its limits.
    """
    if isinstance(asked.profile, Profile):
        raise UsageError("a model in a worker takes a profile by its name")
    options = RuntimeOptions(**asked.options)
    load = Load(
        asked.model,
        asked.plugin,
        {name: _plain(value) for name, value in asked.config.items()},
        dict(asked.options),
        asked.profile,
        asked.tuned,
    )
    runtime = WorkerRuntime(asked.level, asked.limits, asked.enforcement)
    try:
        planned = runtime.start(load, options, asked.progress)
        config = with_figures(BaseModelConfig(), planned.config)
        runtime.launch()
    except BaseException:
        runtime.close()
        raise
    return Running(asked.model, runtime, config, warnings=_told(planned.warnings), notes=_told(planned.notes))


def _told(lines: Sequence[str]) -> tuple[str, ...]:
    """What a worker says to people: a few lines, as lines."""
    return tuple(one_line(line[:_MOST_COLUMNS])[:_MOST_COLUMNS] for line in lines[:_MOST_LINES])


def _plain(value: object) -> object:
    """A dtype by its name."""
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)
