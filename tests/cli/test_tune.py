"""`tune` and `probe` as they are typed, and what `run` does with a result."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from inference_pio.benchmarks.tuning.trials import Trials
from inference_pio.metrics import rates
from inference_pio.metrics.rates import Rates


@pytest.fixture
def faster_without_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    def cost(self: Trials, setting: Mapping[str, Any], round_number: int) -> float:  # noqa: ARG001
        return 2.0 if setting["speculation"] else 1.0

    monkeypatch.setattr(Trials, "cost", cost)


@pytest.mark.usefixtures("faster_without_guesses")
def test_a_result_is_printed_kept_and_used(
    cli: Any, home: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # threads are searched, and stay what they are
    result = cli("tune", tiny)
    assert result.code == 0, result
    assert result.out.startswith("speculation 0: 2.00 times as fast")
    assert "2.00 times as fast as the defaults (2.00 to 2.00" in result.out
    assert "speculation 0: 2.00 times as fast" in result.err
    [file] = (home / "tuned").glob("*/*.json")
    assert str(file) in result.out
    ran = cli("run", tiny, "hello", "--max-tokens", "2")
    assert re.search(r"\(tuned on [-0-9]{10}: speculation 0\)", ran.err), ran
    for calm in (["--quiet"], ["--no-tuned"], ["--speculation", "3"]):
        assert "tuned on" not in cli("run", tiny, "hello", "--max-tokens", "2", *calm).err


@pytest.mark.usefixtures("faster_without_guesses")
def test_json(cli: Any, tiny: Path) -> None:
    result = cli("tune", tiny, "--json", "--profile", "throughput")
    found = json.loads(result.out)
    assert result.err == ""
    assert found["gained"]
    assert (found["options"]["speculation"], found["verdict"], found["ratio"]) == (0, "faster", 2.0)
    assert (found["profile"], found["complete"]) == ("throughput", True)
    assert Path(found["file"]).is_file()


def test_no_gain_is_said(cli: Any, home: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trials, "cost", lambda *_: 1.0)
    result = cli("tune", tiny, "--quiet")
    assert result.out.startswith("No gain: nothing was better than the defaults in ")
    assert result.err == ""
    assert "tuned" not in cli("run", tiny, "hello", "--max-tokens", "2").err
    assert home.is_dir()


@pytest.mark.parametrize(
    ("options", "code", "fragments"),
    [
        (["--profile", "quality"], 2, ["tune measures for latency or throughput, not for 'quality'"]),
        (["--seconds", "0"], 2, ["seconds must be from 1 to 3600"]),
        (["--seconds", "long"], 2, ["--seconds", "tune --help"]),
        (["--threads", "0"], 2, ["threads must be a whole number from 1 up"]),
        (["--threads", "4096"], 5, ["threads 4096 is more than the", "inference-pio probe"]),
    ],
)
def test_bad_options(cli: Any, tiny: Path, options: list[str], code: int, fragments: list[str]) -> None:
    cli("tune", tiny, "--quiet", *options).complains(code, *fragments)


def test_bad_profiles_and_threads_of_other_verbs(cli: Any, tiny: Path) -> None:
    for verb in (["run", tiny, "hello"], ["plan", tiny]):
        cli(*verb, "--profile", "latncy").complains(2, "latncy", "did you mean 'latency'?")
    cli("run", tiny, "hello", "--threads", "4096").complains(5, "threads 4096 is more than")
    assert cli("plan", tiny, "--profile", "memory", "--json").code == 0


def test_a_profile_changes_the_plan(cli: Any, tiny: Path) -> None:
    plans = [
        json.loads(cli("plan", tiny, "--profile", name, "--json").out) for name in ("latency", "throughput")
    ]
    assert plans[0]["activations"] < plans[1]["activations"]
    assert json.loads(cli("plan", tiny, "--profile", "quality", "--json").out)["dtype"] == "float32"


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(start: Callable[..., Any], home: Path, tiny: Path) -> None:
    process = start("tune", tiny, "--seconds", "600")
    for line in process.stderr:
        if line.startswith("measuring "):
            break
    time.sleep(0.1)  # a busy machine may tell late, and the measurements of so small a model are few
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, "Traceback" in err) == ("", False)
    assert not list(home.glob("tuned/**/*"))


def test_probe(cli: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "measure", lambda threads, _: Rates(threads, 1.25e10, 2e11, 1e11))
    shown = cli("probe")
    assert shown.code == 0, shown
    for fragment in (
        "processor",
        "usable here",
        "12.5 GB/s",
        "200 G operations/s",
        "unknown: disk.read_bytes",
    ):
        assert fragment in shown.out, shown.out
    data = json.loads(cli("probe", "--json").out)
    assert {"fingerprint", "machine", "disk", "rates", "specs", "unknown"} <= set(data)
    assert (home / "hardware.json").is_file()
