"""Progress bars: as many as there are things at work, however many are told."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
import rich.progress

from inference_pio.cli.progress import download_bars, round_bars


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("bars", [download_bars, round_bars])
def test_a_worker_that_always_does_something_else_has_few_bars(
    bars: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[rich.progress.Progress] = []

    class Watched(rich.progress.Progress):
        def __init__(self, *columns: Any, **more: Any) -> None:
            super().__init__(*columns, **more)
            made.append(self)

    monkeypatch.setattr(rich.progress, "Progress", Watched)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with bars(quiet=False) as report:
        for number in range(300):
            report(1, 2, f"step {number}")
        report(2, 2, "step 299")
        tasks = made[0].tasks
        assert len(tasks) <= 64
        assert [(task.description, task.completed) for task in tasks if task.visible] == [("step 299", 2)]


@pytest.mark.parametrize("bars", [download_bars, round_bars])
def test_what_a_worker_says_is_no_markup(bars: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with bars(quiet=False) as report:
        report(1, 2, "[/red] [link=x]y")
    assert "[/red] [link=x]y" in terminal.getvalue()
