"""An engine over a folder that outlives it: hits, equal tokens, and nothing believed that is not so."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from inference_pio.cache.ranked import RankedSpec
from inference_pio.cache.specs import PagedKV, PagedLatent
from inference_pio.cache.tiers import BlockBytes
from inference_pio.errors import PluginError
from inference_pio.loader.prefix_store import PrefixStore
from inference_pio.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
PROMPT = random.Random(5).choices(range(1, 48), k=41)
KEY = b"k" * 32


@pytest.fixture
def serve(fake, tmp_path):
    """Answers a list of prompts one after the other in an engine of its own over the folder, which is closed then."""

    def served(prompts, key=KEY, limit=10**9, **sizes):
        store = PrefixStore(tmp_path / "model", key, limit)
        engine = fake.make_engine(tier=store, **sizes)
        answers = []
        for number, prompt in enumerate(prompts):
            engine.add_request(str(number), prompt, GREEDY)
            answers.append(fake.tokens_of(fake.run(engine)[str(number), 0]))
        engine.close()
        assert answers == [fake.greedy_reference(prompt, 6) for prompt in prompts]
        return engine, store

    return served


def records(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.rglob("*.block"))


def chain(tmp_path: Path) -> list[Path]:
    """The blocks of the one prefix that is stored, in order."""
    after = {path.read_bytes()[72:104]: path for path in records(tmp_path)}
    (parent,) = after.keys() - {path.read_bytes()[40:72] for path in after.values()}
    ordered = []
    while parent in after:
        ordered.append(after[parent])
        parent = ordered[-1].read_bytes()[40:72]
    return ordered


def test_a_new_engine_finds_what_the_last_one_knew(serve):
    engine, store = serve([PROMPT])
    assert engine.stats().prefix_hit_tokens == 0
    assert store.num_stored == 11  # 46 of 47 tokens are computed
    engine, store = serve([PROMPT, PROMPT])
    assert engine.stats().prefix_hit_tokens == 80
    assert engine.stats().prefix_tier_hit_tokens == 40
    assert store.num_loaded == 10
    assert store.num_stored == 0


def test_what_memory_forgets_comes_back_without_a_restart(serve):
    others = [random.Random(i).choices(range(1, 48), k=41) for i in range(5)]
    engine, store = serve([PROMPT, *others, PROMPT], prefix_cache_max_blocks=12)
    assert engine.stats().prefix_tier_hit_tokens >= 36
    assert store.num_dropped == 0


def test_only_as_much_is_computed_as_is_missing(fake, tmp_path):
    for _ in range(2):
        engine = fake.make_engine(tier=PrefixStore(tmp_path / "model", KEY, 10**9), max_num_batched_tokens=4)
        engine.add_request("r", PROMPT, SamplingParams(temperature=0, max_tokens=1))
        fake.run(engine)
        engine.close()
        steps = engine.stats().steps
    assert steps == 1  # of 11


@pytest.mark.parametrize("place", [0, 4, 9])
def test_a_flipped_bit_is_a_miss_and_changes_no_answer(serve, tmp_path, place):
    serve([PROMPT])
    path = chain(tmp_path)[place]
    record = bytearray(path.read_bytes())
    record[random.Random(place).randrange(len(record))] ^= 1
    path.write_bytes(record)
    engine, store = serve([PROMPT])
    assert store.num_broken == 1
    assert engine.stats().prefix_tier_hit_tokens == 4 * place
    engine, store = serve([PROMPT])
    assert (store.num_broken, engine.stats().prefix_tier_hit_tokens) == (0, 40)


def test_every_block_changed_is_no_hit_at_all(serve, tmp_path):
    serve([PROMPT])
    for path in records(tmp_path):
        record = bytearray(path.read_bytes())
        record[-40] ^= 128  # a key or a value
        path.write_bytes(record)
    engine, store = serve([PROMPT])
    assert engine.stats().prefix_hit_tokens == 0
    assert store.num_broken == 1


def test_another_checkpoint_finds_nothing(serve):
    serve([PROMPT])
    engine, _ = serve([PROMPT], key=b"o" * 32)
    assert engine.stats().prefix_hit_tokens == 0


def test_where_there_is_not_room_for_all_the_beginning_is_kept(serve, tmp_path):
    serve([PROMPT], limit=1200)  # five records of 212 bytes
    assert sum(path.stat().st_size for path in records(tmp_path)) <= 1200
    engine, _ = serve([PROMPT], limit=1200)
    assert engine.stats().prefix_tier_hit_tokens >= 16
    engine, store = serve([random.Random(9).choices(range(1, 48), k=41)], limit=100)
    assert store.num_stored == 0


def test_other_sizes_of_engine_are_no_matter(serve):
    serve([PROMPT])
    engine, _ = serve([PROMPT], num_blocks=20, max_num_batched_tokens=7, max_num_seqs=2)
    assert engine.stats().prefix_tier_hit_tokens == 40


def test_a_folder_that_is_gone_is_no_matter(fake, tmp_path):
    (tmp_path / "model").write_text("in its place")
    engine = fake.make_engine(tier=PrefixStore(tmp_path / "model", KEY, 10**9), prefix_cache_max_blocks=2)
    for name in ("a", "b"):
        engine.add_request(name, PROMPT, GREEDY)
        assert fake.tokens_of(fake.run(engine)[name, 0]) == fake.greedy_reference(PROMPT, 6)
    engine.close()


def test_forgetting_reaches_the_disk_and_later_prefixes_are_kept(serve, fake, tmp_path):
    serve([PROMPT])
    engine = fake.make_engine(tier=PrefixStore(tmp_path / "model", KEY, 10**9))
    engine.reset_prefix_cache()
    assert records(tmp_path) == []
    engine.add_request("r", PROMPT, GREEDY)
    fake.run(engine)
    assert engine.stats().prefix_hit_tokens == 0
    engine.close()
    engine, _ = serve([PROMPT])
    assert engine.stats().prefix_tier_hit_tokens == 40


def test_many_requests_at_once_with_little_memory_are_exact(fake, tmp_path):
    draw = random.Random(1)
    beginnings = [draw.choices(range(1, 48), k=20) for _ in range(4)]
    prompts = [draw.choice(beginnings) + draw.choices(range(1, 48), k=draw.randint(1, 15)) for _ in range(40)]
    hits = []
    for _ in range(2):
        engine = fake.make_engine(
            tier=PrefixStore(tmp_path / "model", KEY, 10**9), num_blocks=24, prefix_cache_max_blocks=3
        )
        for number, prompt in enumerate(prompts):
            engine.add_request(str(number), prompt, GREEDY)
        updates = fake.run(engine)
        engine.close()
        for number, prompt in enumerate(prompts):
            assert fake.tokens_of(updates[str(number), 0]) == fake.greedy_reference(prompt, 6)
        hits.append(engine.stats().prefix_hit_tokens)
    assert hits[1] > hits[0]
    assert hits[1] >= 0.9 * sum((len(prompt) - 1) // 4 * 4 for prompt in prompts)


@pytest.mark.parametrize(
    "specs",
    [
        [PagedKV(2, 3, torch.bfloat16), PagedKV(1, 8, torch.float32)],
        [PagedKV(2, 4, torch.int8)],
        [PagedLatent(6, 2, torch.bfloat16)],
        [RankedSpec((PagedKV(1, 4, torch.int8), PagedKV(1, 4, torch.int8)))],
    ],
)
def test_a_block_of_any_cache_is_copied_whole(specs):
    caches = [spec.allocate(5, 4, 0, torch.device("cpu")) for spec in specs]
    form = BlockBytes(caches, 5)
    assert form.nbytes == 4 * sum(spec.bytes_per_token() for spec in specs)
    draw = np.random.default_rng(0)
    contents = draw.integers(0, 256, (2, form.nbytes), dtype=np.uint8)
    form.write(3, contents[0])
    form.write(1, contents[1])
    assert form.read(1).tolist() == contents[1].tolist()
    assert form.read(3).tolist() == contents[0].tolist()
    assert not any(form.read(block).any() for block in (0, 2, 4))


def test_state_and_unknown_caches_are_refused(fake, tmp_path):
    store = PrefixStore(tmp_path / "model", KEY, 10**9)
    for kind, reason in (("state", "no state"), ("latent", "not a dataclass of contiguous tensors")):
        with pytest.raises(PluginError, match=reason):
            fake.make_engine(kind, tier=store)
    store.close()
