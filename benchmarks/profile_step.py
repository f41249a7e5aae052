"""Where the time of one engine step goes: decode steps of 1 and of 32 sequences, and the prefill of a long prompt.

    python benchmarks/profile_step.py [--model smollm2-135m-instruct] [--steps 20] [--dtype auto]

Every part is timed by itself, what runs inside it left out, so that the shares add up to the step. Taking the time
costs a few microseconds per call: compare shares, and take speed from the benchmarks.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from inference_pio import ops
from inference_pio.benchmarks.workload import Workload
from inference_pio.engine import core as engine_core
from inference_pio.engine import drawing
from inference_pio.engine.core import EngineCore
from inference_pio.errors import InferencePIOError
from inference_pio.layers import Linear, VocabParallelEmbedding
from inference_pio.ops import dispatch
from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.runtime.loading import engine_config, load_model
from inference_pio.runtime.opened import model_store, open_model
from inference_pio.runtime.prepared import prepare_model

CASES = (
    Workload(prompt_len=256, output_len=2**10, concurrency=1),
    Workload(prompt_len=256, output_len=2**10, concurrency=32),
    Workload(prompt_len=1024, output_len=1, concurrency=1),
)


class Stopwatch:
    """Own time and calls of each wrapped part: what wrapped parts inside it take is theirs."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._inside: list[float] = []

    def wrap(self, owner: Any, attribute: str, name: str) -> None:
        """Replace a function of a module, an object or a dictionary by a timed one."""
        if isinstance(owner, dict):
            owner[attribute] = self._timed(name, owner[attribute])
        else:
            setattr(owner, attribute, self._timed(name, getattr(owner, attribute)))

    def add(self, name: str, seconds: float) -> None:
        """A part that was timed elsewhere."""
        self.seconds[name] += seconds
        self.calls[name] += 1
        if self._inside:
            self._inside[-1] += seconds

    def reset(self) -> None:
        self.seconds.clear()
        self.calls.clear()

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - start
                self.seconds[name] += spent - self._inside.pop()
                self.calls[name] += 1
                if self._inside:
                    self._inside[-1] += spent

        return timed


@dataclass
class Profiled:
    """An engine without its loop, every part of which is timed."""

    core: EngineCore
    vocab_size: int
    watch: Stopwatch


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a name, a GGUF file or a directory")
    parser.add_argument("--dtype", default="auto", help="auto (packed weights), float32, bfloat16 or float16")
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed, after 3 to warm up")
    chosen = parser.parse_args(arguments)
    try:
        profiled = load(chosen.model, chosen.dtype)
    except InferencePIOError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    console = Console() if sys.stdout.isatty() else Console(width=120)
    for workload in CASES:
        steps = chosen.steps if workload.output_len > 1 else max(1, chosen.steps // 5)
        seconds = profile(profiled, workload, steps)
        console.print(table_of(profiled.watch, workload, steps, seconds))
    return 0


def load(model: str, dtype: str) -> Profiled:
    """The model as `LLM` would load it, with every part wrapped."""
    options = RuntimeOptions(max_model_len=2048, max_num_seqs=32, speculation=0, skip_tokenizer_init=True)
    opened = open_model(model, options)
    plugin = default_registry().create(default_registry().for_checkpoint(opened.raw, model).name)
    config = plugin.config_class(model_path=str(opened.source.path), torch_dtype=dtype)
    ready = prepare_model(plugin, config, options, None, None, opened)
    loaded = load_model(ready, model_store(None))
    core = EngineCore(
        loaded,
        ready.serving.cache_specs,
        engine_config(ready),
        vocab_size=ready.config.vocab_size,
        eos_token_ids=(),
        prefix_policy=plugin.prefix_policy(ready.config),
        device=ready.device,
    )
    watch = Stopwatch()
    _wrap_model(watch, loaded)
    _wrap_replay(watch)
    _wrap_engine(watch, core)
    return Profiled(core, ready.config.vocab_size, watch)


def _wrap_model(watch: Stopwatch, model: nn.Module) -> None:
    watch.wrap(model, "forward", "model: Python between operations")
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, Linear):
            watch.wrap(module, "forward", f"linear: {last}")
        elif isinstance(module, VocabParallelEmbedding):
            watch.wrap(module, "forward", "embedding")
    for implementation, functions in (("reference", dispatch._reference), ("native", dispatch._native)):
        for name in dispatch.OPS:
            watch.wrap(functions, name, f"{implementation}: {name}")


def _wrap_replay(watch: Stopwatch) -> None:
    """A replayed step is one call; its operations tell their own times."""

    def timed(step: ops.RecordedStep) -> Tensor:
        for name, seconds in step.timed_replay():
            watch.add(f"replayed: {name}", seconds)
        return step.result

    setattr(ops.RecordedStep, "replay", timed)  # noqa: B010
    watch.wrap(ops.RecordedStep, "replay", "replay: the call itself")


def _wrap_engine(watch: Stopwatch, core: EngineCore) -> None:
    watch.wrap(engine_core, "build_batch", "engine: build the batch")
    watch.wrap(drawing, "sample", "engine: sample")
    watch.wrap(core._scheduler, "schedule", "engine: schedule")
    watch.wrap(core, "_update", "engine: update sequences")
    watch.wrap(core, "step", "engine: rest of the step")


def profile(profiled: Profiled, workload: Workload, steps: int) -> float:
    """Seconds of `steps` decode steps, timed after all prefills, or of whole prefills; the parts are in the watch."""
    core, watch = profiled.core, profiled.watch
    prefill_only = workload.output_len == 1
    total, done = 0.0, -3  # the first ones warm up
    if not prefill_only:
        _add(profiled, workload, 0)
        while core.stats().num_waiting or core.stats().generation_tokens < workload.concurrency:
            core.step()
    while done < steps:
        if done == 0:
            watch.reset()
        if prefill_only:
            _add(profiled, workload, done)
        start = time.perf_counter()
        core.step()
        while prefill_only and core.has_work:  # a long prompt takes several steps
            core.step()
        total += time.perf_counter() - start if done >= 0 else 0.0
        done += 1
    for number in range(workload.concurrency):
        core.abort(f"{workload.concurrency}-{number}")
    while core.has_work:
        core.step()
    return total


def _add(profiled: Profiled, workload: Workload, turn: int) -> None:
    [prompts] = workload.waves(profiled.vocab_size, turn)
    for number, prompt in enumerate(prompts):
        profiled.core.add_request(f"{workload.concurrency}-{number}", prompt, workload.sampling())


def table_of(watch: Stopwatch, workload: Workload, steps: int, seconds: float) -> Table:
    kind = "prefill" if workload.output_len == 1 else "decode step"
    where = sorted({f"{choice.implementation}" for choice in ops.table() if choice.device == "cpu"})
    table = Table(
        title=f"{kind}, {workload.concurrency} sequence(s) of {workload.prompt_len} tokens, "
        f"operations {', '.join(where)}: {1000 * seconds / steps:.2f} ms",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for name in ("part", "ms each", "share", "calls each"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for name, spent in sorted(watch.seconds.items(), key=lambda item: -item[1]):
        table.add_row(
            name, f"{1000 * spent / steps:.3f}", f"{spent / seconds:.1%}", f"{watch.calls[name] / steps:g}"
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
