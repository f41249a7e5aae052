"""How fast downloads are that share a bucket, by the clock and against real servers."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from inference_pio.loader.download_hub import Hub, fetch_hub_gguf, fetch_hub_repo
from inference_pio.loader.pull import pull
from inference_pio.loader.rate import Bucket
from inference_pio.loader.store import ModelStore
from support.hub_server import LocalHub, serve
from support.packages import entry, wheel

DATA = random.Random(3).randbytes(2_000_000)
OTHER = DATA[::-1]  # the hub's client keeps what is equal once
HALVES = DATA[:1_000_000], DATA[1_000_000:]


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def comes_at(
    mbps: float, count: int, fetch: Callable[[Path], object], folder: Path, within: float = 0.05
) -> None:
    """Never faster; and as fast, where nothing else keeps the machine busy (one of three times)."""
    wanted = 8 * count / (mbps * 1e6)
    took = []
    while not took or (min(took) > (1 + within) * wanted and len(took) < 3):
        took.append(seconds(lambda: fetch(folder / str(len(took)))))
        assert took[-1] > (1 - within) * wanted
    assert min(took) == pytest.approx(wanted, rel=within)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalHub]:
    files = {"a.gguf": DATA, "b.gguf": OTHER, "small.gguf": b"GGUF"}
    whole = {"config.json": b"{}", "tokenizer.json": HALVES[0], "model.safetensors": HALVES[1]}
    with serve(LocalHub({"org/ggufs": files, "org/model": whole})) as hub:
        # What is imported when it is first needed takes its time.
        fetch_hub_gguf("org/ggufs", "small.gguf", hub=Hub(hub.endpoint, tmp_path / "warm", bucket=Bucket(1)))
        yield hub


@pytest.mark.parametrize("mbps", [8, 16])
def test_a_file_comes_at_its_rate(server: LocalHub, tmp_path: Path, mbps: float) -> None:
    def fetch(folder: Path) -> None:
        hub = Hub(server.endpoint, folder, bucket=Bucket(mbps))
        assert fetch_hub_gguf("org/ggufs", "a.gguf", hub=hub).read_bytes() == DATA

    comes_at(mbps, len(DATA), fetch, tmp_path)


def test_two_at_once_share_the_rate_and_a_third_does_not(server: LocalHub, tmp_path: Path) -> None:
    def fetch(folder: Path) -> None:
        hub = Hub(server.endpoint, folder, bucket=Bucket(16))
        with ThreadPoolExecutor(3) as pool:
            slow = [pool.submit(fetch_hub_gguf, "org/ggufs", file, hub=hub) for file in ("a.gguf", "b.gguf")]
            fetch_hub_gguf("org/ggufs", "a.gguf", hub=Hub(server.endpoint, folder / "free"))
            assert not any(each.done() for each in slow)
            for each in slow:
                each.result()

    comes_at(16, 2 * len(DATA), fetch, tmp_path)


def test_all_of_a_repository_comes_through_it(server: LocalHub, tmp_path: Path) -> None:
    """What the hub's client fetches in threads of its own too; its server hears nothing of the bucket."""

    def fetch(folder: Path) -> None:
        fetch_hub_repo("org/model", hub=Hub(server.endpoint, folder, bucket=Bucket(16)))

    comes_at(16, len(DATA), fetch, tmp_path, within=0.1)  # it asks several times
    assert not [name for name in server.headers if "bucket" in name.lower()]


def test_the_hub_offers_another_way_in_vain(server: LocalHub, tmp_path: Path) -> None:
    """Transfers that huggingface_hub would leave to a library of its own."""
    server.more = {"X-Xet-Hash": "0" * 64, "X-Xet-Refresh-Route": f"{server.endpoint}/refresh"}
    hub = Hub(server.endpoint, tmp_path, bucket=Bucket(100))
    assert fetch_hub_gguf("org/ggufs", "a.gguf", hub=hub).read_bytes() == DATA
    assert not [path for _, path, _ in server.log if "refresh" in path]


@pytest.mark.slow
def test_a_package_client_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pip, from a server on this machine that gives all at once."""
    shelf = tmp_path / "shelf"
    wheel(shelf, "tiny-all", {"part.bin": DATA})
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(shelf))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{http.server_port}/")
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        model = entry(DATA, "tiny-all")
        free = seconds(lambda: pull(model, ModelStore(tmp_path / "free")))
        took = seconds(lambda: pull(model, ModelStore(tmp_path / "slow"), bucket=Bucket(4)))
        http.shutdown()
    assert 8 * len(DATA) / 4e6 <= took < 8 * len(DATA) / 4e6 + 2 * free + 0.5
