"""Run as a program: the peak of one step of a random model, measured, and what the memory plan says of it.

    python step_peak.py '{"name": "llama", "fields": {…}, "dtype": "bfloat16", "tokens": 4096, "sequences": 1}'

prints {"measured": bytes, "planned": bytes}. Linux only: the kernel's high-water mark of resident memory is reset in
front of the step.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inference_pio.conformance.bare_model import tensors_of
from inference_pio.layers.protocol import FinishesLoading, KeepsDtype
from inference_pio.parallel import Shard
from inference_pio.plugin.batch import ForwardBatch
from inference_pio.plugin.registry import default_registry
from inference_pio.plugin.runtime import RuntimeOptions
from inference_pio.plugin.serving import Serving
from inference_pio.runtime.plan import Budget, plan_memory
from inference_pio.runtime.prepared import scratch_of

BLOCK = 32


def random_model(plugin: Any, config: Any, dtype: torch.dtype) -> nn.Module:
    """As loading would leave it, with numbers that mean nothing."""
    model: nn.Module = plugin.build_model(config, Shard())
    for module in model.modules():
        kept = module.parameter_dtype if isinstance(module, KeepsDtype) else dtype
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.normal_(0, 0.05).to(kept)
    for module in model.modules():
        if isinstance(module, FinishesLoading):
            module.finish_loading(torch.device("cpu"), dtype)
    return model.eval()


def step(tokens: int, sequences: int, context: int) -> ForwardBatch:
    """The last tokens of sequences of `context` tokens, the same number of each."""
    each, blocks = tokens // sequences, -(-context // BLOCK)
    tables = [[number * blocks + block for block in range(blocks)] for number in range(sequences)]
    span = range(context - each, context)
    ends = torch.arange(1, sequences + 1)
    return ForwardBatch(
        token_ids=torch.randint(0, 100, (each * sequences,)),
        positions=torch.tensor([*span] * sequences),
        query_start=torch.arange(sequences + 1, dtype=torch.int32) * each,
        seq_lens=torch.tensor([context] * sequences, dtype=torch.int32),
        block_tables=torch.tensor(tables, dtype=torch.int32),
        slot_mapping=torch.tensor([table[p // BLOCK] * BLOCK + p % BLOCK for table in tables for p in span]),
        state_slots=torch.arange(sequences),
        last_token=ends * each - 1,
        max_query_len=each,
        max_seq_len=context,
    )


def resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def measure(
    name: str, fields: dict[str, Any], dtype: str, tokens: int, sequences: int = 1, context: int = 0
) -> dict[str, int]:
    torch.set_num_threads(1)
    plugin, number_type = default_registry().create(name), getattr(torch, dtype)
    config: Any = plugin.config_class(**fields)
    model, context = random_model(plugin, config, number_type), context or tokens // sequences
    specs = plugin.cache_specs(config, number_type, Shard())
    blocks = sequences * -(-context // BLOCK)
    caches = [spec.allocate(blocks, BLOCK, sequences, torch.device("cpu")) for spec in specs]
    for cache in caches:
        for tensor in tensors_of(cache):
            tensor.fill_(0.01)  # memory that was never written is not resident yet
    keeps_state = any(spec.bytes_per_sequence() for spec in specs)

    def run(batch: ForwardBatch) -> None:
        with torch.inference_mode():
            model(batch if keeps_state else replace(batch, state_slots=None), caches)

    run(step(2 * sequences, sequences, context))
    measured = step(tokens, sequences, context)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    run(measured)
    peak = resident("VmHWM") - before
    options = RuntimeOptions(
        max_num_batched_tokens=tokens, max_num_seqs=sequences, max_model_len=context, block_size=BLOCK
    )
    scratch = partial(scratch_of, model, number_type.itemsize)
    budget = Budget(10**12, "a machine of any size")
    plan = plan_memory(
        config,
        Serving(specs),
        options,
        budget,
        weight_bytes=0,
        itemsize=number_type.itemsize,
        mapped_bytes=0,
        reuse=plugin.prefix_policy(config).reuse,
        images=None,
        scratch=scratch,
    )
    return {"measured": peak, "planned": plan.activations}


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
