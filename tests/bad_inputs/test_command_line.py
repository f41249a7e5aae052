"""What is typed, set or called wrong: told at once, in one line, and the same wherever the model runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from bad_inputs.files import Row, read_table
from bad_inputs.front_ends import Refusal, typed
from inference_pio import LLM, ResourceLimits, SamplingParams, SecurityLevel, errors
from inference_pio.errors import ConfigError, InferencePIOError, UsageError
from inference_pio.security import landlock
from support.tiny_llama import write_model

_TABLE = read_table("command_line.toml")
TYPED, AROUND, CALLED = (
    {f"{row['id']} {row['name']}": row for row in _TABLE[kind]} for kind in ("typed", "around", "called")
)
_TESTS = Path(__file__).parents[1]
_LOCKED = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
_BEGIN = [sys.executable, "-c", "from inference_pio.cli.main import main; main()"]
_IN_A_WORKER = ["--security-level", "low_trust", "--enforcement", "best_effort"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny", max_position_embeddings=100_000)


@pytest.mark.parametrize("case", TYPED)
def test_typed(case: str) -> None:
    row = TYPED[case]
    for verb in row.get("verbs", ["run", "plan", "chat"]):
        said = typed(verb, "/no/such/model", *row["options"])
        assert said is not None
        assert said.kind == UsageError.exit_code
        assert re.search(row["words"], said.text), said
    if "limits" in row:
        with pytest.raises(ConfigError) as caught:
            ResourceLimits(**row["limits"])
        assert str(caught.value) == said.text


@pytest.mark.parametrize("case", AROUND)
def test_around(case: str, model: Path, tmp_path: Path) -> None:
    row = AROUND[case]
    arguments = row.get("arguments", ["run", str(model), "hi", "--max-tokens", "2", "--quiet"])
    if row.get("worker"):
        arguments = [*arguments, *_IN_A_WORKER]
    kept = {name: value for name, value in os.environ.items() if name not in row.get("unset", [])}
    ran = subprocess.run(
        [*_elsewhere(row.get("folder", "/"), tmp_path), *arguments],
        env={**kept, **row.get("variables", {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == row["code"], ran.stderr
    assert bool(ran.stdout) == (row["code"] == 0)
    assert ran.stderr.count("\n") == bool(row["words"]), ran.stderr
    assert re.match(row["words"], ran.stderr)


def _elsewhere(folder: str, here: Path) -> list[str]:
    """The command line in another folder: gone is one that was there when it was entered."""
    if folder != "gone":
        return [*_BEGIN[:2], f"import os; os.chdir({folder!r}); {_BEGIN[2]}"]
    (here / folder).mkdir()
    enter = f"import os; os.chdir({str(here / folder)!r}); os.rmdir(os.getcwd())"
    return [*_BEGIN[:2], f"{enter}; {_BEGIN[2]}"]


@_LOCKED
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("answering", [False, True])
def test_a_signal_ends_it_and_its_worker(number: signal.Signals, answering: bool, model: Path) -> None:
    """While a worker loads, or while it answers; nothing is said, and nothing stays behind."""
    long = ["--min-tokens", "90000", "--max-tokens", "90000", "--temperature", "0", "--quiet"]
    process = subprocess.Popen(
        [*_BEGIN, "run", str(model), "hi", *long, *_IN_A_WORKER],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            worker = _worker_of(process)
            if answering:
                assert process.stdout is not None
                assert process.stdout.read(1)
            process.send_signal(number)
            process.send_signal(number)
            assert process.wait(20) == -number
            assert process.stderr is not None
            assert process.stderr.read() == b""
            worker.wait(20)
        finally:
            process.kill()


def _worker_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for child in psutil.Process(process.pid).children():
            with suppress(psutil.Error):  # the canary before it, which has ended by now
                if "worker.child" in " ".join(child.cmdline()):
                    return child
        time.sleep(0.02)
    raise AssertionError("no worker in a minute")


# Python ---------------------------------------------------------------------------------------------------------------


class Text(str):
    __slots__ = ()


class Evil(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("it was written out")

    __repr__ = __str__


class Odd(int):
    def __index__(self) -> int:
        raise RuntimeError("it was counted with")

    __int__ = __index__


def forked(act: Callable[[], object]) -> object:
    """What `act` raises in a child of this process, raised here."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)
        try:
            act()
            said = ""
        except InferencePIOError as error:
            said = f"{type(error).__name__} {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as answer:
        kind, _, text = answer.read().partition(" ")
    assert os.waitpid(child, 0)[1] == 0
    if kind:
        raise getattr(errors, kind)(text)
    return None


def threads(act: Callable[[], object], count: int) -> object:
    """What `act` gives in so many threads at once, where it is the same in each and in this one."""
    found: list[object] = []
    running = [threading.Thread(target=lambda: found.append(act())) for _ in range(count)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(30)
    assert found == [act()] * count
    return found


@pytest.fixture(scope="module")
def loaded(model: Path) -> Iterator[dict[str, LLM]]:
    options: dict[str, Any] = {"dtype": "float32", "kv_cache_memory_gb": 0.02}
    with LLM(str(model), **options) as here:
        if not landlock.version():
            yield {"here": here}
            return
        with LLM(str(model), security_level=SecurityLevel.LOW_TRUST, **options) as apart:
            yield {"here": here, "apart": apart}


@pytest.mark.parametrize("case", CALLED)
def test_called(case: str, loaded: dict[str, LLM]) -> None:
    row = CALLED[case]
    said = {where: _called(row, llm) for where, llm in loaded.items()}
    for refused in said.values():
        if "error" not in row:
            assert refused is None
            continue
        assert refused is not None
        assert refused.kind == row["error"]
        assert re.search(row["words"], refused.text)
    if row.get("same", True):
        assert len({refused and refused.text for refused in said.values()}) == 1
    for llm in loaded.values():
        assert llm.generate("hi", SamplingParams(max_tokens=1))[0].outputs[0].token_ids


def _called(row: Row, llm: LLM) -> Refusal | None:
    greedy = SamplingParams(temperature=0, max_tokens=3)
    names = {
        "llm": llm,
        "np": np,
        "P": SamplingParams,
        "greedy": greedy,
        "Text": Text,
        "Evil": Evil,
        "Odd": Odd,
    }
    names |= {"forked": forked, "threads": threads}
    try:
        assert eval(row["code"], names)  # the data file's own expressions
    except InferencePIOError as error:
        return Refusal(type(error).__name__, str(error))
    return None


def test_what_is_said_of_other_tests_is_so() -> None:
    for row in _TABLE["elsewhere"]:
        assert (_TESTS / row["test"]).exists(), row
    assert {row["id"] for rows in _TABLE.values() for row in rows} == {
        f"L{number}" for number in range(1, 12)
    }
