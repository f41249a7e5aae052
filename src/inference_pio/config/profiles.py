"""Profiles: what somebody wants of a model, as fields of its configuration and options of the engine, by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from inference_pio.errors import UsageError


@dataclass(frozen=True)
class Profile:
    """
    purpose  in one line
    config   fields of `BaseModelConfig` and their values
    engine   fields of `RuntimeOptions` and their values
    """

    name: str
    purpose: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)


_FASTEST = {
    "torch_dtype": "auto",
    "use_flash_attention_2": True,
    "use_paged_attention": True,
    "use_fused_layer_norm": True,
    "use_bias_removal_optimization": True,
    "use_prefix_caching": True,
}
PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                "latency",
                "one answer, or a few at once, as soon as possible",
                config={**_FASTEST, "prefix_cache_max_size": 2**29},
                # A decoding sequence waits for the chunk of prompt that shares its step: chunks are short.
                engine={"max_num_seqs": 4, "max_num_batched_tokens": 256, "speculation": 15, "mtp": True},
            ),
            Profile(
                "throughput",
                "many answers at once, as many tokens as possible in all",
                config=_FASTEST,
                # With many sequences a row for a guess costs as much as one for a sequence.
                engine={"max_num_seqs": 128, "max_num_batched_tokens": 1024, "speculation": 0, "mtp": False},
            ),
            Profile(
                "memory",
                "as little memory as possible",
                config={
                    "torch_dtype": "auto",
                    "low_cpu_mem_usage": True,
                    "gradient_checkpointing": True,
                    "use_kv_cache_compression": True,
                    "prefix_cache_max_size": 2**25,
                },
                engine={
                    "max_num_seqs": 4,
                    "max_num_batched_tokens": 128,
                    "block_size": 16,
                    "kv_cache_memory_gb": 0.5,
                    "speculation": 0,
                    "mtp": False,
                },
            ),
            Profile(
                "quality",
                "nothing rounded that the checkpoint has not rounded",
                config={
                    "torch_dtype": "float32",
                    "use_kv_cache_compression": False,
                    "use_sparse_attention": False,
                },
                engine={"quality": "exact", "quantize": None},
            ),
        )
    }
)


def find_profile(name: str, known: Mapping[str, Profile] = PROFILES) -> Profile:
    """Raises UsageError, with the nearest name, where there is no such profile."""
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise UsageError(f"No profile found that is called {name!r}; {hint}")
    return known[name]
