"""What a model's name leads to, and that hostile names lead nowhere."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference_pio.errors import ModelNotFound, UnavailableError
from inference_pio.loader import catalogue
from inference_pio.loader.download_hub import Hub
from inference_pio.loader.resolve import ModelSource, resolve
from inference_pio.loader.store import ModelStore
from support.hub_server import LocalHub, serve


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("INFERENCE_PIO_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


@pytest.fixture
def _untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No connection is opened and nothing is written while the test runs."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = sorted(tmp_path.rglob("*"))
    yield
    assert sorted(tmp_path.rglob("*")) == before


def put(entry: catalogue.Entry, store: ModelStore) -> Path:
    """Make the store hold a model of this entry: sparse, of the right size, with a receipt."""
    [file] = entry.files
    folder = store.folder(entry.name)
    folder.mkdir(parents=True)
    (folder / file.name).touch()
    os.truncate(folder / file.name, file.size)
    store.record(entry, {file.name: "the test"})
    return folder / file.name


def test_files_and_folders(tmp_path: Path) -> None:
    Path("a.gguf").write_bytes(b"GGUF")
    Path("blob").write_bytes(b"GGUF\3\0\0\0")
    Path("model").mkdir()
    Path("model/config.json").write_bytes(b"{}")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/b.safetensors").write_bytes(b"")
    assert resolve("a.gguf") == ModelSource("a", Path("a.gguf"), "file")
    assert resolve("./a.gguf").path.samefile("a.gguf")
    assert resolve("blob").origin == "file"
    assert resolve("model") == ModelSource("model", Path("model"), "directory")
    assert resolve("./model/").name == "model"
    assert resolve("model/..").name == "here"
    assert resolve("~/b.safetensors").path == tmp_path / "home/b.safetensors"


def test_a_catalogue_model(store: ModelStore) -> None:
    entry = catalogue.entries()[0]
    with pytest.raises(ModelNotFound, match=r"not downloaded \(98 MB\); `inference-pio models pull smollm2"):
        resolve("smollm2", store=store, download=False)
    assert not store.home.exists()
    path = put(entry, store)
    for name in ("smollm2-135m-instruct", "smollm2", "SmolLM2-135M-Instruct"):
        assert resolve(name, store=store) == ModelSource("smollm2-135m-instruct", path, "catalogue", entry)


def test_a_folder_that_merely_has_a_models_name_is_not_the_model(store: ModelStore) -> None:
    Path("smollm2").mkdir()
    path = put(catalogue.entries()[0], store)
    assert resolve("smollm2", store=store).path == path
    Path("smollm2/config.json").write_bytes(b"{}")
    assert resolve("smollm2", store=store).origin == "directory"


def test_terms_must_be_accepted(store: ModelStore) -> None:
    with pytest.raises(UnavailableError, match=r"Gemma Terms of Use.*--accept-licence"):
        resolve("gemma-3-270m", store=store)
    assert not store.home.exists()


def test_hub_ids(tmp_path: Path) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"weights", "Q4/m.gguf": b"GGUF"}
    with serve(LocalHub({"org/name": files})) as server:
        hub = Hub(server.endpoint, tmp_path / "cache")
        with pytest.raises(UnavailableError, match="nothing may be downloaded"):
            resolve("org/name", hub=hub, download=False)
        assert server.log == []
        found = resolve("org/name", hub=hub)
        assert (found.name, found.origin) == ("org/name", "hub")
        assert (found.path / "model.safetensors").read_bytes() == b"weights"
        assert resolve("org/name", hub=hub, download=False) == found
        file = resolve("org/name:Q4/m.gguf", hub=hub)
        assert (file.name, file.path.read_bytes()) == ("org/name:Q4/m.gguf", b"GGUF")


@pytest.mark.usefixtures("_untouched")
@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("", "name is empty"),
        ("  ", "name is empty"),
        ("smolm2-135m-instruct", "did you mean smollm2-135m-instruct?"),
        ("zzz", "the catalogue has smollm2-135m-instruct, qwen2.5"),
        ("missing.gguf", "no such file or folder: 'missing.gguf'"),
        ("./missing", "no such file or folder"),
        ("/missing/model", "no such file or folder"),
        ("~/missing", "no such file or folder"),
        ("~nobody-of-this-name/x", "cannot be read"),
        ("../../../../../../../../etc/passwd", "is not a model file"),
        ("../../etc/no-such-file", "no such file or folder"),
        ("org/../../etc", "no model"),
        ("https://example.org/model.gguf", "is a URL"),
        ("file:///etc/passwd", "is a URL"),
        ("a\0b", "control characters"),
        ("a\nb.gguf", "control characters"),
        ("x" * 10_240, "has 10240 characters"),
        ("x" * 1000 + ".gguf", "xxx.gguf'"),
        ("org/name:../../x.gguf", "no model"),
        ("org/name/more", "no model"),
        ("org/--name", "no model"),
        ("-org/name", "no model"),
        ("\udcff", "no model '\\udcff'"),
        ("\u202egnp.ledom", "no model '\\u202egnp.ledom'"),
        (os.devnull, "neither a regular file nor a folder"),
    ],
)
def test_a_name_that_means_nothing_is_one_line_and_touches_nothing(model: str, words: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        resolve(model)
    message = str(caught.value)
    assert words in message
    assert message.isprintable()
    assert len(message) < 1300


def test_a_path_whose_folder_is_here_does_not_go_to_the_hub() -> None:
    Path("org").mkdir()
    with pytest.raises(ModelNotFound, match=r"no such file or folder: 'org/name' \(the folder org is here"):
        resolve("org/name")
