"""`inference-pio tune`: which options are best for a model on this machine."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inference_pio.cli.engine_options import EngineOptions
from inference_pio.cli.held import within
from inference_pio.cli.options import AsJson, Model, Quiet
from inference_pio.cli.progress import download_bars
from inference_pio.cli.session import importing
from inference_pio.cli.tables import print_json

if TYPE_CHECKING:
    from inference_pio.benchmarks.tuning.tune import Tuning

_BUSY = 0.5  # processes beside this one, per processor


def tune(
    model: Model,
    engine: EngineOptions,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="X", help="Time to measure in, once the model is loaded.")
    ] = 60.0,
    int8_cache: Annotated[
        bool,
        typer.Option(
            "--int8-cache", help="Also try keys and values in 8 bits, which moves answers a little."
        ),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure which threads, chunks, blocks, cache format and depth of guesses are best for a model here, for one
    request (--profile latency, as by default) or many (--profile throughput).

    The result is kept in the model cache and used from then on, except for options that are given and with --no-tuned.
    Options that are given here are not searched. Ctrl-C leaves everything as it was.
    """
    keywords = engine.keywords(None)
    within(engine, "tune")
    with importing():
        import msgspec

        from inference_pio.benchmarks.tuning.tune import tune as measure
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    with download_bars(quiet) as progress:
        found = measure(
            model,
            engine.profile or "latency",
            seconds,
            int8_cache=int8_cache,
            report=_note if not quiet and not as_json else lambda _: None,
            progress=progress,
            **keywords,
        )
    busy = load > _BUSY * (os.cpu_count() or 1)
    if as_json:
        print_json({**msgspec.to_builtins(found.tuned), **_facts(found), "load": load, "busy": busy})
        return
    print(_verdict(found))
    if busy:
        print(f"The machine was busy (load {load:.1f}): what is best when it is idle may be something else.")


def _verdict(found: Tuning) -> str:
    from inference_pio.runtime.tuned import in_words

    tuned = found.tuned
    if found.gained:
        return (
            f"{in_words(tuned.options)}: {tuned.ratio:.2f} times as fast as the defaults ({tuned.low:.2f} to "
            f"{tuned.high:.2f}, with {tuned.confidence:.0%} confidence) at {tuned.work}. Kept in {found.file} and used "
            f"from now on; --no-tuned leaves it aside."
        )
    tried = f"{found.found.evaluations} measurements of {tuned.work}"
    if found.effect is None:
        return f"No gain: nothing was better than the defaults in {tried}. They are kept."
    ratio = found.effect.ratio
    changed = {name: value for name, value in found.found.setting.items() if value != found.start[name]}
    return (
        f"No gain for certain: {', '.join(f'{name} {value}' for name, value in changed.items())} gave "
        f"{ratio.median:.2f} times the speed ({ratio.interval.low:.2f} to {ratio.interval.high:.2f}) in {tried}. "
        f"The defaults are kept."
    )


def _facts(found: Tuning) -> dict[str, Any]:
    return {
        "gained": found.gained,
        "verdict": found.effect.verdict if found.effect is not None else "nothing better found",
        "found": dict(found.found.setting),
        "defaults": dict(found.start),
        "moves": [vars(move) for move in found.found.moves],
        "evaluations": found.found.evaluations,
        "complete": found.found.complete,
        "file": str(found.file),
    }


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
