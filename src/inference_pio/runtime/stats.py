"""Measured figures of a running model, with units in their names."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from inference_pio.engine.updates import EngineStats
from inference_pio.layers.paged import pagers_of
from inference_pio.layers.protocol import TakesQuantized, TakesStacks
from inference_pio.loader.prefix_store import PrefixStore
from inference_pio.loader.store import ModelStore, free_bytes
from inference_pio.metrics.memory import available_bytes, peak_process_bytes, process_bytes
from inference_pio.runtime.opened import OpenedModel
from inference_pio.runtime.plan import MemoryPlan


def memory_stats(
    model: nn.Module | None, engine: EngineStats | None, plan: MemoryPlan | None, block_size: int
) -> dict[str, float]:
    """Bytes; those of the KV cache with the state of sequences, where the model keeps any."""
    reserved = used = 0
    if engine is not None and plan is not None:
        block = plan.kv_bytes_per_token * block_size
        reserved = engine.blocks_total * block + plan.state
        used = engine.blocks_used * block + engine.num_running * plan.state_bytes_per_sequence
    return {
        "process_bytes": process_bytes(),
        "process_peak_bytes": peak_process_bytes(),
        "available_bytes": available_bytes(),
        "weights_bytes": loaded_weight_bytes(model) if model is not None else 0,
        "kv_cache_reserved_bytes": reserved,
        "kv_cache_used_bytes": used,
    }


def given_back(plan: MemoryPlan | None, before: int, after: int) -> dict[str, Any]:
    """What emptying the prefix cache gave back, in bytes of the process."""
    told: dict[str, Any] = {"process_bytes_before": before, "process_bytes_after": after}
    if plan is None:
        return told
    figures = {**plan.as_dict(), "sum": plan.sum_text()}
    reason = "cached prefixes were given up, and freed memory went back"
    applied = {
        "technique": "prefix_caching",
        "reason": reason,
        "bytes_before": before,
        "bytes_after": after,
    }
    return {**told, "applied": [applied], "before": figures, "after": figures, "fits": plan.fits}


def compute_stats(engine: EngineStats | None) -> dict[str, float]:
    """CPU seconds and threads of this process; counts of the engine since it was loaded."""
    times = os.times()
    stats: dict[str, float] = {
        "cpu_user_seconds": times.user,
        "cpu_system_seconds": times.system,
        "compute_threads": torch.get_num_threads(),
    }
    if engine is not None:
        stats |= {
            "steps": engine.steps,
            "step_seconds": engine.work.step_seconds,
            "step_tokens": engine.work.step_tokens,
            "queue_seconds": engine.work.queue_seconds,
            "prompt_tokens": engine.prompt_tokens,
            "generation_tokens": engine.generation_tokens,
            "requests_running": engine.num_running,
            "requests_waiting": engine.num_waiting,
            "preemptions": engine.preemptions,
            "prefix_cache_hit_tokens": engine.prefix_hit_tokens,
            "prefix_cache_tier_hit_tokens": engine.prefix_tier_hit_tokens,
            "prefix_cache_query_tokens": engine.prefix_query_tokens,
            "draft_tokens": engine.draft_tokens,
            "accepted_draft_tokens": engine.accepted_draft_tokens,
            "predicted_draft_tokens": engine.predicted_draft_tokens,
            "accepted_predicted_tokens": engine.accepted_predicted_tokens,
            "evicted_tokens": engine.evicted_tokens,
        }
    return stats


def disk_stats(
    opened: OpenedModel | None, store: ModelStore, prefixes: PrefixStore | None, model: nn.Module | None
) -> dict[str, float]:
    """Bytes; blocks of prefixes, where they are kept on the disk; seconds that computations waited for layers there."""
    pagers = pagers_of(model) if model is not None else []
    counts = [pager.counts() for pager in pagers]
    return {
        "paged_read_bytes": sum(count.read_bytes for count in counts),
        "paged_wait_seconds": sum(count.waited_seconds for count in counts),
        "model_bytes": sum(tensor.nbytes for tensor in opened.checkpoint.tensors.values()) if opened else 0,
        "model_cache_bytes": store.disk_usage_bytes(),
        "model_cache_limit_bytes": store.limit_bytes if store.limit_bytes is not None else float("inf"),
        "free_bytes": free_bytes(store.home),
        **(prefixes.stats if prefixes is not None else {}),
    }


def loaded_weight_bytes(model: nn.Module) -> int:
    """Bytes of all weights as they lie in memory, each storage once; what layers on the disk share counts as it is."""
    storages = {parameter.data_ptr(): parameter.nbytes for parameter in model.parameters()}
    for module in model.modules():
        if isinstance(module, TakesQuantized) and module.packed is not None:
            storages[module.packed.address] = module.packed.nbytes
        if isinstance(module, TakesStacks):
            storages |= {stack.address: stack.nbytes for stack in module.stacks.values()}
    for pager in pagers_of(model):
        places = range(pager.memory.data_ptr(), pager.memory.data_ptr() + pager.memory.nbytes)
        storages = {address: size for address, size in storages.items() if address not in places}
        storages[places.start] = len(places)
    return sum(storages.values())
