"""Every verb that loads a model takes limits, and what it says it holds it holds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import psutil
import pytest

from inference_pio.cli.app import _VERBS
from inference_pio.cli.limit_options import LimitOptions
from inference_pio.errors import UnavailableError
from inference_pio.loader.resolve import resolve
from inference_pio.security import ResourceLimits
from inference_pio.security.held import held_to, limits_here

# Those that run one, and what they take beside the model.
_APART = {("run",): ["hi"], ("chat",): []}
_BESIDE_THEIR_WORK: dict[tuple[str, ...], list[str]] = {
    ("bench",): ["throughput"],
    ("bench", "ab"): ["-A", "--block-size 16"],
    ("bench", "replay"): [],
    ("calibrate",): [],
    ("plan",): [],
    ("quantize",): ["out"],
    ("report",): [],
    ("tune",): [],
    ("verify",): [],
}
_NONE = {"models", "plugins", "plugin", "doctor", "probe", "new-model"}
VERBS = {**_APART, **_BESIDE_THEIR_WORK}


def test_all_verbs_are_known_here() -> None:
    assert {verb[0] for verb in VERBS} | _NONE == set(_VERBS)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_each_verb_that_loads_a_model_shows_the_limits(
    cli: Any, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    asked = (*verb, "run", "--help") if verb == ("bench",) else (*verb, "--help")
    shown = cli(*asked).out
    for field in fields(LimitOptions):
        assert f"--{field.name.replace('_', '-')}" in shown


@pytest.mark.parametrize("level", ["low_trust", "high_trust"])
@pytest.mark.parametrize("verb", _BESIDE_THEIR_WORK, ids=" ".join)
def test_a_level_that_a_verb_has_not_is_refused(
    cli: Any, tiny: Path, verb: tuple[str, ...], level: str
) -> None:
    model = "llama" if verb == ("verify",) else str(tiny)
    done = cli(*verb, model, *_BESIDE_THEIR_WORK[verb], "--security-level", level)
    done.complains(2, f"--security-level {level}: {' '.join(verb)} runs the model", "maximum_trust")


def test_limits_in_quotes_are_not_forgotten(cli: Any, tiny: Path) -> None:
    cli("bench", "ab", tiny, "-A", "--memory-gb 3").complains(2, "outside of -A and -B")


def test_less_than_anything_takes_is_refused(cli: Any, tiny: Path) -> None:
    cli("calibrate", tiny, "--memory-gb", "0.1").complains(
        5, "memory_gb 0.1: Python and torch alone take 0.3 GB"
    )


def test_strict_refuses_what_nothing_holds(cli: Any, tiny: Path) -> None:
    asked = ("quantize", tiny, "out", "--network-mbps", "0", "--enforcement", "strict")
    cli(*asked).complains(
        5, "network_bandwidth_mbps: what is downloaded for it is nothing; it may open sockets"
    )


def test_a_process_that_is_held_downloads_nothing(home: Path) -> None:  # noqa: ARG001
    with held_to(ResourceLimits(network_bandwidth_mbps=0)):
        assert limits_here() is not None
        with pytest.raises(UnavailableError, match="nothing may be downloaded"):
            resolve("org/model")
    assert limits_here() is None


def test_a_verb_does_its_work_within_limits(start: Callable[..., Any], tiny: Path, tmp_path: Path) -> None:
    asked = ("--method", "rtn", "--memory-gb", "1", "--cpu-percent", "100", "--disk-gb", "1")
    out, err = start("quantize", tiny, tmp_path / "out", *asked, "--json").communicate(timeout=120)
    assert '"nearest": 15' in out, err
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert err == (
        "(not held here: disk_space_gb = 1: RLIMIT_FSIZE holds each file; it may write anywhere, and nothing adds "
        "that up)\n"
    )


def test_what_is_too_large_is_not_written(start: Callable[..., Any], tiny: Path, tmp_path: Path) -> None:
    running = start("quantize", tiny, tmp_path / "out", "--method", "rtn", "--disk-gb", "0.00001")
    _, err = running.communicate(timeout=120)
    assert running.returncode not in (0, 70), err
    assert err.splitlines()[-1].startswith("error: ")
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_the_child_is_held_and_goes_with_its_parent(start: Callable[..., Any], tiny: Path) -> None:
    limits = ("--memory-gb", "1.5", "--cpu-percent", "100", "--kv-cache-memory-gb", "0.01")
    running = start("tune", tiny, "--seconds", "60", *limits)
    child = _child_of(running.pid)
    lines = Path(f"/proc/{child.pid}/limits").read_text().splitlines()
    data = next(line for line in lines if line.startswith("Max data size"))
    assert data.split()[3:5] == ["1500000000"] * 2
    assert len(os.sched_getaffinity(child.pid)) == 1
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert psutil.wait_procs([child], timeout=5)[0]


def _child_of(pid: int) -> psutil.Process:
    """The one that does the work; it has more threads once it has locked itself in and imported torch."""
    for _ in range(1200):
        for child in psutil.Process(pid).children():
            with suppress(psutil.NoSuchProcess):  # the canary, which ended meanwhile
                if "inference_pio.cli.held" in " ".join(child.cmdline()) and child.num_threads() > 1:
                    return child
        time.sleep(0.05)
    raise AssertionError("no child in 60 s")
