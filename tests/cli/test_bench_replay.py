"""`bench replay`: recorded traffic played to a tiny random llama."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inference_pio.benchmarks.replay import Replay

SMALL = ("--scale", "64", "--speed", "20", "--seconds", "1", "--dtype", "float32")


def test_every_request_and_its_times_are_told(cli: Any, tiny: Path) -> None:
    done = cli("bench", "replay", tiny, "--trace", "azure-code", *SMALL, "--json", "--ttft", "60000")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["replay"]["scale"] == 64
    assert document["requests"]
    assert {"came", "queue", "ttft", "tpot", "total", "good"} <= set(document["requests"][0])
    good = sum(row["good"] for row in document["requests"])
    assert document["goodput"]["share"] == good / len(document["requests"])
    [note] = [note for note in document["report"]["notes"] if note.startswith("azure-code")]
    assert note == "azure-code, the first 1 s at 20 times its speed, 1/64 of its tokens"


def test_a_table_of_a_file_of_ones_own(cli: Any, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [
        {"timestamp": 10 * number, "input_length": 600, "output_length": 80, "hash_ids": [7, 100 + number]}
        for number in range(4)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = cli("bench", "replay", tiny, "--trace", file, "--dtype", "float32")
    assert done.code == 0, done.err
    for what in ("offered", "goodput", "first token, p99", "per token after it, p50", "prefix cache"):
        assert what in done.out
    assert "4 in " in done.out


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["--trace", "azure"], "no trace 'azure': give azure-code"),
        (["--scale", "0"], "scale must be a whole number from 1 up"),
        (["--speed", "0"], "speed must be above 0"),
        (["--seconds", "nan"], "seconds must be above 0"),
        (["--ttft", "-1"], "ttft_ms must be above 0"),
        (["--kv-cache-dtype", "int7"], "kv_cache_dtype must be one of"),
    ],
)
def test_wrong_options_are_one_line(cli: Any, tiny: Path, typed: list[str], says: str) -> None:
    cli("bench", "replay", tiny, *typed).complains(2, says)


def test_a_bad_row_is_one_line(cli: Any, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97,4808,ten\n")
    cli("bench", "replay", tiny, "--trace", file).complains(2, "bad.csv, line 2: ", "'ten'")


def test_ctrl_c_tells_what_has_ended(cli: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = Replay._take

    def until_three(replay: Replay, started: float) -> bool:
        took = take(replay, started)
        if len(replay.played) >= 3:
            raise KeyboardInterrupt
        return took

    monkeypatch.setattr(Replay, "_take", until_three)
    done = cli("bench", "replay", tiny, "--trace", "azure-code", *SMALL, "--json")
    assert done.code == 130
    assert "Traceback" not in done.err
    document = json.loads(done.out)
    assert len(document["requests"]) >= 3
    assert any(note.startswith("interrupted: ") for note in document["report"]["notes"])
