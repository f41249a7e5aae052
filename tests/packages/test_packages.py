"""Plugin packages: what is let in, what is not; nothing of one runs when it is installed, listed or removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_pio.errors import PluginError
from inference_pio.packages.store import PackageStore
from support.plugin_wheels import sha256, wheel


def test_a_plugin_is_installed_listed_and_removed(tmp_path: Path) -> None:
    store = PackageStore(tmp_path / "home")
    path = wheel(tmp_path)
    package = store.install(path, sha256(path))
    assert [one.receipt.name for one in store.installed()] == ["weather"]
    assert store.plugins() == {"weather": package}
    package.check()
    assert store.remove("weather").receipt.version == "1.0"
    assert store.installed() == ()
    assert list((tmp_path / "home/plugins").iterdir()) == []
    with pytest.raises(PluginError, match="no package 'weather' is installed; there are: none"):
        store.remove("weather")
