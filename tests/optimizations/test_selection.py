"""A model that reads some of its context, in the engine: what must not change, and what its cache then holds."""

from __future__ import annotations

import random

import pytest
import torch

from inference_pio import LLM, ops
from inference_pio.cache.planner import plan_cache
from inference_pio.cache.specs import PagedKV
from inference_pio.conformance.bare_model import BareModel
from inference_pio.conformance.subject import Subject
from inference_pio.conformance.tiny_tokenizer import VOCAB_SIZE
from inference_pio.engine.config import EngineConfig
from inference_pio.engine.core import EngineCore
from inference_pio.errors import ConfigError, PluginError
from inference_pio.optimizations.attention.attending import attending, set_attention
from inference_pio.optimizations.attention.selection import select
from inference_pio.plugin.facts import PrefixPolicy
from inference_pio.plugin.paged import PagedAttention
from inference_pio.plugin.serving import Serving, give_serving, serving_of
from inference_pio.sampling_params import SamplingParams

BLOCK = 8
DECODE = ops.Selection("pages", sinks=8, window=16, decode=48)
BOTH = ops.Selection("pages", sinks=8, window=16, decode=48, prefill=48)
SINKS = ops.Selection("sinks", sinks=8, window=40)
ENOUGH = ops.Selection("pages", sinks=8, window=16, decode=512, prefill=512)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model of three layers that is of nobody else's, and what its layers keep."""
    subject = Subject.of("llama", tmp_path_factory.mktemp("llama"), collected={})
    plugin, path = subject.plugin(), subject.checkpoint("multi-query")

    def make(selection=None, dense_layers=()):
        bare = BareModel(plugin, path, options={"max_position_embeddings": 512})
        serving = give_serving(bare.model, Serving(bare.specs, block_size=BLOCK))
        serving.exempt["trial"] = frozenset(dense_layers)
        if selection is not None:
            select(bare.model, "trial", **vars(selection))
        return bare.model, serving.cache_specs

    return make


@pytest.fixture(scope="module")
def engine_of(tiny):
    def make(selection=None, dense_layers=(), **overrides):
        model, specs = tiny(selection, dense_layers)
        sizes = {"max_model_len": 400, "block_size": BLOCK, "num_blocks": 300, "max_num_batched_tokens": 64}
        return EngineCore(
            model,
            specs,
            EngineConfig(**{**sizes, **overrides}),
            vocab_size=VOCAB_SIZE,
            eos_token_ids=[],
            prefix_policy=PrefixPolicy(seed=("tiny",)),
            device=torch.device("cpu"),
        )

    return make


def prompt_of(length, seed):
    """Long enough to leave something out, and repetitive enough to be guessed ahead."""
    words = [random.Random(seed + i).choices(range(VOCAB_SIZE), k=7) for i in range(3)]
    draw = random.Random(seed)
    return [token for _ in range(length // 7 + 1) for token in draw.choice(words)][:length]


def answers(engine, prompts, max_tokens=60, watch=None):
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True, logprobs=0)
    for name, prompt in prompts.items():
        engine.add_request(name, prompt, params)
    found = {name: ([], []) for name in prompts}
    while engine.has_work:
        for update in engine.step():
            assert update.error is None
            tokens, logprobs = found[update.request_id]
            tokens += update.token_ids
            logprobs += [
                entry[token].logprob
                for token, entry in zip(update.token_ids, update.logprobs or [], strict=True)
            ]
        if watch:
            watch(engine)
    return found


PROMPTS = {"long": prompt_of(200, 1), "short": prompt_of(30, 2), "middle": prompt_of(100, 3)}


def test_a_budget_as_large_as_the_context_changes_no_bit(engine_of):
    dense = answers(engine_of(), PROMPTS)
    for selection in (ENOUGH, ops.Selection("sinks", 0, 400)):
        assert answers(engine_of(selection), PROMPTS) == dense


@pytest.mark.parametrize("selection", [DECODE, SINKS, BOTH])
def test_a_small_budget_changes_what_a_long_context_gives_alone(engine_of, selection):
    """Short contexts are read whole; layers that stay dense do."""
    dense = answers(engine_of(), PROMPTS, max_tokens=10)
    sparse = answers(engine_of(selection), PROMPTS, max_tokens=10)
    assert sparse["short"] == dense["short"]
    assert sparse["long"] != dense["long"]
    assert answers(engine_of(selection, dense_layers=range(3)), PROMPTS, max_tokens=10) == dense
    half = answers(engine_of(selection, dense_layers=range(2)), PROMPTS, max_tokens=10)
    assert half["long"] not in (dense["long"], sparse["long"])


class Guesses:
    """Stands in for `Speculation`: drafts what is known to come, with something wrong in it now and then."""

    num_drafted = num_predicted = num_accepted_predictions = 0

    def __init__(self, engine, known, seed=0):
        self._engine, self._known, self._random = engine, known, random.Random(seed)

    def draft(self, scheduled):
        drafts = {}
        for sequence, count in scheduled.items():
            known = self._known[sequence.request.request_id][sequence.num_generated_tokens :]
            left = min(self._random.randint(0, 7), len(known) - 1)
            if count > 1 or not sequence.num_generated_tokens or left <= 0:
                continue
            tokens = known[:left]
            if self._random.random() < 0.5:
                tokens[self._random.randrange(left)] = self._random.randrange(VOCAB_SIZE)
            if tokens := tokens[: self._engine._blocks.make_room(sequence, left)]:
                drafts[sequence] = tokens
        return drafts

    def settle(self, sequence, accepted):
        pass

    def record(self, seconds):
        pass


@pytest.mark.parametrize("selection", [DECODE, BOTH, SINKS])
def test_guessing_ahead_changes_no_token(engine_of, selection):
    """Each query of a decoding sequence chooses for itself."""
    plain = answers(engine_of(selection), PROMPTS)
    engine = engine_of(selection, speculation=7)
    engine._speculation = Guesses(engine, {name: tokens for name, (tokens, _) in plain.items()})
    guessed = answers(engine, PROMPTS)
    assert engine.stats().accepted_draft_tokens > 40
    for name, (tokens, logprobs) in plain.items():
        assert guessed[name][0] == tokens
        assert guessed[name][1] == pytest.approx(logprobs, abs=1e-4), (
            "products of more rows, and nothing else"
        )


def test_steps_run_alike_recorded_and_one_by_one(engine_of, monkeypatch):
    recorded = answers(engine_of(BOTH), PROMPTS)
    engine = engine_of(BOTH)
    monkeypatch.setattr(engine._runner, "_step", engine._runner._forward)
    assert answers(engine, PROMPTS) == recorded


@pytest.mark.parametrize(
    ("selection", "few_blocks"), [(DECODE, False), (BOTH, False), (DECODE, True), (BOTH, True)]
)
def test_bounds_are_right_where_blocks_are_shared_cut_taken_back_and_guessed(
    engine_of, selection, few_blocks
):
    """Of every block that holds tokens of a running sequence, whoever wrote them and when."""
    sizes = {"num_blocks": 60 if few_blocks else 300, "max_num_batched_tokens": 40, "speculation": 7}
    engine, checked = engine_of(selection, **sizes), [0]
    engine._speculation = Guesses(engine, dict.fromkeys([*(f"r{i}" for i in range(5)), "again"], [7] * 60))
    beginning = prompt_of(96, 9)
    requests = {f"r{i}": beginning + prompt_of(40 + 10 * i, 20 + i) for i in range(5)}

    def watch(engine):
        for cache in engine._runner.caches:
            for sequence in engine._scheduler.running:
                known = sequence.num_computed_tokens
                for i, block in enumerate(sequence.block_table[: known // BLOCK]):
                    keys = cache.k[block]
                    assert torch.equal(cache.bounds[block], torch.stack((keys.amax(1), keys.amin(1)), 1)), i
                    checked[0] += 1

    answers(engine, requests, watch=watch)
    again = answers(engine, {"again": requests["r2"]}, watch=watch)
    assert again["again"]
    stats = engine.stats()
    assert checked[0] > 1000
    assert stats.prefix_hit_tokens > 96
    assert (stats.preemptions > 0) == few_blocks


def test_shared_blocks_give_what_own_ones_give(engine_of):
    """A layer's keys depend on what was read below it, so a prefix is computed by the same cuts in both."""
    shared, own = engine_of(BOTH), engine_of(BOTH, enable_prefix_caching=False)
    beginning = prompt_of(128, 9)
    first, second = beginning + prompt_of(30, 10), beginning + prompt_of(50, 11)
    answers(shared, {"first": first})
    assert answers(shared, {"second": second}) == answers(own, {"second": second})
    assert shared.stats().prefix_hit_tokens == 128


def test_a_cached_beginning_changes_no_answer_where_prompts_are_read_whole(engine_of):
    """Though what is left of the prompt then has no more tokens than a step of guesses."""
    prompt, found = prompt_of(200 + 5, 4), []
    for cached in (False, True):
        engine = engine_of(DECODE, max_num_batched_tokens=400)
        if cached:
            answers(engine, {"before": prompt[:200] + prompt_of(30, 5)}, max_tokens=2)
        found.append(answers(engine, {"r": prompt}, max_tokens=20)["r"])
        assert engine.stats().prefix_hit_tokens == (200 if cached else 0)
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-4)


def test_fewer_keys_are_read():
    for position, keys in ((10, 11), (47, 48), (48, 41), (399, 48), (400, 41)):
        assert DECODE.keys_read(position, BLOCK) == keys
    assert [SINKS.keys_read(position, 1) for position in (47, 48, 300)] == [48, 48, 48]
    assert ENOUGH.keys_read(300, BLOCK) == 301


def test_the_plan_counts_what_bounds_take(tiny):
    model, specs = tiny(DECODE, dense_layers=[1])
    assert [spec.bounded_block for spec in specs] == [BLOCK, None, BLOCK]
    # Keys and values of one head, 32 floats each; bounds take as much again for every eight tokens.
    assert [spec.bytes_per_token() for spec in specs] == [288, 256, 288]
    plan = plan_cache(100_000, specs, block_size=BLOCK, max_num_seqs=4, max_model_len=64)
    caches = [spec.allocate(plan.num_blocks, BLOCK, 0, torch.device("cpu")) for spec in specs]
    taken = sum(t.nbytes for cache in caches for t in (cache.k, cache.v, cache.bounds) if t is not None)
    assert taken == plan.bytes_total
    whole = PagedKV(3, 64, torch.int8, bounded_block=32)
    assert whole.bytes_per_token() - PagedKV(3, 64, torch.int8).bytes_per_token() == 24
    assert whole.allocate(2, 32, 0, torch.device("cpu")).bounds.dtype == torch.bfloat16
    _, specs = tiny(SINKS)
    assert [spec.bounded_block for spec in specs] == [None, None, None], "nothing is chosen by bounds"
    assert [how.selection for _, how in attending(model)] == [DECODE, None, DECODE]


def test_layers_with_windows_keep_them(tiny):
    attend = PagedAttention(ops.paged_attention, ops.paged_attention, 1.0, window=16)
    with pytest.raises(ConfigError, match="a layer with a window of 16"):
        PagedAttention(attend.prefill, attend.decode, 1.0, window=16, selection=DECODE)
    model, _ = tiny()
    set_attention(next(attending(model))[0], attend)
    select(model, "trial", **vars(DECODE))
    assert next(attending(model))[1] is attend
    assert [spec.bounded_block for spec in serving_of(model).cache_specs] == [None, BLOCK, BLOCK]
    del model.model.layers[2].self_attn.attend
    with pytest.raises(
        PluginError, match="3 layers keep keys and values and 2 modules have a PagedAttention"
    ):
        select(model, "trial", **vars(DECODE))


def test_decoding_with_packed_weights_is_recorded(smollm2_path):
    """And gives what the same steps give one by one."""
    prompt = torch.randint(100, 40_000, (300,), generator=torch.Generator().manual_seed(1)).tolist()
    params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True, logprobs=0)
    options = {"max_model_len": 512, "max_num_seqs": 1, "speculation": 0, "enable_prefix_caching": False}
    found = []
    options |= {"enable": ("sparse_decode",), "attention_budget": 96, "skip_tokenizer_init": True}
    with LLM(str(smollm2_path), **options) as llm:
        runner = llm.plugin.runtime._loop._core._runner
        for step in (runner._step, runner._forward):
            runner._step = step
            answer = llm.generate([{"prompt_token_ids": prompt}], params)[0].outputs[0]
            found.append((answer.token_ids, answer.logprobs))
        assert runner._replay.refused is None
        assert set(runner._replay._steps) == {(1, 1)}
    assert found[0] == found[1]
