"""Order, rounds and rates of timed runs; the workloads they are given."""

from __future__ import annotations

import time

import pytest

from inference_pio.benchmarks.harness import Timed, busy_cores, interleave, per_second, repeat
from inference_pio.benchmarks.workload import Workload


def test_interleaved_runs_take_turns_and_swap_who_goes_first() -> None:
    order: list[tuple[str, int]] = []
    runs = {name: lambda turn, name=name: order.append((name, turn)) for name in ("a", "b")}
    timed = interleave(runs, rounds=3, warmup=1)
    assert order == [
        *(("b", -1), ("a", -1)),
        *(("a", 0), ("b", 0)),
        *(("b", 1), ("a", 1)),
        *(("a", 2), ("b", 2)),
    ]
    assert [len(timed[name]) for name in ("a", "b")] == [3, 3]


def test_results_come_in_the_order_of_the_rounds() -> None:
    assert [run.result for run in repeat(lambda turn: turn * 10, rounds=3, warmup=2)] == [0, 10, 20]


def test_sleeping_takes_wall_time_and_no_processor() -> None:
    [run] = repeat(lambda _: time.sleep(0.2), rounds=1, warmup=0)
    assert 0.2 <= run.seconds < 0.4
    assert run.cpu_seconds < 0.1


def test_rates() -> None:
    runs = [Timed(2.0, 3.0, None), Timed(4.0, 3.0, None), Timed(8.0, 8.0, None)]
    assert per_second(16, runs).median == 4.0
    assert busy_cores(runs) == 1.0


def test_rounds_draw_other_prompts_and_equal_rounds_the_same() -> None:
    workload = Workload(prompt_len=20, output_len=1, concurrency=3)
    [first], [again], [other] = (workload.waves(50, turn) for turn in (0, 0, 1))
    assert first == again
    assert [len(prompt) for prompt in first] == [20, 20, 20]
    assert all(0 <= token < 50 for prompt in first for token in prompt)
    assert len({tuple(prompt) for prompt in first + other}) == 6


def test_shared_beginnings_are_shared_within_a_round_only() -> None:
    workload = Workload(prompt_len=20, output_len=1, concurrency=3, shared_len=16)
    [first], rest = workload.waves(1000, 0)
    assert [prompt[:16] for prompt in rest] == [first[:16]] * 2
    assert len({tuple(prompt) for prompt in [first, *rest]}) == 3
    assert workload.waves(1000, 1)[0][0][:16] != first[:16]


def test_known_beginnings_are_shared_by_all_rounds() -> None:
    workload = Workload(prompt_len=20, output_len=1, known_len=16)
    [[first]], [[second]] = workload.waves(1000, 0), workload.waves(1000, 1)
    assert first[:16] == second[:16]
    assert first[16:] != second[16:]
    both = Workload(prompt_len=20, output_len=1, concurrency=2, shared_len=18, known_len=16)
    [one], [other] = both.waves(1000, 0)
    assert one[:18] == other[:18] != both.waves(1000, 1)[0][0][:18]


def test_a_quick_workload_is_of_the_same_kind() -> None:
    quick = Workload(prompt_len=512, output_len=64, concurrency=32, shared_len=480, known_len=160).quick()
    assert quick == Workload(prompt_len=32, output_len=4, concurrency=4, shared_len=30, known_len=10)


def test_a_workload_asks_for_exactly_its_length() -> None:
    params = Workload(prompt_len=4, output_len=9).sampling()
    assert (params.max_tokens, params.ignore_eos, params.greedy) == (9, True, True)


@pytest.mark.parametrize(("count", "tokens"), [(1, (10, 5)), (4, (40, 20))])
def test_tokens_of_a_round(count: int, tokens: tuple[int, int]) -> None:
    workload = Workload(prompt_len=10, output_len=5, concurrency=count)
    assert (workload.prompt_tokens, workload.output_tokens) == tokens
