"""The hub client against a real HTTP server: what is fetched, what is kept, and what each failure says."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inference_pio.errors import (
    DownloadError,
    InferencePIOError,
    ModelNotFound,
    UnavailableError,
    UnsafeWeightsError,
)
from inference_pio.loader import download_hub
from inference_pio.loader.download_hub import Hub, fetch_hub_gguf, fetch_hub_repo
from support.hub_server import LocalHub, serve

MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b'{"version": "1.0"}',
    "model-00001-of-00002.safetensors": bytes(range(256)) * 4000,
    "model-00002-of-00002.safetensors": b"second" * 1000,
    "model.safetensors.index.json": b"{}",
    "pytorch_model.bin": b"pickle",
    "modeling_evil.py": b"raise SystemExit",
    "onnx/model.safetensors": b"other form",
    "consolidated.safetensors": b"second copy",
}
FETCHED = {name for name in MODEL if not name.startswith(("pytorch", "modeling", "onnx", "consolidated"))}


@pytest.fixture
def server() -> Iterator[LocalHub]:
    hub = LocalHub(
        {
            "org/model": MODEL,
            "org/ggufs": {"a.Q4_0.gguf": b"GGUF" * 100_000, "a.Q8_0.gguf": b"GGUF", "README.md": b""},
            "org/pickles": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
            "org/nothing": {"README.md": b""},
            "org/gated": MODEL,
            "org/broken": MODEL,
        },
        gated={"org/gated"},
        status={"org/broken": 403},
    )
    with serve(hub):
        yield hub


@pytest.fixture
def hub(server: LocalHub, tmp_path: Path) -> Hub:
    return Hub(server.endpoint, tmp_path / "cache")


def one_line(error: InferencePIOError) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_a_repository_gives_config_tokenizer_and_safetensors_and_nothing_else(
    server: LocalHub, hub: Hub
) -> None:
    seen: list[tuple[int, int, str]] = []
    path = fetch_hub_repo("org/model", hub=hub, progress=lambda *report: seen.append(report))
    there = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert there == {name: MODEL[name] for name in FETCHED}
    weights = sum(len(MODEL[name]) for name in FETCHED if name.endswith(".safetensors"))
    assert seen[-1] == (weights, weights, "org/model")
    assert set(server.fetched()) == FETCHED


def test_the_second_time_nothing_is_fetched_and_without_a_network_the_cache_serves(
    server: LocalHub, hub: Hub
) -> None:
    path = fetch_hub_repo("org/model", hub=hub)
    server.log.clear()
    assert fetch_hub_repo("org/model", hub=hub) == path
    assert server.fetched() == []
    assert fetch_hub_repo("org/model", hub=Hub(server.endpoint, hub.cache, offline=True)) == path
    assert fetch_hub_repo("org/model", hub=Hub("http://127.0.0.1:9", hub.cache)) == path


def test_a_snapshot_that_lacks_a_shard_is_not_used_offline(server: LocalHub, hub: Hub) -> None:
    path = fetch_hub_repo("org/model", hub=hub)
    (path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UnavailableError, match="not completely in the hub's cache") as caught:
        fetch_hub_repo("org/model", hub=Hub(server.endpoint, hub.cache, offline=True))
    one_line(caught.value)
    server.log.clear()
    fetch_hub_repo("org/model", hub=hub)
    assert (path / "model-00002-of-00002.safetensors").exists()


def test_a_cache_that_another_tool_filled_serves_offline(server: LocalHub, hub: Hub) -> None:
    path = fetch_hub_repo("org/model", hub=hub)
    for listing in (path.parent.parent / "trees").iterdir():
        listing.unlink()
    assert fetch_hub_repo("org/model", hub=Hub(server.endpoint, hub.cache, offline=True)) == path


def test_a_dropped_connection_is_resumed_with_a_range(
    server: LocalHub, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    # huggingface_hub counts whole chunks only, of 10 MB: make them fit this small file.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 65536)
    name = "model-00001-of-00002.safetensors"
    server.drop_after[name] = 300_000
    path = fetch_hub_repo("org/model", hub=hub)
    assert (path / name).read_bytes() == MODEL[name]
    ranges = [asked for method, where, asked in server.log if method == "GET" and where.endswith(name)]
    assert ranges[0] == ""
    assert ranges[1].startswith("bytes=")
    assert 0 < int(ranges[1][6:-1]) <= 300_000


def test_one_gguf_file_of_a_repository(server: LocalHub, hub: Hub) -> None:
    path = fetch_hub_gguf("org/ggufs", "a.Q4_0.gguf", hub=hub)
    assert path.name == "a.Q4_0.gguf"
    assert path.read_bytes() == b"GGUF" * 100_000
    assert server.fetched() == ["a.Q4_0.gguf"]
    server.log.clear()
    assert fetch_hub_gguf("org/ggufs", "a.Q4_0.gguf", hub=hub) == path
    assert server.log == []


@pytest.mark.parametrize(
    ("repo", "error", "words"),
    [
        ("org/ggufs", ModelNotFound, "choose one, as in org/ggufs:a.Q4_0.gguf"),
        ("org/pickles", UnsafeWeightsError, "only pickle-based weights (pytorch_model.bin)"),
        ("org/nothing", ModelNotFound, "holds no model"),
        ("org/absent", ModelNotFound, "the hub has no org/absent"),
        ("org/gated", UnavailableError, "is gated: accept its terms"),
        ("org/broken", DownloadError, "the hub answered 403"),
    ],
)
def test_a_repository_that_cannot_be_used_says_why(
    hub: Hub, repo: str, error: type[InferencePIOError], words: str
) -> None:
    with pytest.raises(error) as caught:
        fetch_hub_repo(repo, hub=hub)
    assert words in one_line(caught.value)


def test_a_missing_file_of_a_repository_and_offline_without_cache(hub: Hub) -> None:
    with pytest.raises(ModelNotFound, match=r"has no file b\.gguf"):
        fetch_hub_gguf("org/ggufs", "b.gguf", hub=hub)
    offline = Hub(hub.endpoint, hub.cache, offline=True)
    with pytest.raises(UnavailableError, match="not completely in the hub's cache"):
        fetch_hub_gguf("org/ggufs", "a.Q4_0.gguf", hub=offline)
    with pytest.raises(UnavailableError, match="not completely in the hub's cache"):
        fetch_hub_repo("org/model", hub=offline)


def test_no_network_is_one_line_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nowhere = Hub("http://127.0.0.1:9", tmp_path)
    for call in (
        lambda: fetch_hub_repo("org/model", hub=nowhere),
        lambda: fetch_hub_gguf("org/model", "a.gguf", hub=nowhere),
    ):
        started = time.monotonic()
        with pytest.raises(DownloadError, match="no network to the hub") as caught:
            call()
        assert "HF_ENDPOINT" in one_line(caught.value)
        assert time.monotonic() - started < 5
    assert capfd.readouterr() == ("", "")


def test_a_catalogue_source_without_a_network_fails_at_once(pull, server: LocalHub) -> None:
    server.endpoint = "http://127.0.0.1:9"
    started = time.monotonic()
    done = pull(b"GGUF")
    assert time.monotonic() - started < 10
    assert done.stderr.startswith("DownloadError: m could not be downloaded. hub org/ggufs: no network")
    assert done.stderr.count("\n") == 1


def test_a_repository_larger_than_the_disk_is_refused_before_its_weights(
    server: LocalHub, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_hub, "free_bytes", lambda _: 1_000_000)
    with pytest.raises(UnavailableError, match=r"1\.0 MB needed, 1\.0 MB free"):
        fetch_hub_repo("org/model", hub=hub)
    assert not any(name.endswith(".safetensors") for name in server.fetched())


PULL = """
import sys, json
from pathlib import Path
from inference_pio.errors import InferencePIOError
from inference_pio.loader.catalogue import parse
from inference_pio.loader.pull import pull
from inference_pio.loader.store import ModelStore
[entry] = parse(sys.argv[1].encode())
if sys.argv[3:]:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    print(pull(entry, ModelStore(Path(sys.argv[2]))))
except InferencePIOError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def pull(server: LocalHub, tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Pull a catalogue entry with one hub source in a process whose HF_ENDPOINT is the local server."""

    def run(data: bytes, *, limit: int | None = None, file: str = "a.Q4_0.gguf", repo: str = "org/ggufs"):
        wanted = {"name": "m.gguf", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        source = {"kind": "hub", "repo": repo, "file": file}
        entry = {"name": "m", "architecture": "llama", "description": "", "parameters": 1}
        entry |= {"context_length": 1, "licence": "MIT", "files": [wanted | {"sources": [source]}]}

        limits = [] if limit is None else [str(limit)]
        return subprocess.run(
            [sys.executable, "-c", PULL, json.dumps([entry]), str(tmp_path / "home"), *limits],
            env={**os.environ, "HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path / "hf")},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_catalogue_model_comes_from_the_hub_into_the_store(pull, tmp_path: Path) -> None:
    done = pull(b"GGUF" * 100_000)
    path = tmp_path / "home/models/m/m.gguf"
    assert (done.returncode, done.stdout.strip()) == (0, str(path)), done.stderr
    assert path.read_bytes() == b"GGUF" * 100_000
    assert sorted(file.name for file in path.parent.iterdir()) == ["m.gguf", "receipt.json"]


def test_a_hub_file_with_another_checksum_never_gets_the_models_name(pull, tmp_path: Path) -> None:
    done = pull(b"XXXX" * 100_000)
    assert done.returncode == 1
    assert "DownloadError: m could not be downloaded. hub org/ggufs: m.gguf has sha256" in done.stderr
    assert list((tmp_path / "home/models/m").iterdir()) == []


def test_a_file_that_the_hub_lacks_or_guards_is_a_failed_source(pull) -> None:
    done = pull(b"GGUF", repo="org/gated")
    assert (
        "DownloadError: m could not be downloaded. hub org/gated: org/gated:a.Q4_0.gguf is gated"
        in done.stderr
    )
    done = pull(b"GGUF", file="absent.gguf")
    assert (
        "DownloadError: m could not be downloaded. hub org/ggufs: the hub repository org/ggufs has no file"
        in done.stderr
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_write_that_fails_for_size_is_a_full_disk(pull, tmp_path: Path) -> None:
    done = pull(b"GGUF" * 100_000, limit=200_000)
    assert done.stderr.startswith("UnavailableError: the disk is full"), done.stderr
    assert done.stderr.count("\n") == 1
    assert list((tmp_path / "home/models/m").iterdir()) == []
