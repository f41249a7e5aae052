"""How near decoding comes to the rate at which this machine reads memory: the slope of the roofline.

A step of few sequences reads every weight, and what the cache holds of the tokens before, for two operations a weight:
reading bounds it (Williams, Waterman, Patterson: Roofline, Communications of the ACM 52(4), 2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.samples import Summary
from inference_pio.benchmarks.workload import Workload
from inference_pio.layers import Linear, VocabParallelEmbedding
from inference_pio.layers.protocol import TakesStacks
from inference_pio.optimizations.attention.attending import attending
from inference_pio.runtime.opened import model_store
from inference_pio.runtime.probe import known_rates


@dataclass(frozen=True)
class Reading:
    """What decode steps read on average, in bytes, beside the bytes per second that this machine reads at best.

    why  one of them cannot be told; empty where both can
    """

    step_bytes: float
    rate: float
    why: str = ""

    def share(self, seconds: Sequence[float]) -> Summary:
        """Percent of the rate, for steps that took so many seconds each; missing where it cannot be told."""
        if self.why:
            return Summary.missing()
        return Summary.of([100 * self.step_bytes / one / self.rate for one in seconds])

    def __str__(self) -> str:
        if self.why:
            return f"cannot tell: {self.why}"
        return (
            f"a step reads {self.step_bytes / 1e6:,.1f} MB, this machine {self.rate / 1e9:.1f} GB/s at best"
        )


def decode_reads(workload: Workload, weight_bytes: int, kv_bytes: int, state_bytes: int = 0) -> list[int]:
    """Bytes of one step for each token after the first: every weight once, and keys and values of all sequences, of
    which each has `state_bytes` besides where layers keep state.
    """
    sequences = workload.concurrency
    return [
        weight_bytes + sequences * ((workload.prompt_len + made) * kv_bytes + state_bytes)
        for made in range(1, workload.output_len)
    ]


def reading(loaded: LoadedModel, work: Workload) -> Reading:
    """Of a model that is loaded; nothing is measured for it: the rate is that of `inference-pio probe`."""
    if why := _unknown(loaded, work):
        return Reading(0, 0, why)
    threads = torch.get_num_threads()
    rates = known_rates(model_store(None), threads)
    if rates is None:
        return Reading(0, 0, f"no rate was measured here with {threads} threads (inference-pio probe)")
    plan = loaded.plan
    steps = decode_reads(
        work, read_weight_bytes(loaded.model), plan.kv_bytes_per_token, plan.state_bytes_per_sequence
    )
    return Reading(sum(steps) / len(steps), rates.read_bytes)


def read_weight_bytes(model: nn.Module) -> int:
    """Of all weights that a step reads, each once: of an embedding that is not the head too, nothing."""
    found: dict[int, int] = {}
    for module in model.modules():
        if isinstance(module, (VocabParallelEmbedding, nn.Embedding)):
            continue
        if isinstance(module, Linear) and module.packed is not None:
            found[module.packed.address] = module.packed.nbytes
        found |= {one.data_ptr(): one.nbytes for one in module.parameters(recurse=False)}
    return sum(found.values())


def _unknown(loaded: LoadedModel, work: Workload) -> str:
    """Why it is not known what a step of the model reads from memory; empty where it is."""
    model, plan = loaded.model, loaded.plan
    if loaded.device.type != "cpu":
        return f"rates are those of the processor's memory, and the model runs on {loaded.device}"
    if work.output_len < 2:
        return "one token is no step of decoding"
    if plan.paged or plan.mapped:
        return "weights are read from the disk too"
    if any(isinstance(module, TakesStacks) for module in model.modules()):
        return "which experts a step reads is up to its tokens"
    if hasattr(model, "encode_media"):
        return "weights that only images pass are not told from the others"
    windows = [how.window for _, how in attending(model) if how.window is not None]
    if windows and min(windows) < work.longest:
        return f"layers that see {min(windows)} tokens read less than the cache holds"
    return ""
