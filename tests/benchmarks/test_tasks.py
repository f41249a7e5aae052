"""Where questions come from, how answers are read, and what accuracy reports of them."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from inference_pio.benchmarks import accuracy
from inference_pio.benchmarks.choices import TaskChoice
from inference_pio.benchmarks.command import Settings
from inference_pio.benchmarks.tasks import generation, testsets
from inference_pio.benchmarks.tasks.testsets import SETS, TestSet, rows_of, spread, stratified
from inference_pio.benchmarks.traces import PACKAGED
from inference_pio.errors import UsageError
from inference_pio.models.llama.benchmarks.workloads import SUITE

DATA = resources.files("inference_pio.benchmarks").joinpath("data")


def test_the_files_are_those_whose_sources_are_stated() -> None:
    lines = DATA.joinpath("SOURCES.md").read_text(encoding="utf-8").splitlines()
    stated = {cells[1].strip(): cells for line in lines if len(cells := line.split("|")) > 4}
    packaged = {kind.packaged for kind in SETS.values()} | set(PACKAGED.values())
    for name in packaged:
        digest = hashlib.sha256(DATA.joinpath(name).read_bytes()).hexdigest()
        assert stated[name][3].strip() == digest
    for kind in SETS.values():
        assert stated[kind.complete][3].strip() == kind.sha256
    files = {entry.name for entry in DATA.iterdir()} - {"SOURCES.md"}
    assert files == packaged


def test_the_subsets_are_what_they_say() -> None:
    counts = {name: len(rows_of(name)) for name in SETS}
    assert counts == {"lambada": 300, "mmlu": 228, "mmlu_dev": 285, "gsm8k": 104, "humaneval": 164}
    assert set(Counter(row["subject"] for row in rows_of("mmlu")).values()) == {4}
    assert set(Counter(row["subject"] for row in rows_of("mmlu_dev")).values()) == {5}
    assert all(generation.final_number(row["answer"]) is not None for row in rows_of("gsm8k"))
    assert all(len(row["choices"]) == 4 and 0 <= row["answer"] < 4 for row in rows_of("mmlu"))


def test_rows_are_spread_over_all_and_strata_are_equal() -> None:
    assert spread([{"n": n} for n in range(10)], 4) == [{"n": n} for n in (0, 2, 5, 7)]
    assert spread([{"n": 1}], 4) == [{"n": 1}]
    rows = [{"kind": kind, "n": n} for kind in "abcd" for n in range(5)]
    assert Counter(row["kind"] for row in stratified(rows, "kind", 8)) == dict.fromkeys("abcd", 2)
    assert [row["kind"] for row in stratified(rows, "kind", 2)] == ["a", "c"]
    assert sorted(Counter(row["kind"] for row in stratified(rows, "kind", 6)).values()) == [1, 1, 2, 2]
    assert stratified(rows, "kind", 100) == rows


@pytest.fixture
def small_set(monkeypatch: pytest.MonkeyPatch) -> bytes:
    text = b'{"text": "one two"}\n'
    monkeypatch.setitem(
        testsets.SETS,
        "lambada",
        TestSet("lambada.jsonl.gz", "all.jsonl", hashlib.sha256(text).hexdigest(), 1),
    )
    return text


@pytest.mark.parametrize("packed", [True, False])
def test_a_complete_file_is_taken_as_it_is_or_compressed(
    tmp_path: Path, small_set: bytes, packed: bool
) -> None:
    if packed:
        (tmp_path / "all.jsonl.gz").write_bytes(gzip.compress(small_set))
    else:
        (tmp_path / "all.jsonl").write_bytes(small_set)
    assert rows_of("lambada", str(tmp_path)) == [{"text": "one two"}]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("other.jsonl", b"", "holds neither all.jsonl nor all.jsonl.gz"),
        ("all.jsonl", b"{}\n", "is not the published file"),
        ("all.jsonl.gz", b"no gzip", "cannot be read"),
        ("all.jsonl.gz", gzip.compress(b"x" * 100)[:-8], "cannot be read"),
        ("all.jsonl.gz", gzip.compress(b"\0" * (65 << 20)), "larger than any test set"),
    ],
)
def test_another_file_is_refused(
    tmp_path: Path, small_set: bytes, name: str, content: bytes, says: str
) -> None:
    assert small_set
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=says) as caught:
        rows_of("lambada", str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("9 * 2 = 18.\n#### 18", 18),
        ("#### 1,234,567", 1234567),
        ("#### -3.5 apples", -3.5),
        ("####$70", 70),
        ("#### 7\n\nQuestion: another\n#### 8", 7),
        ("it is 18", None),
        ("#### none", None),
    ],
)
def test_the_final_number(answer: str, number: float | None) -> None:
    assert generation.final_number(answer) == number


def test_an_answer_is_cut_at_the_first_stop_string() -> None:
    assert generation.cut("a\ndef b", ("\nclass", "\ndef")) == "a"
    assert generation.cut("a b", ("\ndef",)) == "a b"


class _Scripted:
    """A model that says what the test wrote, however it is asked."""

    def __init__(self, answers: Sequence[str], room: int = 10_000) -> None:
        self._answers, self.prompts = answers, []
        self.plan = type("Plan", (), {"max_model_len": room})()
        self.plugin = self

    def tokenize(self, prompts: Sequence[str]) -> list[list[str]]:
        return [prompt.split() for prompt in prompts]

    def answers(self, prompts: Sequence[str], params: Sequence[Any], on_finished: Any) -> list[str]:
        self.prompts, self.params = prompts, params
        for _ in prompts:
            on_finished()
        return list(self._answers)


_SUMS = [{"question": f"{n} + 1?", "answer": f"It is {n + 1}.\n#### {n + 1}"} for n in range(7)]


def test_gsm8k_asks_after_solved_ones_and_counts_right_numbers() -> None:
    scripted, rounds = _Scripted([" 5.\n#### 5", " #### 7", " I do not know"]), []
    right, examples = generation.gsm8k(scripted, _SUMS, 32, lambda *told: rounds.append(told[:2]))
    assert (right, examples) == ([True, False, False], 4)
    assert scripted.prompts[0].startswith("Question: 0 + 1?\nAnswer: It is 1.\n#### 1\n\nQuestion: 1 + 1?")
    assert scripted.prompts[0].endswith("#### 4\n\nQuestion: 4 + 1?\nAnswer:")
    assert (scripted.params[0].temperature, scripted.params[0].stop) == (0.0, ["Question:"])
    assert rounds == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_solved_ones_give_way_to_the_question() -> None:
    one = len(generation.gsm8k_prompt(_SUMS[4], _SUMS[:1]).split())
    scripted = _Scripted(["", "", ""], room=one + 32)
    assert generation.gsm8k(scripted, _SUMS, 32)[1] == 1
    assert scripted.prompts[0].count("Question:") == 2


def test_completions_are_written_as_the_checker_reads_them(tmp_path: Path) -> None:
    rows = rows_of("humaneval")[:2]
    file = tmp_path / "out.jsonl"
    scripted = _Scripted(["    return 1\nprint(2)", '    return "é"\n'])
    assert generation.humaneval(scripted, rows, 64, file) == 2
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert lines == [
        {"task_id": "HumanEval/0", "completion": "    return 1"},
        {"task_id": "HumanEval/1", "completion": '    return "é"\n'},
    ]
    with pytest.raises(UsageError, match="cannot be written"):
        generation.humaneval(scripted, rows, 64, tmp_path / "no" / "out.jsonl")


@pytest.mark.slow
def test_accuracy_reports_every_task(tiny_llama: Path, tmp_path: Path) -> None:
    file = tmp_path / "completions.jsonl"
    settings = Settings(
        model=str(tiny_llama),
        device="cpu",
        quick=True,
        tasks=TaskChoice(("lambada", "mmlu", "gsm8k", "humaneval"), 3, "", str(file)),
    )
    report = accuracy.measure(SUITE, settings)
    rows = {row.what: row for row in report.rows}
    for what in ("lambada, last word right", "mmlu, right letter", "gsm8k, right number"):
        assert rows[what].summary.count == 3
        assert rows[what].summary.interval.confidence == 0.95
    assert rows["lambada, log-likelihood of the last word"].summary.median < 0
    assert report.work["mmlu"] == "3 of 14,042 questions"
    assert len(file.read_text().splitlines()) == 3
    assert any("not run here" in note for note in report.notes)
    assert 0 <= report.metrics.accuracy_score <= 1
    assert report.metrics.resource_utilization["mmlu_seconds"] > 0
    assert math.isnan(report.metrics.latency_ms)
