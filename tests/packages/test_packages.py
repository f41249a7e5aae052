"""Plugin packages: what is let in, what is not; nothing of one runs when it is installed, listed or removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inference_pio.errors import PluginError
from inference_pio.packages import wheel as wheel_module
from inference_pio.packages.store import PackageStore
from inference_pio.packages.wheel import read_wheel
from support.plugin_wheels import sha256, wheel


def test_a_plugin_is_installed_listed_and_removed(tmp_path: Path) -> None:
    store = PackageStore(tmp_path / "home")
    path = wheel(tmp_path)
    package = store.install(path, sha256(path))
    assert [one.receipt.name for one in store.installed()] == ["weather"]
    assert store.plugins() == {"weather": package}
    package.check()
    with pytest.raises(
        PluginError, match="not installed: weather-1.0 is there, which .*remove weather` takes away$"
    ):
        store.install(path, sha256(path))
    assert store.remove("weather") == "weather-1.0"
    assert store.installed() == ()
    assert list((tmp_path / "home/plugins").iterdir()) == []
    with pytest.raises(PluginError, match="no package 'weather' is installed; there are: none"):
        store.remove("weather")


@pytest.mark.parametrize("most", ["_MOST_FILES", "_MOST_BYTES"])
def test_what_is_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str) -> None:
    monkeypatch.setattr(wheel_module, most, 5)
    with pytest.raises(PluginError, match="are more than"):
        read_wheel(wheel(tmp_path))


def test_a_wheel_that_changes_while_it_is_installed(tmp_path: Path) -> None:
    read = read_wheel(wheel(tmp_path))
    wheel(tmp_path, {"weather_plugin/model.py": "x = 2\n"})
    (tmp_path / "out").mkdir()
    with pytest.raises(PluginError, match="is not what its list says"):
        read.unpack(tmp_path / "out")


def test_what_was_cut_off_is_no_package(tmp_path: Path) -> None:
    """Neither a draft with everything in it, nor a folder whose receipt has gone; both make way."""
    store, path = PackageStore(tmp_path / "home"), wheel(tmp_path)
    package = store.install(path, sha256(path))
    draft = package.folder.with_name(".draft")
    package.folder.rename(draft)
    assert store.installed() == ()
    package.folder.mkdir()
    (package.folder / "left.py").write_text("")
    store.install(path, sha256(path)).check()
    assert draft.exists()  # whoever makes it may still be at work
    os.utime(draft, (1, 1))
    store.remove("weather")
    store.install(path, sha256(path))
    assert not draft.exists()
