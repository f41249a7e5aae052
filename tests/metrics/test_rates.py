"""Measured rates: of the right size, in bounded time, and what they leave as it was."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
import torch

from inference_pio.metrics import rates


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_LEAST_BYTES", 2**20)
    monkeypatch.setattr(rates, "_SIDES", (64,))


@pytest.mark.usefixtures("small")
def test_a_machine_has_rates() -> None:
    before = torch.get_num_threads()
    found = rates.measure(1)
    assert 1e8 < found.read_bytes < 1e13
    assert 1e7 < found.bfloat16_operations < 1e14
    assert found.linear_operations == max(found.int8_operations, found.bfloat16_operations)
    assert "with 1 threads" in str(found)
    assert torch.get_num_threads() == before


def test_slow_products_are_not_made_larger() -> None:
    asked = []

    def product(side: int) -> object:
        asked.append(side)
        return lambda: time.sleep(0.02)

    rate = rates._operations(product)  # type: ignore[arg-type]
    assert asked == [512]  # the next would take 0.16 s
    assert 0.5 * 2 * 512**3 / 0.02 < rate <= 2 * 512**3 / 0.02


def test_a_disk_is_read_past_the_cache(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(2**23 + 5000))
    with pytest.raises(OSError, match="No such file"):
        rates.disk_read_bytes(tmp_path / "none")
    try:
        speed = rates.disk_read_bytes(file)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        pytest.skip("temporary files are in memory: there is no other side of the cache")
    assert 1e5 < speed < 1e12
