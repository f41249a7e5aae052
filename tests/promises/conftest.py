"""Workers of `support.faulty_worker`, and less patience with them than with real ones."""

from __future__ import annotations

import pytest

from inference_pio.worker import model, patience, process


@pytest.fixture
def faulty_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every worker is one of them, and looked at often."""
    monkeypatch.setattr(process, "_CHILD", "support.faulty_worker:main")
    monkeypatch.setattr(model, "_TICK_SECONDS", 0.05)


@pytest.fixture
def little_patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With those that hang alone: where other work keeps the machine busy, others may be slow."""
    if request.getfixturevalue("fault") in ("loop", "hang up"):
        monkeypatch.setattr(model, "_PATIENCE_AT_CLOSE", 1.0)
        monkeypatch.setattr(patience, "_LEAST_STALL", 2.5)
        monkeypatch.setattr(patience, "LONGEST_SILENCE", 4.0)
