"""C9, C10, C13: the plugin's model through the whole product."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from inference_pio.conformance.numbers import token_ids
from inference_pio.conformance.subject import Subject
from inference_pio.llm import LLM
from inference_pio.parallel import Shard
from inference_pio.sampling_params import SamplingParams

_BLOCK = 16
_ANSWER = 40
_PARAMS = (
    SamplingParams(temperature=0.0, max_tokens=_ANSWER, ignore_eos=True),
    SamplingParams(temperature=1.0, top_p=0.95, seed=7, max_tokens=_ANSWER, ignore_eos=True),
)


def check_preemption(subject: Subject) -> None:
    """Sequences that were put out of memory and begun again answer as they do alone; greedily and by seed."""
    tiny = subject.case.typical
    prompts = [token_ids(30 + number, _vocab(subject), seed=number) for number in range(4)]
    path = subject.checkpoint(tiny)
    with _open(path, enable_prefix_caching=False) as llm:
        alone = [[_answer(llm, prompt, params) for prompt in prompts] for params in _PARAMS]
    # Room for two of the four when they are at their longest.
    blocks = 2 * -(-(34 + _ANSWER) // _BLOCK) + 1
    scarce = blocks * _BLOCK * _bytes_per_token(subject) * 1.001 / 1e9
    with _open(path, enable_prefix_caching=False, kv_cache_memory_gb=scarce, max_model_len=96) as llm:
        together = [_answers(llm, prompts, params) for params in _PARAMS]
        preemptions = llm.plugin.get_compute_stats()["preemptions"]
    assert preemptions > 0, "nothing was preempted, so nothing was shown"
    assert together == alone, "tokens after preemption are not those of each sequence alone"


def check_prefix_hits(subject: Subject) -> None:
    """A second request with the same beginning reuses it and answers the same; another beginning does not."""
    vocab_size = _vocab(subject)
    shared = token_ids(4 * _BLOCK, vocab_size)
    ends = [token_ids(9, vocab_size, seed) for seed in (1, 2)]
    foreign = [(shared[0] + 1) % vocab_size, *shared[1:]]
    prompts = [[*shared, *ends[0]], [*shared, *ends[1]], [*foreign, *ends[0]]]
    path = subject.checkpoint(subject.case.typical)
    for params in _PARAMS:
        with _open(path, enable_prefix_caching=False) as llm:
            missed = [_answer(llm, prompt, params) for prompt in prompts]
            assert _hits(llm) == 0, "tokens come from the prefix cache though it is off"
        with _open(path) as llm:
            first = _answer(llm, prompts[0], params)
            assert _hits(llm) == 0, "the first request of all hits the prefix cache"
            again = [_answer(llm, prompt, params) for prompt in prompts[:2]]
            expected = 2 * len(shared)
            assert _hits(llm) == expected, f"{_hits(llm)} tokens come from the prefix cache, not {expected}"
            before = _hits(llm)
            other = _answer(llm, prompts[2], params)
            assert _hits(llm) == before, "a prompt with another first token hits the prefix cache"
            # Its later blocks hold what the shared prompt's hold, but behind another beginning.
            another = _answer(llm, prompts[2], params)
        assert [first, again[1], other] == missed, "tokens after a prefix hit are not those after a miss"
        assert another == other, "a block is reused behind another beginning than its own"
        assert again[0] == first, "the same request answers differently the second time"


def check_prefix_policy(subject: Subject) -> None:
    """Configurations under which equal tokens have different keys and values do not share a prefix."""
    plugin = subject.plugin()
    config: Any = plugin.read_config(subject.case.tiny[subject.case.typical], "")
    for left, right in subject.case.not_interchangeable:
        seeds = [plugin.prefix_policy(replace(config, **changes)).seed for changes in (left, right)]
        assert seeds[0] != seeds[1], f"{left} and {right} share one prefix cache"
    assert plugin.prefix_policy(config).seed == plugin.prefix_policy(replace(config)).seed


def check_cleanup(subject: Subject) -> None:
    """Cleaning up frees the model and its threads, twice is fine, and loading again gives the same answers."""
    gc.collect()
    threads_before = set(threading.enumerate())
    plugin = subject.plugin()
    path = subject.checkpoint(subject.case.typical)
    config = plugin.config_class(model_path=str(path), torch_dtype="float32", do_sample=False)
    assert plugin.cleanup(), "cleaning up before anything was loaded fails"
    answers = []
    for _ in range(2):
        assert plugin.initialize(config=config, kv_cache_memory_gb=0.01), str(plugin.last_error)
        model = weakref.ref(plugin.load_model())
        answers.append(plugin.generate_text("once upon a time", max_new_tokens=12))
        assert plugin.cleanup(), "cleaning up fails"
        gc.collect()
        assert model() is None, "the model lives on after cleaning up"
        left = {thread.name for thread in set(threading.enumerate()) - threads_before if thread.is_alive()}
        assert not left, f"threads live on after cleaning up: {', '.join(sorted(left))}"
        assert plugin.cleanup(), "cleaning up twice fails"
    assert answers[0] == answers[1], "the model answers differently after it was loaded again"


def _open(path: Path, **options: Any) -> LLM:
    defaults = {
        "dtype": "float32",
        "skip_tokenizer_init": True,
        "block_size": _BLOCK,
        "kv_cache_memory_gb": 0.01,
    }
    return LLM(str(path), **{**defaults, **options})


def _answers(llm: LLM, prompts: Sequence[list[int]], params: SamplingParams) -> list[list[int]]:
    results = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params)
    return [result.outputs[0].token_ids for result in results]


def _answer(llm: LLM, prompt: list[int], params: SamplingParams) -> list[int]:
    return _answers(llm, [prompt], params)[0]


def _hits(llm: LLM) -> float:
    return llm.plugin.get_compute_stats()["prefix_cache_hit_tokens"]


def _bytes_per_token(subject: Subject) -> int:
    plugin = subject.plugin()
    config = plugin.read_config(subject.case.tiny[subject.case.typical], "")
    return sum(spec.bytes_per_token() for spec in plugin.cache_specs(config, torch.float32, Shard()))


def _vocab(subject: Subject) -> int:
    vocab_size: int = subject.case.tiny[subject.case.typical]["vocab_size"]
    return vocab_size
