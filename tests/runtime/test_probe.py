"""What is measured once is kept, for this machine and no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inference_pio.loader.store import ModelStore
from inference_pio.metrics import rates
from inference_pio.metrics.rates import Rates
from inference_pio.runtime import probe as probing
from inference_pio.runtime.probe import probe


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of threads that rates were measured with."""
    counts: list[int] = []

    def measure(threads: int, cache: int) -> Rates:  # noqa: ARG001
        counts.append(threads)
        return Rates(threads, 1e10, 2e11, 1e11)

    monkeypatch.setattr(rates, "measure", measure)
    return counts


def test_rates_are_measured_once(tmp_path: Path, measured: list[int]) -> None:
    store = ModelStore(tmp_path / "home")
    first = probe(store)
    assert measured == sorted({1, first.machine.processor.usable})
    assert first.unknown["disk.read_bytes"].startswith("no model of 34 MB")
    again = probe(store)
    assert (again.rates, again.measured_on, again.unknown) == (first.rates, first.measured_on, first.unknown)
    assert len(measured) == len(first.rates)
    probe(store, refresh=True)
    assert len(measured) == 2 * len(first.rates)


@pytest.mark.parametrize("stored", [b"", b"{", b"[]", b'{"version": 1}', b"\xff\xfe"])
def test_a_broken_file_is_measured_again(tmp_path: Path, measured: list[int], stored: bytes) -> None:
    (tmp_path / "hardware.json").write_bytes(stored)
    probe(ModelStore(tmp_path))
    assert measured
    assert json.loads((tmp_path / "hardware.json").read_bytes())["version"] == 1


@pytest.mark.parametrize(("field", "value"), [("version", 0), ("fingerprint", "of another")])
def test_another_machines_or_versions_rates_do_not_count(
    tmp_path: Path, measured: list[int], field: str, value: object
) -> None:
    store = ModelStore(tmp_path)
    found = probe(store)
    file = tmp_path / "hardware.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    measured.clear()
    assert probe(store).fingerprint == found.fingerprint
    assert measured


@pytest.mark.usefixtures("measured")
def test_a_home_that_takes_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = probe(ModelStore(tmp_path / "file" / "home"))
    assert found.rates
    assert "Not a directory" in found.unknown["stored"]


@pytest.mark.usefixtures("measured")
def test_the_largest_model_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_LEAST_FILE_BYTES", 10)
    monkeypatch.setattr(rates, "disk_read_bytes", lambda file: float(file.stat().st_size))
    folder = tmp_path / "models" / "one"
    folder.mkdir(parents=True)
    for name, size in (("a.gguf", 20), ("b.safetensors", 30), ("c.json", 90)):
        (folder / name).write_bytes(bytes(size))
    found = probe(ModelStore(tmp_path))
    assert found.disk.read_bytes == 30
    assert "disk.read_bytes" not in found.unknown
