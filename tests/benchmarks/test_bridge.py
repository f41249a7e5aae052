"""The benchmark of the bridge: both plugins run the same model, and the ratio is that of the rates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bridge

_SMALL = {
    **bridge.CONFIG,
    "hidden_size": 72,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "vocab_size": 256,
}


def test_both_sides_are_measured_and_the_ratio_is_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bridge.write_model(tmp_path, _SMALL)
    monkeypatch.setattr("sys.argv", ["bridge", "--quick", "--json", "--folder", str(tmp_path)])
    bridge.main()
    report = json.loads(capsys.readouterr().out)
    assert [row["work"] for row in report["rows"]] == [work.name for work in bridge.QUICK]
    for row in report["rows"]:
        rates = row["tokens_per_second"]
        assert row["ratio"] == pytest.approx(rates["llama"] / rates["transformers"])


def test_both_sides_give_the_same_tokens(tmp_path: Path) -> None:
    bridge.write_model(tmp_path, _SMALL)
    greedy = bridge.SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    with bridge.both(tmp_path, "float32") as models:
        answers = [
            llm.generate({"prompt_token_ids": [1, 2, 3]}, greedy)[0].outputs[0].token_ids
            for llm in models.values()
        ]
    assert answers[0] == answers[1]
