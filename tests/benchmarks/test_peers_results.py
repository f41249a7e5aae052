"""Ratios, bars, what is missing, the record and its picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from inference_pio.benchmarks.workload import Workload
from inference_pio.errors import UsageError
from peers import record
from peers.chart import draw
from peers.measure import Measured
from peers.replies import Reply, WorkerFailed, parse_ready, parse_reply
from peers.report import print_comparison
from peers.results import Comparison, Result, result_of
from peers.rows import LLAMA, OPENVINO, OURS, ROWS, USUAL_PEERS, Bar, Row, by_model, chosen

WORK = Workload(prompt_len=10, output_len=20, concurrency=3)


def replies(*seconds: float, first: float | None = None, token: int = 1) -> list[Reply]:
    return [Reply(one, first, [[token] * 20] * 3) for one in seconds]


def measured(bar: Bar, counts: Any = "output", **engines: list[Reply]) -> Measured:
    names = {"ours": OURS, "llama": LLAMA, "openvino": OPENVINO}
    row = Row("row", "model", "some <work>", WORK, counts, bar)
    return Measured(row, {names[name]: replies for name, replies in engines.items()})


def test_ratios_are_of_the_same_round() -> None:
    # In a machine that gets slower the ratio stays: 2, 2 and 4 times as fast.
    one = measured(Bar(LLAMA, 2.0), ours=replies(1.0, 2.0, 4.0), llama=replies(2.0, 4.0, 16.0))
    result = result_of(one, {})
    against = result.engines[LLAMA]
    assert against.figure.median == 60 / 4.0
    assert against.ours is not None
    ratio = against.ours.ratio
    assert (ratio.minimum, ratio.median, ratio.maximum) == (2.0, 2.0, 4.0)
    assert against.ours.verdict == "cannot tell"  # of three rounds
    assert result.met is True
    assert result.engines[OURS].figure.median == 60 / 2.0


@pytest.mark.parametrize(
    ("counts", "figure"), [("prompt", 15.0), ("output", 30.0), ("output after the first", 38.0)]
)
def test_what_a_rate_counts(counts: str, figure: float) -> None:
    one = measured(Bar(None, 1.0), counts, ours=replies(2.0, first=0.5))
    assert result_of(one, {}).engines[OURS].figure.median == pytest.approx(figure)


def test_a_start_is_in_seconds_and_its_bar_an_upper_one() -> None:
    one = measured(Bar(None, 2.5), "start", ours=replies(2.0, 2.4, 2.6), llama=replies(1.0, 1.2, 1.3))
    result = result_of(one, {})
    assert result.engines[OURS].figure.median == 2.4
    assert result.met is True
    assert result.engines[LLAMA].ours is not None
    assert result.engines[LLAMA].ours.ratio.median == 0.5
    assert result_of(measured(Bar(None, 2.3), "start", ours=replies(2.4)), {}).met is False


def test_a_bar_that_was_not_measured_is_not_met_unless_nobody_asked() -> None:
    bar = Bar(OPENVINO, 1.0)
    alone = measured(bar, ours=replies(1.0), llama=replies(9.0))
    assert result_of(alone, {}).met is None
    assert Comparison([result_of(alone, {})]).all_met
    assert not Comparison([result_of(alone, {OPENVINO: "does not install"})]).all_met
    alone.failed[OPENVINO] = "died"
    assert not Comparison([result_of(alone, {})]).all_met
    assert not Comparison([result_of(measured(bar, openvino=replies(1.0)), {})]).all_met


def test_another_model_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    one = measured(Bar(LLAMA, 1.0), ours=replies(1.0, 1.0), llama=replies(2.0, 2.0, token=2))
    one.idle_cores = 0.5
    one.failed[OPENVINO] = "ended with exit code 1"
    comparison = Comparison([result_of(one, {})], unavailable={"vllm": "not to be had"})
    assert comparison.results[0].engines[LLAMA].same_first_tokens == 0.0
    print_comparison(comparison, ["method"])
    printed = capsys.readouterr().out
    assert "only 0% of llama.cpp's answers begin like ours" in printed
    assert "kept 0.50 cores busy" in printed
    assert "row: openvino failed: ended with exit code 1" in printed
    assert "vllm was skipped: not to be had" in printed
    [line] = [line for line in printed.splitlines() if "llama.cpp" in line and "tok/s" in line]
    assert " ".join(line.split("tok/s")[1].split()) == "2.00 (2.00 – 2.00) cannot tell ≥ 1 × llama.cpp met"


def as_record(result: Result) -> dict[str, Any]:
    facts = {"cpu": "A & B <fast>", "threads": 2, "date": "2026-01-02T03:04:05+00:00"}
    return {"rounds": 3, "rows": [result.as_dict()], "environment": facts}


def test_the_picture_is_svg_with_bars_to_scale() -> None:
    one = measured(Bar(LLAMA, 1.0), ours=replies(1.0, 2.0, 3.0), llama=replies(4.0, 4.0, 4.0))
    picture = ElementTree.fromstring(draw(as_record(result_of(one, {}))))
    space = "{http://www.w3.org/2000/svg}"
    assert picture.tag == f"{space}svg"
    bars = [float(bar.attrib["width"]) for bar in picture.iter(f"{space}rect")][1:]
    assert bars == pytest.approx([480 * 30 / 60, 480 * 15 / 60], abs=0.1)
    words = [text.text for text in picture.iter(f"{space}text")]
    assert "model: some <work> (tok/s, more is better)" in words
    assert words[0] == "A & B <fast>, 2 threads, 2026-01-02; medians of 3 rounds"


def test_a_row_that_nobody_measured_has_no_bars() -> None:
    one = measured(Bar(LLAMA, 1.0))
    assert draw(as_record(result_of(one, {}))).count("<rect") == 1


def test_records_are_found_again(tmp_path: Path) -> None:
    assert record.last("bench", tmp_path) is None
    (tmp_path / "2020-01-01-bench.json").write_text('{"rounds": 1}')
    (tmp_path / "2030-01-01-peers.json").write_text("no JSON, and of another kind")
    result = result_of(measured(Bar(LLAMA, 1.0), ours=replies(1.0), llama=replies(2.0)), {})
    file = record.write("bench", as_record(result), tmp_path)
    assert json.loads(file.read_text())["rows"][0]["engines"][LLAMA]["ours"]["ratio"]["median"] == 2.0
    found = record.last("bench", tmp_path)
    assert found is not None
    assert (found["file"], found["rounds"]) == (file.name, 3)
    with pytest.raises(UsageError, match="is not JSON"):
        record.last("peers", tmp_path)


def test_rows_are_chosen_by_name_or_beginning() -> None:
    assert [row.name for row in chosen("qwen, smollm2-start")] == [
        *("smollm2-start", "qwen-decode", "qwen-prefill", "qwen-batch")
    ]
    assert chosen("") == ROWS
    assert list(by_model(ROWS)) == list(USUAL_PEERS)
    with pytest.raises(UsageError, match="no row is called 'gpt'; there are smollm2-decode"):
        chosen("gpt")
    for row in ROWS:
        assert row.bar.peer is None or row.bar.peer in USUAL_PEERS[row.model]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b'{"seconds": 0, "tokens": [[1]]}', "instead of an answer"),
        (b'{"seconds": 1.0, "first_token_seconds": 2.0, "tokens": [[1]]}', "came after 2.0 of 1.0 s"),
        (b'{"seconds": NaN, "tokens": [[1]]}', "instead of an answer"),
        (b'{"seconds": 1.0, "tokens": [7]}', r"1 answers of \[0\] tokens"),
        (b"[]", "instead of a JSON object"),
    ],
)
def test_a_reply_that_says_something_impossible_is_a_failure(line: bytes, cause: str) -> None:
    with pytest.raises(WorkerFailed, match=cause):
        parse_reply(line, 1, 1)
    with pytest.raises(WorkerFailed):
        parse_ready(line)
