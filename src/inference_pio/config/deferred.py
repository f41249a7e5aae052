"""The one table of configuration fields that nothing reads yet, with what will serve each. It may only shrink."""

from __future__ import annotations

from collections.abc import Mapping

_FRAMEWORK = "the optimisation framework"

DEFERRED_FIELDS: Mapping[str, str] = {
    "device_map": "placing layers on several devices, with tensor paging",
    "low_cpu_mem_usage": "tensor paging; loading streams tensor by tensor in any case",
    "use_sparse_attention": f"page selection by query, in {_FRAMEWORK}",
    "use_sliding_window_attention": f"windows with sink tokens, in {_FRAMEWORK}",
}
