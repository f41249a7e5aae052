"""The orchestrator with workers that compute nothing: turns, prompts, and what happens where one misbehaves."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from inference_pio.benchmarks.workload import Workload
from peers import measure
from peers.measure import Contestant, Measured, measure_model
from peers.replies import WorkerFailed
from peers.rows import Bar, Row
from peers.worker import Launch, Worker
from peers.workers.worker_protocol import Settings

FAKE = Path(__file__).with_name("fake_worker.py")
SETTINGS = Settings(model="none", threads=1, max_seqs=1, max_len=8, total_tokens=8)


def row(name: str = "batch", **fields: Any) -> Row:
    usual = {
        "title": "",
        "workload": Workload(4, 5, concurrency=2),
        "counts": "output",
        "bar": Bar(None, 9.0),
    }
    return Row(name, "none", **(usual | fields))


@pytest.fixture(autouse=True)
def _no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_SETTLE_SECONDS", 0.0)


class Fakes:
    """Fake workers by name, what they were asked, and what was said of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.contestants: dict[str, Contestant] = {}

    def add(self, name: str, seconds: float = 1.0, *how: str, timeout: float = 30.0) -> None:
        command = (sys.executable, str(FAKE), str(self.folder / name), str(seconds), *how)
        launch = Launch(name, command, self.folder / f"{name}.log", timeout)
        self.contestants[name] = Contestant(launch, Path("none"))

    def measure(self, *rows: Row, rounds: int = 2) -> list[Measured]:
        measured, _ = measure_model(rows, self.contestants, rounds=rounds, threads=3, say=self.lines.append)
        return measured

    def calls(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def requests(self, name: str) -> list[dict[str, Any]]:
        return [call for call in self.calls(name) if "prompts" in call]


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return Fakes(tmp_path)


def test_workers_take_turns_and_all_get_the_same_new_prompts(fakes: Fakes) -> None:
    for name in ("a", "b", "c"):
        fakes.add(name)
    [measured] = fakes.measure(row())
    asked = {name: fakes.requests(name) for name in ("a", "b", "c")}
    order = sorted(
        (call["at"], name, turn) for name, calls in asked.items() for turn, call in enumerate(calls)
    )
    assert [(name, turn) for _, name, turn in order] == [
        *(("c", 0), ("b", 0), ("a", 0)),
        *(("a", 1), ("b", 1), ("c", 1)),
        *(("c", 2), ("b", 2), ("a", 2)),
    ]
    prompts = [[call["prompts"] for call in calls] for calls in asked.values()]
    assert prompts[0] == prompts[1] == prompts[2]
    assert len({json.dumps(one) for one in prompts[0]}) == 3
    assert all(0 <= token < 50 for prompt in prompts[0][0] for token in prompt)
    assert {name: len(replies) for name, replies in measured.replies.items()} == {"a": 2, "b": 2, "c": 2}
    assert not measured.failed


def test_a_model_is_loaded_once_with_room_for_all_its_rows(fakes: Fakes) -> None:
    fakes.add("a")
    long = row("long", workload=Workload(prompt_len=40, output_len=2))
    measured = fakes.measure(row(), long)
    assert [one.row.name for one in measured] == ["batch", "long"]
    [loaded] = [call["loaded"] for call in fakes.calls("a") if "loaded" in call]
    sizes = {"max_seqs": 2, "max_len": 42, "total_tokens": 42}
    assert loaded == {"model": "none", "threads": 3, **sizes, "once": False}


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("dies", "exit code 1: RuntimeError: no more memory for keys and values"),
        ("garbage", "said 'Segmentation fault, perhaps' instead of a JSON object"),
        ("short", r"gave 2 answers of \[4\] tokens instead of 2 of 5"),
    ],
)
def test_one_that_misbehaves_is_out_and_named_and_the_others_go_on(
    fakes: Fakes, how: str, cause: str
) -> None:
    fakes.add("good")
    fakes.add("bad", 1.0, how)
    first, second = fakes.measure(row("first"), row("second"))
    for measured in (first, second):
        assert list(measured.replies) == ["good"]
        assert len(measured.replies["good"]) == 2
        with pytest.raises(WorkerFailed, match=cause):
            raise WorkerFailed(measured.failed["bad"])
    assert sum("bad is out" in line for line in fakes.lines) == 1


def test_one_that_does_not_load_is_out(fakes: Fakes) -> None:
    fakes.add("good")
    fakes.add("mute", 1.0, "mute", timeout=0.3)
    missing = Launch("missing", ("/no/such/python",), fakes.folder / "missing.log")
    fakes.contestants["missing"] = Contestant(missing, Path("none"))
    [measured] = fakes.measure(row())
    assert list(measured.replies) == ["good"]
    assert measured.failed["mute"] == "said nothing for 0.3 s"
    assert measured.failed["missing"] == "/no/such/python does not start: No such file or directory"


def test_a_row_after_the_first_token_needs_to_know_when_that_came(fakes: Fakes) -> None:
    fakes.add("timed", 2.0)
    fakes.add("untimed", 2.0, "untimed")
    [measured] = fakes.measure(row(counts="output after the first", workload=Workload(4, 5)))
    [reply, _] = measured.replies["timed"]
    # 4 tokens follow the first in the last three quarters of 2 seconds.
    assert measured.row.figure(measured.row.seconds(reply)) == pytest.approx(4 / 1.5)
    assert measured.failed["untimed"] == "it does not say when the first token came"


def test_a_start_is_a_new_process_every_round(fakes: Fakes) -> None:
    fakes.add("a", 1000.0)
    start = row("start", counts="start", workload=Workload(prompt_len=3, output_len=1))
    [measured] = fakes.measure(start, rounds=2)
    loaded = [call["loaded"]["once"] for call in fakes.calls("a") if "loaded" in call]
    assert loaded == [False, True, True, True]
    for reply in measured.replies["a"]:
        assert 0 < reply.seconds < 30  # as the orchestrator's clock has it, not what the worker says


def test_workers_that_are_not_asked_are_watched(fakes: Fakes) -> None:
    fakes.add("sleeper")
    [measured] = fakes.measure(row())
    assert measured.idle_cores == 0.0
    spinner = "import time\nfor _ in range(10**9): pass"
    with Worker(
        Launch("spins", (sys.executable, "-c", spinner), fakes.folder / "spins.log"), SETTINGS
    ) as worker:
        time.sleep(0.5)
        assert worker.cpu_seconds() > 0.05
        worker.kill()


def test_what_a_library_prints_does_not_get_between_the_lines(tmp_path: Path) -> None:
    script = tmp_path / "chatty.py"
    script.write_text(
        "import os\n"
        "from worker_protocol import serve\n"
        "class Chatty:\n"
        "    version, described, vocab_size = '1', 'chatty', 9\n"
        "    def __init__(self, settings):\n"
        "        print('loading', settings.model)\n"
        "    def generate(self, prompts, output_len):\n"
        "        os.write(1, b'progress\\n')\n"
        "        return [[1] * output_len for _ in prompts], None\n"
        "serve(Chatty)\n"
    )
    workers = Path(measure.__file__).parent / "workers"
    command = (
        sys.executable,
        "-c",
        f"import runpy, sys; sys.path.insert(0, {str(workers)!r}); runpy.run_path({str(script)!r})",
    )
    with Worker(Launch("chatty", command, tmp_path / "chatty.log", 30.0), SETTINGS) as worker:
        assert worker.wait_ready().described == "chatty"
        assert worker.ask([[1, 2], [3]], 2).tokens == [[1, 1], [1, 1]]
    assert (tmp_path / "chatty.log").read_text().split("\n")[:2] == ["loading none", "progress"]
