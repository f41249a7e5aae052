"""The memory plan against the worker that it is about, measured from outside.

What counts is what the kernel counts against the worker's limit: memory of its own, once it is mapped (VmData). The
worker has exactly the plan for a limit, so that it also has to do with it: load, fill the cache to its last block,
answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from inference_pio import ResourceLimits, SamplingParams, SecurityLevel
from inference_pio.engine.media import FEATURE_CACHE_BYTES
from inference_pio.ops import native
from inference_pio.plugin.media import ImageSource
from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import EncodedPrompt, ImagePrompt, RuntimeOptions
from inference_pio.runtime.plan_only import plan_only
from inference_pio.security import landlock
from inference_pio.worker.messages import Load
from inference_pio.worker.runtime import WorkerRuntime
from support.big_models import SIZES, VOCAB, checkpoint
from support.images import saved

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock"),
    pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING)),
]

PARAMS = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
OPTIONS: dict[str, Any] = {
    "max_model_len": 512,
    "max_num_seqs": 8,
    "kv_cache_memory_gb": 0.03,
    "skip_tokenizer_init": True,
}
# Plugin, blocks of a GGUF file, dtype, more options.
CASES: dict[str, tuple[str, str | None, str, dict[str, Any]]] = {
    "llama float32": ("llama", None, "float32", {}),
    "llama bfloat16": ("llama", None, "bfloat16", {}),
    "llama float32, int8 cache": ("llama", None, "float32", {"kv_cache_dtype": "int8"}),
    "llama int8": ("llama", None, "auto", {"quantize": "int8"}),
    "llama int4": ("llama", None, "auto", {"quantize": "int4"}),
    "llama Q4_0": ("llama", "Q4_0", "auto", {}),
    "llama Q8_0": ("llama", "Q8_0", "auto", {}),
    "qwen2 bfloat16": ("qwen2", None, "bfloat16", {}),
    "qwen3 bfloat16": ("qwen3", None, "bfloat16", {}),
    "qwen3 int8": ("qwen3", None, "auto", {"quantize": "int8"}),
    "gemma3 bfloat16": ("gemma3_text", None, "bfloat16", {}),
    "experts bfloat16": ("qwen3_moe", None, "bfloat16", {}),
    "experts int8": ("qwen3_moe", None, "auto", {"quantize": "int8"}),
    "delta rule float32": ("qwen3_next", None, "float32", {}),
    "latents bfloat16": ("glm4_moe_lite", None, "bfloat16", {}),
    "latents int8": ("glm4_moe_lite", None, "auto", {"quantize": "int8"}),
    "images float32": ("qwen3_vl", None, "float32", {}),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str | None], Path]:
    """A plugin's checkpoint in one kind of file: written once."""
    return cache(lambda name, blocks: checkpoint(name, tmp_path_factory.mktemp("big"), blocks))


@pytest.mark.parametrize("case", CASES)
def test_a_plan_holds_and_is_not_much_more(case: str, written: Callable[[str, str | None], Path]) -> None:
    name, blocks, dtype, more = CASES[case]
    if name not in default_registry().names():
        pytest.skip(f"plugin {name} is not installed")
    path, options = str(written(name, blocks)), {**OPTIONS, **more}
    limit = plan_only(path, dtype, "cpu", RuntimeOptions(**options), None, None).prepared.plan.total
    with _worker(path, dtype, options, limit) as (runtime, plan, measured):
        runtime.launch()
        prompts = _prompts(plan)
        ended = runtime.generate(prompts, [PARAMS] * len(prompts))
        few = [EncodedPrompt(None, [9] * 20)] * OPTIONS["max_num_seqs"]
        ended += runtime.generate(few, [PARAMS] * len(few))
        for length in (
            range(9, 480, 11) if dtype == "bfloat16" else ()
        ):  # their products are code for each size
            ended += runtime.generate([EncodedPrompt(None, [length] * length)], [PARAMS])
        if name == "qwen3_vl":
            for seen in _pictures():  # one after the other: pixels of requests that wait are in no plan
                ended += runtime.generate([seen], [PARAMS])
        assert runtime.model.restarts == 0
    assert {one.outputs[0].finish_reason for one in ended} == {"length"}
    told = f"{measured[0] / 1e6:.0f} MB, planned: {plan['sum']}"
    assert measured[0] <= plan["total"], told
    assert plan["total"] <= 1.25 * measured[0], told


@contextmanager
def _worker(
    path: str, dtype: str, options: dict[str, Any], limit: int
) -> Iterator[tuple[WorkerRuntime, dict[str, Any], list[int]]]:
    """A worker that has planned, its plan, and its largest number of bytes so far."""
    gigabytes = (limit + 0.5) / 1e9  # as a number with a point it would be a byte less
    limits = ResourceLimits(memory_gb=gigabytes, cpu_percent=200, gpu_memory_gb=0, network_bandwidth_mbps=0)
    load = Load(path, None, {"torch_dtype": dtype}, options, None, False, None, None)
    runtime = WorkerRuntime(SecurityLevel.LOW_TRUST, limits)
    try:
        planned = runtime.start(load, RuntimeOptions(**options), None)
        peak, over = [0], threading.Event()
        watching = threading.Thread(target=_look, args=(runtime.model.pid, peak, over))
        watching.start()
        try:
            yield runtime, planned.fitting.after, peak
        finally:
            over.set()
            watching.join()
    finally:
        runtime.close()


def _look(pid: int, peak: list[int], over: threading.Event) -> None:
    status = Path(f"/proc/{pid}/status")
    while not over.wait(0.005):
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        peak[0] = max(peak[0], int(fields["VmData"].removesuffix("kB")) * 1024)


def _pictures() -> list[ImagePrompt]:
    """Different images, of all tokens that a prompt has room for: more than the features that are kept have."""
    sizes: Any = SIZES["qwen3_vl"]
    layers = 1 + len(sizes["vision_config"]["deepstack_visual_indexes"])
    each = 15 * 32 * sizes["vision_config"]["out_hidden_size"] * 4 * layers
    prompts = []
    for number in range(FEATURE_CACHE_BYTES // each + 2):
        image = saved(Image.new("RGB", (15 * 32, 32 * 32), (number, 0, 0)), "PNG")
        prompts.append(ImagePrompt([10, 7, 9], (ImageSource("images[0]", image),)))
    return prompts


def _prompts(plan: dict[str, Any]) -> list[EncodedPrompt]:
    """As many tokens as the cache has room for, answers included."""
    chance, left, prompts = Random(1), plan["kv_tokens"], []
    while left >= 2 * PARAMS.max_tokens and len(prompts) < plan["num_seqs"]:
        length = min(left, plan["max_model_len"])
        left -= length
        ids = [chance.randrange(16, VOCAB - 10) for _ in range(length - PARAMS.max_tokens)]
        prompts.append(EncodedPrompt(None, ids))
    return prompts
