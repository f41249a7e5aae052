"""Effects of techniques that put weights on the disk."""

from __future__ import annotations

import pytest

from inference_pio.errors import ResourceError
from inference_pio.security import ResourceLimits
from inference_pio.security.held import held_to
from support.effects import Tiny, effect_of
from support.effects.models import loaded


@effect_of("tensor_paging")
def tensor_paging(tiny: Tiny) -> None:
    path = tiny("multi-query")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFERENCE_PIO_HOME", str(path / "home"))
        answers, read = [], []
        for where in ("cpu", "disk"):
            with loaded(path, fields={"device_map": where}) as plugin:
                answers.append(plugin.generate_text("the cat", max_new_tokens=5, do_sample=False))
                read.append(plugin.get_disk_stats()["paged_read_bytes"])
        assert answers[0] == answers[1]
        assert read[0] == 0 < read[1]


@effect_of("disk_offload")
def disk_offload(tiny: Tiny) -> None:
    """With a byte less than its weights and the shortest context take it runs, and a layer of three is on the disk."""
    path = tiny("multi-query")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFERENCE_PIO_HOME", str(path / "home"))
        with loaded(path) as plugin:
            answer = plugin.generate_text("the cat", max_new_tokens=5, do_sample=False)
            plan = plugin.runtime.plan
        least = plan.total - plan.kv_cache + 256 * plan.kv_bytes_per_token
        limits = ResourceLimits(memory_gb=(least - 1) / 1e9)
        try:
            with held_to(limits), loaded(path, kv_cache_memory_gb=None) as plugin:
                assert plugin.generate_text("the cat", max_new_tokens=5, do_sample=False) == answer
                assert plugin.runtime.plan.paged > 0
        except ResourceError as refusal:
            raise AssertionError("it was refused") from refusal
