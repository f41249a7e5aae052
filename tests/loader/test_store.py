"""What counts as downloaded, what the cache takes, and what is refused before a byte is fetched."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from inference_pio.errors import ModelNotFound, ResourceError, UnavailableError
from inference_pio.loader import store as store_module
from inference_pio.loader.pull import pull
from inference_pio.loader.store import ModelStore, default_home
from support.packages import entry

DATA = b"x" * 1_500_000
MODEL = entry(DATA, "tiny-all")


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "home")


@pytest.fixture
def filled(store: ModelStore) -> ModelStore:
    folder = store.folder("tiny")
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(DATA)
    store.record(MODEL, {"tiny.gguf": "somewhere"})
    return store


def test_a_model_with_its_receipt_is_there(filled: ModelStore) -> None:
    assert filled.path_of(MODEL) == filled.home / "models/tiny/tiny.gguf"
    [receipt] = filled.installed()
    assert (receipt.name, receipt.licence, receipt.size_bytes) == ("tiny", "MIT", len(DATA))
    assert receipt.files[0].source == "somewhere"
    assert receipt.date.endswith("+00:00")
    assert filled.disk_usage_bytes() == len(DATA) + (filled.folder("tiny") / "receipt.json").stat().st_size


@pytest.mark.parametrize("damage", ["no receipt", "half a receipt", "short file", "no file", "other name"])
def test_without_a_valid_receipt_it_is_not(filled: ModelStore, damage: str) -> None:
    folder = filled.folder("tiny")
    receipt = folder / "receipt.json"
    match damage:
        case "no receipt":
            receipt.unlink()
        case "half a receipt":
            receipt.write_bytes(receipt.read_bytes()[:50])
        case "short file":
            os.truncate(folder / "tiny.gguf", 10)
        case "no file":
            (folder / "tiny.gguf").unlink()
        case "other name":
            receipt.write_bytes(receipt.read_bytes().replace(b'"tiny"', b'"other"'))
    assert filled.path_of(MODEL) is None
    assert filled.installed() == ()


def test_a_model_whose_catalogue_entry_has_changed_is_not_there(filled: ModelStore) -> None:
    assert filled.path_of(entry(DATA, "tiny-all", sha256="1" * 64)) is None


def test_removing_a_model_frees_its_bytes(filled: ModelStore) -> None:
    used = filled.disk_usage_bytes()
    assert filled.remove("tiny") == used
    assert filled.disk_usage_bytes() == 0
    assert filled.installed() == ()
    with pytest.raises(ModelNotFound, match=r"'tiny' is not in .*downloaded: none"):
        filled.remove("tiny")


def test_experts_on_the_disk_count_and_go_with_their_model(filled: ModelStore, tmp_path: Path) -> None:
    path = filled.path_of(MODEL)
    assert path is not None
    own, other = filled.stacks_of(path), filled.stacks_of(tmp_path / "tiny.gguf")
    assert own.name != other.name
    before = filled.disk_usage_bytes()
    own.parent.mkdir()
    own.write_bytes(b"x" * 1000)
    other.write_bytes(b"x" * 10)
    assert filled.disk_usage_bytes() == before + 1010
    assert filled.remove("tiny") == before + 1000
    assert not own.exists()
    assert other.exists()


def test_an_unfinished_download_counts_and_can_be_removed(store: ModelStore) -> None:
    folder = store.folder("tiny")
    folder.mkdir(parents=True)
    (folder / "tiny.gguf.part").write_bytes(b"x" * 1000)
    assert store.disk_usage_bytes() == 1000
    assert store.installed() == ()
    assert store.remove("tiny") == 1000


@pytest.mark.parametrize("name", ["..", "../up", "", "a/b", ".hidden", "UP", "a" * 81, "nul\0"])
def test_no_name_leads_out_of_the_store(store: ModelStore, name: str) -> None:
    with pytest.raises(ModelNotFound, match="is not a model name"):
        store.remove(name)


def test_the_limit_is_checked_before_anything_is_fetched(filled: ModelStore) -> None:
    used = filled.disk_usage_bytes()
    limited = ModelStore(filled.home, limit_bytes=used + 2_999_999 + 1_500_000)
    with pytest.raises(ResourceError) as caught:
        pull(entry(DATA, "more", name="second"), limited)
    # The file, and room for the archive and the client's copy of it.
    assert str(caught.value) == (
        "second does not fit the disk limit: 1.5 MB used + 4.5 MB needed > 6.0 MB allowed; "
        "remove a model (tiny) or raise disk_space_gb"
    )
    assert list(limited.folder("second").iterdir()) == []
    limited.limit_bytes = used + 4_500_000
    limited.require_room("second", 4_500_000)


def test_the_free_disk_is_checked_before_anything_is_fetched(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "free_bytes", lambda _: 1_000_000)
    with pytest.raises(UnavailableError, match=r"4\.5 MB needed, 1\.0 MB free at .*INFERENCE_PIO_HOME"):
        pull(MODEL, store)


def test_free_bytes_of_a_folder_to_be_made(tmp_path: Path) -> None:
    assert store_module.free_bytes(tmp_path / "a" / "b") > 0


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UnavailableError, match=r"cannot write to .*Permission denied"):
        pull(MODEL, ModelStore(tmp_path / "home"))


def test_a_home_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "home").write_bytes(b"")
    with pytest.raises(UnavailableError, match=r"cannot write to .*INFERENCE_PIO_HOME"):
        pull(MODEL, ModelStore(tmp_path / "home"))


def test_terms_are_accepted_before_anything_is_fetched(store: ModelStore) -> None:
    gated = entry(DATA, "tiny-all", licence_terms="Terms apply.")
    with pytest.raises(UnavailableError, match=r"own licence: Terms apply\. Accept it with --accept-licence"):
        pull(gated, store)
    assert not store.home.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="XDG and HOME")
def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("INFERENCE_PIO_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_home() == tmp_path / ".cache/inference-pio"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_home() == tmp_path / ".cache/inference-pio"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_home() == Path("/xdg/inference-pio")
    monkeypatch.setenv("INFERENCE_PIO_HOME", "~/models")
    assert default_home() == tmp_path / "models"
    monkeypatch.setenv("INFERENCE_PIO_HOME", "")
    assert default_home() == Path("/xdg/inference-pio")


def test_no_home_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("INFERENCE_PIO_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(UnavailableError, match="set INFERENCE_PIO_HOME"):
        default_home()
