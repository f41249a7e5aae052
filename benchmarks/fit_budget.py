"""A model that is refused for its memory limit, made to fit: what was given up for it, and what it uses from outside.

    python benchmarks/fit_budget.py [--plugin qwen2] [--model NAME] [--memory-gb 1.5] [--level low_trust] [--json]

`initialize_plugin` refuses, `manage_resources(plugin, "optimize")` makes it fit, then a prompt as long as the context
allows is answered, and a short one for the speed. Every 5 ms the memory that is the worker's own is read from its
parent's side: RssAnon, RssShmem and what is swapped out.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Sequence
from time import perf_counter, sleep
from typing import Any

from inference_pio import ResourceLimits, SecurityLevel, create_plugin, initialize_plugin, manage_resources
from inference_pio.benchmarks.environment import environment
from inference_pio.plugin.base import ModelPlugin
from inference_pio.worker.runtime import WorkerRuntime

_TEXT = "The keeper of the lighthouse wrote down the weather of each day, and the names of ships. "
_LOOK_SECONDS = 0.005
_OWN = ("RssAnon:", "RssShmem:", "VmSwap:")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plugin", default="qwen2")
    parser.add_argument("--model", default="qwen2.5-coder-1.5b-instruct")
    parser.add_argument("--memory-gb", type=float, default=1.5)
    parser.add_argument("--level", default="low_trust", choices=[level.value for level in SecurityLevel])
    parser.add_argument("--tokens", type=int, default=64, help="of the answer whose speed is measured")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    plugin = create_plugin(chosen.plugin)
    limits = ResourceLimits(memory_gb=chosen.memory_gb, cpu_percent=200, gpu_memory_gb=0)
    fits = initialize_plugin(
        plugin,
        config=plugin.config_class(model_path=chosen.model, do_sample=False),
        security_level=SecurityLevel(chosen.level),
        resource_limits=limits,
    )
    refusal = "" if fits else str(plugin.last_error)
    told = manage_resources(plugin, "optimize")
    peak = _Peak(plugin)
    try:
        figures = _run(plugin, chosen.tokens, told)
    finally:
        own_bytes = peak.stop()
        plugin.cleanup()
    figures |= {"model": chosen.model, "level": chosen.level, "memory_gb": chosen.memory_gb}
    figures |= {"refusal": refusal, "own_bytes_peak": own_bytes, **told}
    if chosen.json:
        print(json.dumps({**figures, "environment": environment()}, indent=2))
    else:
        _show(figures)
    return 0 if own_bytes <= chosen.memory_gb * 1e9 else 1


def _run(plugin: ModelPlugin, tokens: int, told: dict[str, Any]) -> dict[str, Any]:
    began = perf_counter()
    plugin.load_model()
    loaded = perf_counter()
    context = told["after"]["max_model_len"]
    long = _TEXT * (context // 20)
    while len(plugin.tokenize(long)) > context - 8:
        long = long[: len(long) * 9 // 10]
    before = perf_counter()
    plugin.generate_text(long, max_new_tokens=4, ignore_eos=True)
    answered = perf_counter()
    plugin.generate_text(_TEXT, max_new_tokens=1, ignore_eos=True)
    first = perf_counter()
    plugin.generate_text(_TEXT, max_new_tokens=tokens, ignore_eos=True)
    return {
        "load_seconds": loaded - began,
        "prompt_tokens": len(plugin.tokenize(long)),
        "prompt_tokens_per_second": len(plugin.tokenize(long)) / (answered - before),
        "tokens_per_second": tokens / (perf_counter() - first),
        "monitored": manage_resources(plugin, "monitor")["memory_usage"],
    }


class _Peak:
    """The most memory of its own that a worker had, from now on."""

    def __init__(self, plugin: ModelPlugin) -> None:
        runtime = plugin.runtime
        assert isinstance(runtime, WorkerRuntime)
        self._status, self._most, self._over = f"/proc/{runtime.model.pid}/status", 0, False
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> int:
        self._over = True
        self._thread.join()
        return self._most

    def _look(self) -> None:
        while not self._over:
            try:
                with open(self._status) as file:
                    used = sum(int(line.split()[1]) for line in file if line.startswith(_OWN))
            except OSError:  # it ended: the answer that is waited for says why
                return
            self._most = max(self._most, used * 1024)
            sleep(_LOOK_SECONDS)


def _show(figures: dict[str, Any]) -> None:
    print(f"{figures['model']}, {figures['level']}, memory_gb {figures['memory_gb']:g}")
    print(f"refused: {figures['refusal'] or 'no'}")
    for step in figures["applied"]:
        before, after = step["bytes_before"] / 1e9, step["bytes_after"] / 1e9
        print(f"  {step['technique']}: {step['reason']}; needs {before:.3f} → {after:.3f} GB at least")
    for technique, why in figures.get("left_out", {}).items():
        print(f"  not {technique}: {why}")
    for when in ("before", "after"):
        plan = figures[when]
        print(f"{when}: {plan['sum']}; context {plan['max_model_len']:,}, {plan['num_seqs']} at once")
    print(
        f"loaded in {figures['load_seconds']:.1f} s; {figures['prompt_tokens']:,} tokens of prompt at "
        f"{figures['prompt_tokens_per_second']:.1f}, answers at {figures['tokens_per_second']:.1f} tokens/s"
    )
    print(f"own memory at most, from outside: {figures['own_bytes_peak'] / 1e9:.3f} GB")


if __name__ == "__main__":
    sys.exit(main())
