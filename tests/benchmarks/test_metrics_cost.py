"""The counters stay cheap: far below 1 % of a small model's decode step, which takes some milliseconds."""

from __future__ import annotations

import json

import metrics_cost


def test_a_steps_bookkeeping_takes_microseconds():
    # The fastest of a few: other programs on a busy machine do not fail it.
    assert min(metrics_cost.bookkeeping_us(1, 2000) for _ in range(5)) < 15
    assert min(metrics_cost.bookkeeping_us(32, 1000) for _ in range(5)) < 60


def test_the_command_states_the_share(tiny_llama, capsys):
    metrics_cost.main(["--model", str(tiny_llama), "--steps", "5", "--batch", "2", "--json"])
    [cost] = json.loads(capsys.readouterr().out)
    assert cost["batch"] == 2
    assert cost["share"] == cost["bookkeeping_us"] / cost["step_us"]
