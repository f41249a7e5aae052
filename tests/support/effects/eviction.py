"""Effects of evicting tokens from the cache."""

from __future__ import annotations

from support.effects import Tiny, effect_of
from support.effects.models import loaded


@effect_of("kv_eviction")
def kv_eviction(tiny: Tiny) -> None:
    evicted = []
    for budget in (None, 240):
        with loaded(tiny("grouped"), kv_cache_budget=budget, block_size=4) as plugin:
            prompt = plugin.detokenize(plugin.tokenize("the cat sat on the mat " * 40)[:245])
            assert 240 < len(plugin.tokenize(prompt)) < 250
            plugin.generate_text(prompt, max_new_tokens=5)
            evicted.append(plugin.get_compute_stats()["evicted_tokens"])
    assert evicted[0] == 0
    assert evicted[1] > 0
