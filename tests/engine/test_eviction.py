"""What stays of a sequence that is over its budget, what that frees, and that nothing else changes by it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from inference_pio import ops
from inference_pio.cache.retention import NEVER, EvictionPolicy
from inference_pio.cache.specs import PagedKV
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.core import EngineCore
from inference_pio.errors import ConfigError, ResourceError
from inference_pio.plugin.facts import PrefixPolicy
from inference_pio.plugin.paged import PagedAttention, widest_window
from inference_pio.sampling_params import SamplingParams
from support.tiny_model import TinyModel

SMALL = EvictionPolicy(budget=32, sinks=4, recent=4, watched=3, stride=4)
GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)


def prompt_of(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(1, 48), k=length)


def tokens(fake, engine, prompt, params=GREEDY):
    engine.add_request("it", prompt, params)
    return fake.tokens_of(fake.run(engine)["it", 0])


def one_sequence(engine):
    [sequence] = engine._scheduler.running
    return sequence


@pytest.mark.parametrize("length", [1, 7, 8])
def test_within_the_budget_nothing_changes(fake, length):
    engine = fake.make_engine("llama", eviction=SMALL)
    assert tokens(fake, engine, prompt_of(length)) == tokens(
        fake, fake.make_engine("llama"), prompt_of(length)
    )
    assert engine.stats().evicted_tokens == 0


def test_it_changes_what_follows_a_long_prompt_and_the_first_token_never(fake):
    differing = 0
    for seed in range(4):
        whole = tokens(fake, fake.make_engine("llama", max_model_len=128), prompt_of(60, seed))
        less = tokens(fake, fake.make_engine("llama", max_model_len=128, eviction=SMALL), prompt_of(60, seed))
        assert less[0] == whole[0]
        differing += less != whole
    assert differing, "eviction has no effect"


def test_blocks_are_free_again_and_the_budget_holds(fake):
    engine = fake.make_engine("llama", max_model_len=128, eviction=SMALL, prefix_cache_max_blocks=0)
    engine.add_request("it", prompt_of(60), GREEDY)
    engine.step()
    assert len(one_sequence(engine).block_table) == 8
    engine.step()  # the last of the prompt: 60 tokens in 15 blocks become (32 - 4) / 4
    assert len(one_sequence(engine).block_table) == 7
    assert engine._blocks.num_free_blocks == engine.config.num_blocks - 7
    assert one_sequence(engine).num_evicted_tokens == engine.stats().evicted_tokens == 32
    while engine.has_work:
        engine.step()
        engine.check_integrity()
        assert engine.stats().blocks_used <= 8
    assert engine.stats().blocks_used == 0
    assert engine.stats().evicted_tokens > 32, "a long answer is cut down too"


def test_tokens_do_not_depend_on_chunks_company_or_preemption(fake):
    sizes = {"max_model_len": 128, "eviction": SMALL}
    prompts = [prompt_of(length, seed=length) for length in (20, 22, 24, 60)]
    preemptions = 0
    alone = [tokens(fake, fake.make_engine("llama", **sizes), prompt) for prompt in prompts]
    for budget, blocks in ((5, 64), (64, 20), (7, 18)):
        engine = fake.make_engine("llama", **sizes, max_num_batched_tokens=budget, num_blocks=blocks)
        for i, prompt in enumerate(prompts):
            engine.add_request(str(i), prompt, GREEDY)
        updates = fake.run(engine)
        assert [fake.tokens_of(updates[str(i), 0]) for i in range(4)] == alone
        assert engine.stats().evicted_tokens > 90
        preemptions += engine.stats().preemptions
    assert preemptions


def test_drafts_change_nothing(fake):
    sizes = {"max_model_len": 128, "eviction": replace(SMALL, stride=16)}
    prompt = [1, 2, 3, 4] * 12
    params = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    plain = tokens(fake, fake.make_engine("llama", **sizes), prompt, params)
    engine = fake.make_engine("llama", **sizes, speculation=5)
    engine._speculation = fake.Oracle(engine, lambda _: plain, seed=1)
    assert tokens(fake, engine, prompt, params) == plain
    assert engine.stats().accepted_draft_tokens > 10
    assert engine.stats().evicted_tokens > 0


def test_a_prompt_longer_than_the_cache_is_cut_down_on_the_way(fake):
    sizes = {"max_model_len": 200, "num_blocks": 10, "eviction": SMALL}
    engines = [fake.make_engine("llama", **sizes, max_num_batched_tokens=budget) for budget in (7, 64)]
    first, second = (tokens(fake, engine, prompt_of(150)) for engine in engines)
    assert first == second
    assert len(first) == 24
    assert engines[0].stats().evicted_tokens > 100


def test_the_prefix_cache_keeps_what_was_computed_before_and_nothing_after(fake):
    engine = fake.make_engine("llama", max_model_len=128, eviction=SMALL)
    whole = fake.make_engine("llama", max_model_len=128, eviction=SMALL, enable_prefix_caching=False)
    prompt = prompt_of(60)
    engine.add_request("turn 1", prompt, GREEDY)
    answer = fake.tokens_of(fake.run(engine)["turn 1", 0])
    engine.add_request("again", prompt, replace(GREEDY, seed=1))
    again = fake.run(engine)["again", 0]
    assert again[0].num_cached_tokens == 56  # the tokens that are watched are computed again
    assert fake.tokens_of(again) == answer
    longer = prompt + answer + prompt_of(9, seed=1)
    engine.add_request("turn 2", longer, GREEDY)
    updates = fake.run(engine)["turn 2", 0]
    assert updates[0].num_cached_tokens == 60
    assert fake.tokens_of(updates) == tokens(fake, whole, longer)


def test_answers_to_one_prompt_share_it_and_part_afterwards(fake):
    engine = fake.make_engine("llama", max_model_len=128, eviction=SMALL)
    params = SamplingParams(n=3, temperature=1.0, seed=3, max_tokens=20, ignore_eos=True)
    engine.add_request("it", prompt_of(60), params)
    shared = fake.run(engine)
    alone = fake.answer(prompt_of(60), params, "llama", max_model_len=128, eviction=SMALL)
    assert [fake.tokens_of(shared["it", i]) for i in range(3)] == alone
    assert shared["it", 1][0].num_cached_tokens == 56


class Looking(nn.Module):
    """Four layers of two heads that look at nothing in particular, but for one head: it looks for the needle."""

    NEEDLE, LAYERS, HEADS, WIDTH = 9, 4, 2, 16
    policy = PrefixPolicy(seed=("looking",))

    def __init__(self, looks: bool) -> None:
        super().__init__()
        self.specs = [PagedKV(self.HEADS, self.WIDTH, torch.float32)] * self.LAYERS
        self.layers = nn.ModuleList(nn.Module() for _ in self.specs)
        for layer in self.layers:
            layer.attend = PagedAttention(ops.paged_attention, ops.paged_attention, 1.0)
        self.looks = looks
        self.rows = torch.randn(50, self.WIDTH, generator=torch.Generator().manual_seed(0))

    def forward(self, batch, caches):
        x_TMH = self.rows[batch.token_ids][:, None].expand(-1, self.HEADS, -1).contiguous()
        for number, (layer, cache) in enumerate(zip(self.layers, caches, strict=True)):
            q_TNH = torch.randn(x_TMH.shape, generator=torch.Generator().manual_seed(number)) / 10
            if number == 2 and self.looks:
                q_TNH[:, 1] = self.rows[self.NEEDLE]
            size = cache.k.shape[2]
            cache.k[batch.slot_mapping // size, :, batch.slot_mapping % size] = x_TMH
            cache.v[batch.slot_mapping // size, :, batch.slot_mapping % size] = x_TMH
            layer.attend(q_TNH, batch, cache)
        return -self.rows[batch.token_ids[batch.last_token]].cumsum(0).repeat(1, 4)[:, :50]


def test_what_one_head_looks_at_stays():
    places = (9, 30, 50, 71)
    assert all(needle_stays(place, looks=True) for place in places)
    assert not all(needle_stays(place, looks=False) for place in places)


def needle_stays(place: int, *, looks: bool) -> bool:
    model = Looking(looks)
    config = EngineConfig(
        max_model_len=128, block_size=4, num_blocks=64, max_num_batched_tokens=16, eviction=SMALL
    )
    engine = EngineCore(
        model,
        model.specs,
        config,
        vocab_size=50,
        eos_token_ids=[],
        prefix_policy=model.policy,
        device=torch.device("cpu"),
    )
    prompt = [10 + i % 7 for i in range(80)]
    prompt[place] = model.NEEDLE
    engine.add_request("it", prompt, GREEDY)
    engine.step()
    sequence = one_sequence(engine)
    first = sequence.block_table[0]
    while not sequence.num_generated_tokens:
        engine.step()
    assert len(sequence.block_table) == 7
    assert sequence.block_table[0] == first, "the first block always stays"
    keys = engine._runner.caches[0].k[sequence.block_table, 0].flatten(0, 1)
    return bool((keys == model.rows[model.NEEDLE]).all(dim=-1).any())


@pytest.mark.parametrize(("window", "floor", "last"), [(0, 20, 4), (16, 32, 16)])
def test_a_budget_below_the_floor_is_refused_with_the_sum(window, floor, last):
    replace(SMALL, budget=floor).check(4, window)
    less = (
        rf"kv_cache_budget {floor - 1} is too little: 4 first tokens \+ {last} last ones.* = {floor}; give it"
    )
    with pytest.raises(ConfigError, match=less):
        replace(SMALL, budget=floor - 1).check(4, window)


def test_a_window_is_always_whole():
    policy = EvictionPolicy(budget=4096)
    assert policy.floor(32) == 32 + 128 + 64 + 256
    assert policy.floor(32, window=512) == 32 + 512 + 64 + 256
    pytest.importorskip("inference_pio.models.gemma3_text")
    tiny = TinyModel("gemma3_text", 50)
    windows = [m.attend.window for m in tiny.modules() if isinstance(getattr(m, "attend", 0), PagedAttention)]
    assert widest_window(tiny, tiny.specs) == max(w for w in windows if w is not None) > 0


@pytest.mark.parametrize("kind", ["paged", "latent", "state", "mixed"])
def test_models_whose_attention_is_not_seen_are_refused(fake, kind):
    with pytest.raises(ConfigError, match="tokens are evicted where each layer keeps keys and values"):
        fake.make_engine(kind, eviction=SMALL)


def test_a_cache_may_be_smaller_than_a_sequence_but_not_than_the_budget():
    sizes = {"max_model_len": 1000, "block_size": 4}
    EngineConfig(**sizes, num_blocks=9, eviction=SMALL)
    with pytest.raises(ResourceError, match=r"8 blocks × 4 tokens = 32 < kv_cache_budget 32 \+ 4"):
        EngineConfig(**sizes, num_blocks=8, eviction=SMALL)


def test_decisions_are_a_function_of_lengths():
    room = 1000
    assert SMALL.next(20, 200, 0, 0, room) == (32, 29)
    assert SMALL.next(60, 200, 0, 0, room) == (60, 57)
    assert SMALL.next(60, 200, 60, 32, room) == (64, 61)
    assert SMALL.next(60, 61, 0, 0, room) == NEVER  # one token: nothing comes after the prompt
    assert SMALL.next(150, 200, 0, 0, 40) == (40, 37)
    assert SMALL.next(150, 200, 40, 12, 40) == (52, 49)
