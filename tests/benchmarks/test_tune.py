"""`tune` on a tiny model: known costs are searched, measured ones are real, what is stored is used."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from inference_pio import LLM, SamplingParams
from inference_pio.benchmarks.loaded import LoadedModel
from inference_pio.benchmarks.tuning import space
from inference_pio.benchmarks.tuning.search import Search
from inference_pio.benchmarks.tuning.space import WORK
from inference_pio.benchmarks.tuning.trials import Trials
from inference_pio.benchmarks.tuning.tune import tune
from inference_pio.benchmarks.workload import Workload
from inference_pio.conformance.subject import Subject
from inference_pio.errors import GenerationError, UnavailableError, UsageError
from inference_pio.runtime import another
from inference_pio.runtime.local import LocalRuntime

Cost = Callable[[Mapping[str, Any]], float]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(Subject.of("llama", tmp_path_factory.mktemp("tune"), collected={}).checkpoint("grouped"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Callable[[Cost], list[dict[str, Any]]]:
    """Measuring takes no time, and finds these costs; gives the settings that are asked for."""

    def install(cost: Cost) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        def of(self: Trials, setting: Mapping[str, Any], round_number: int) -> float:  # noqa: ARG001
            asked.append(dict(setting))
            return cost(setting)

        monkeypatch.setattr(Trials, "cost", of)
        monkeypatch.setattr(space, "usable_threads", lambda: 2)
        return asked

    return install


def best_elsewhere(setting: Mapping[str, Any]) -> float:
    """Least in small blocks and without guesses."""
    return (1.0 + 0.1 * (setting["block_size"] > 16)) * (1.0 + 0.05 * setting["speculation"])


def test_the_best_is_found_stored_and_used(checkpoint: str, costs: Callable[[Cost], Any]) -> None:
    costs(best_elsewhere)
    found = tune(checkpoint, dtype="float32")
    assert found.gained
    assert (found.tuned.options["block_size"], found.tuned.options["speculation"]) == (16, 0)
    assert found.tuned.ratio == pytest.approx(1.1 * 1.75)
    assert found.tuned.low <= found.tuned.ratio <= found.tuned.high
    assert found.tuned.confidence > 0.9
    with LLM(checkpoint, dtype="float32", kv_cache_memory_gb=0.01) as llm:
        runtime = llm.plugin.runtime
        assert isinstance(runtime, LocalRuntime)
        assert (runtime.prepared.options.block_size, runtime.prepared.options.speculation) == (16, 0)
        assert llm.settled.note.startswith(f"tuned on {found.tuned.date[:10]}: ")


def test_where_nothing_is_better_the_defaults_are_kept(checkpoint: str, costs: Callable[[Cost], Any]) -> None:
    costs(best_elsewhere)
    tune(checkpoint, dtype="float32")
    costs(lambda _: 1.0)
    found = tune(checkpoint, dtype="float32")
    assert (found.gained, found.effect, found.tuned.options, found.tuned.ratio) == (False, None, {}, 1.0)
    assert json.loads(found.file.read_text())[0]["options"] == {}  # in place of the result before
    with LLM(checkpoint, dtype="float32", kv_cache_memory_gb=0.01) as llm:
        assert (llm.settled.tuned, llm.settled.note) == (None, "")


def test_what_is_not_certain_is_not_kept(
    checkpoint: str, costs: Callable[[Cost], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better while it is searched for, and worse as often as not when it is compared."""
    comparing = []
    compare = Search.compare

    def told(self: Search, *arguments: Any) -> Any:
        comparing.append(True)
        return compare(self, *arguments)

    monkeypatch.setattr(Search, "compare", told)
    asked = costs(lambda at: 1.0 + 0.1 * (len(asked) * 7 % 3) if comparing else best_elsewhere(at))
    found = tune(checkpoint, dtype="float32")
    assert found.effect is not None
    assert found.effect.verdict != "faster"
    assert (found.gained, found.tuned.options) == (False, {})


def test_what_the_caller_names_is_not_searched(
    checkpoint: str, costs: Callable[[Cost], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = costs(best_elsewhere)
    found = tune(checkpoint, dtype="float32", block_size=32, speculation=7)
    assert {(setting["block_size"], setting["speculation"]) for setting in asked} == {(32, 7)}
    assert not found.gained
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    asked.clear()
    tune(checkpoint, dtype="float32")
    before = torch.get_num_threads()
    assert {setting["threads"] for setting in asked} <= {1, before}


def test_caches_in_8_bits_only_where_the_caller_says_so(
    checkpoint: str, costs: Callable[[Cost], Any]
) -> None:
    asked = costs(lambda setting: 1.0 - 0.5 * (setting["kv_cache_dtype"] == "int8"))
    assert tune(checkpoint, dtype="float32").tuned.options == {}
    assert "int8" not in {setting["kv_cache_dtype"] for setting in asked}
    assert tune(checkpoint, dtype="float32", int8_cache=True).tuned.options["kv_cache_dtype"] == "int8"


def test_only_what_makes_a_difference_is_tried(checkpoint: str, costs: Callable[[Cost], Any]) -> None:
    asked = costs(lambda _: 1.0)
    tune(checkpoint, dtype="float32")
    assert {setting["kv_cache_dtype"] for setting in asked} == {"auto"}  # it is float32 already
    assert {setting["threads"] for setting in asked} == {1, 2}


@pytest.mark.parametrize("profile", WORK)
def test_real_measurements(checkpoint: str, profile: str) -> None:
    before = torch.get_num_threads()
    named = {"dtype": "float32", "threads": 1, "speculation": 0, "max_num_batched_tokens": 512}
    found = tune(
        checkpoint, profile, seconds=20.0, **named
    )  # blocks are left, and no need for so many seconds
    assert found.found.evaluations >= 8
    assert found.found.races >= 1
    assert found.found.setting.keys() == found.start.keys()
    assert found.tuned.profile == profile
    assert found.tuned.work in {str(work) for work in WORK[profile]}
    assert torch.get_num_threads() == before
    assert [each["profile"] for each in json.loads(found.file.read_text())] == [profile]


def test_engines_with_other_options_give_the_same_answers(checkpoint: str) -> None:
    """Another engine on a loaded model computes what the model's own engine does."""
    prompt = [5, 9, 17, 3, 40, 41, 5, 9, 17, 3, 40]
    params = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
    with LLM(checkpoint, dtype="float32", kv_cache_memory_gb=0.01) as llm:
        expected = llm.generate({"prompt_token_ids": prompt}, params)[0].outputs[0].token_ids
        runtime = llm.plugin.runtime
        assert isinstance(runtime, LocalRuntime)
        ready, model = runtime.prepared, llm.plugin.load_model()
        trials = Trials(ready, model, llm.get_tokenizer(), ready.options, WORK["latency"][-1])
        start = {"threads": 1, "max_num_batched_tokens": 512, "block_size": 32, "kv_cache_dtype": "auto"}
        for change in (
            {"speculation": 0},
            {"speculation": 15, "block_size": 16, "max_num_batched_tokens": 4},
        ):
            options = trials.options({**start, **change})
            core = another.another_core(ready, model, options)
            assert (core.config.block_size, core.config.speculation) == (
                options.block_size,
                options.speculation,
            )
            core.add_request("one", prompt, params)
            got: list[int] = []
            while core.has_work:
                for update in core.step():
                    got += update.token_ids
            assert got == expected
        assert llm.generate({"prompt_token_ids": prompt}, params)[0].outputs[0].token_ids == expected


def test_a_trial_that_gives_too_little_is_an_error(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    short = SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True)
    monkeypatch.setattr(Workload, "sampling", lambda _: short)
    with pytest.raises(GenerationError, match="gave 3 tokens instead of"):
        tune(checkpoint, seconds=1.0, dtype="float32")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profile": "memory"}, "tune measures for latency or throughput, not for 'memory'"),
        ({"seconds": 0.0}, "seconds must be from 1 to 3600, got 0"),
        ({"seconds": float("nan")}, "seconds must be from 1 to 3600, got nan"),
    ],
)
def test_bad_arguments(checkpoint: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tune(checkpoint, **arguments)


def test_what_cannot_be_told_is_no_result(
    checkpoint: str, home: Path, costs: Callable[[Cost], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    costs(lambda _: 1.0)
    monkeypatch.setattr(time, "perf_counter", itertools.count(step=0.4).__next__)
    with pytest.raises(UsageError, match="1 seconds are too few: there was no time for two rounds of 1 × 64"):
        tune(checkpoint, seconds=1.0, dtype="float32")
    with pytest.raises(UsageError, match="nothing is left to choose"):
        tune(checkpoint, dtype="float32", threads=1, speculation=0, max_num_batched_tokens=64, block_size=16)
    assert not list(home.glob("tuned/**/*.json"))


def test_nowhere_to_keep_it_is_told_first(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(UnavailableError, match="takes no files"):
        tune(checkpoint)


def test_many_processors_are_tried_in_halves() -> None:
    assert space.thread_counts(1) == (1,)
    assert space.thread_counts(4) == (1, 2, 3, 4)
    assert space.thread_counts(64) == (1, 8, 16, 32, 64)
    assert space.thread_counts(6) == (1, 3, 6)


def test_the_six_benchmarks_use_what_was_tuned(checkpoint: str, costs: Callable[[Cost], Any]) -> None:
    costs(best_elsewhere)
    tune(checkpoint, dtype="float32")
    work = [Workload(prompt_len=8, output_len=4)]
    for tuned, expected in ((True, 16), (False, 32)):
        with LoadedModel("llama", checkpoint, work, dtype="float32", tuned=tuned) as loaded:
            runtime = loaded.plugin.runtime
            assert isinstance(runtime, LocalRuntime)
            options = runtime.prepared.options
            assert (options.block_size, options.speculation) == (expected, 0)
            assert loaded.run(work[0], 0)
