"""Less patience than with real workers, for those of `support.faulty_worker`."""

from __future__ import annotations

import pytest

from inference_pio.worker import model, patience, process


@pytest.fixture
def faulty_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every worker is one of them."""
    monkeypatch.setattr(process, "_CHILD", "support.faulty_worker:main")
    monkeypatch.setattr(model, "_TICK_SECONDS", 0.05)
    monkeypatch.setattr(model, "_PATIENCE_AT_CLOSE", 2.0)
    monkeypatch.setattr(patience, "_LEAST_STALL", 2.0)
    monkeypatch.setattr(patience, "LONGEST_SILENCE", 4.0)
