"""Plugin packages: what is let in, what is not; nothing of one runs when it is installed, listed or removed."""

from __future__ import annotations

import hashlib
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from inference_pio.errors import PluginError
from inference_pio.packages.store import PackageStore
from inference_pio.packages.wheel import read_wheel
from support.wheels import FILES, INFO, record_of, wheel


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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


REFUSED: dict[str, tuple[dict[str, str | None], str]] = {
    "a .pth file": ({"weather_plugin/x.pth": "import os"}, "would run whenever Python starts"),
    "a .pth file at the top": ({"x.pth": "import os"}, "would run whenever Python starts"),
    "sitecustomize": ({"sitecustomize.py": ""}, "would run whenever Python starts"),
    "usercustomize as a package": ({"usercustomize/__init__.py": ""}, "would run whenever Python starts"),
    "a module outside of a package": ({"loose.py": ""}, "lies outside of a package"),
    "data for elsewhere": ({"weather-1.0.data/scripts/run": ""}, "would go outside of its package"),
    "a path upwards": ({"weather_plugin/../../x.py": ""}, "is no name for a file"),
    "an absolute path": ({"/etc/x.py": ""}, "is no name for a file"),
    "a path of another system": ({"weather_plugin\\x.py": ""}, "is no name for a file"),
    "programs": (
        {f"{INFO}/entry_points.txt": FILES[f"{INFO}/entry_points.txt"] + "[console_scripts]\nx = a:b\n"},
        "it brings programs",
    ),
    "no plugin": ({f"{INFO}/entry_points.txt": None}, "it brings no plugin"),
    "a plugin's name": (
        {f"{INFO}/entry_points.txt": "[inference_pio.models]\nWeather = weather_plugin:MANIFEST\n"},
        "use 1 to 64 of a-z",
    ),
    "a look-alike": (
        {f"{INFO}/entry_points.txt": "[inference_pio.models]\nllаma = weather_plugin:MANIFEST\n"},
        "use 1 to 64 of a-z",
    ),
    "a target": (
        {f"{INFO}/entry_points.txt": "[inference_pio.models]\nweather = os.system\n"},
        "is not of the form",
    ),
    "entry points twice": (
        {f"{INFO}/entry_points.txt": "[inference_pio.models]\nweather = a:b\nweather = c:d\n"},
        "cannot be read",
    ),
    "the name of another package": ({"torch/__init__.py": ""}, "has the name of another"),
    "the name of a part of Python": ({"json/__init__.py": ""}, "has the name of another"),
    "a requirement that is not here": (
        {f"{INFO}/METADATA": "Name: weather\nVersion: 1.0\nRequires-Dist: no-such-thing>=1\n"},
        "it needs no-such-thing",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_let_in(tmp_path: Path, case: str) -> None:
    more, words = REFUSED[case]
    path = wheel(tmp_path, more)
    with pytest.raises(PluginError, match=words):
        PackageStore(tmp_path / "home").install(path, sha256(path))
    assert not any((tmp_path / "home").rglob("*.py"))


def test_a_link_is_not_let_in(tmp_path: Path) -> None:
    path = wheel(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("weather_plugin/link.py")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(PluginError, match="is a link or a device"):
        read_wheel(path)


@pytest.mark.parametrize(
    "record",
    [
        "",
        record_of(FILES).replace("model.py", "other.py"),
        record_of({**FILES, "weather_plugin/model.py": "x = 2\n"}),
    ],
)
def test_a_list_that_does_not_fit(tmp_path: Path, record: str) -> None:
    with pytest.raises(PluginError, match="its list|it lists"):
        read_wheel(wheel(tmp_path, record=record))


@pytest.mark.parametrize("name", ["weather-1.0.tar.gz", "weather.whl", "weather-1.0.zip"])
def test_only_wheels(tmp_path: Path, name: str) -> None:
    with pytest.raises(PluginError, match="only wheels are installed"):
        read_wheel(wheel(tmp_path, file=name))


def test_what_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "weather-1.0-py3-none-any.whl"
    path.write_bytes(b"PK\3\4 and nothing more")
    with pytest.raises(PluginError, match="cannot be read"):
        read_wheel(path)


def test_another_sha256(tmp_path: Path) -> None:
    path = wheel(tmp_path)
    with pytest.raises(PluginError, match="its sha256 is"):
        PackageStore(tmp_path / "home").install(path, "0" * 64)


def test_names_are_taken_once(tmp_path: Path) -> None:
    store = PackageStore(tmp_path / "home")
    built_in = wheel(
        tmp_path, {f"{INFO}/entry_points.txt": "[inference_pio.models]\nqwen3 = weather_plugin:MANIFEST\n"}
    )
    with pytest.raises(PluginError, match="qwen3 comes with this project"):
        store.install(built_in, sha256(built_in))
    first = wheel(tmp_path)
    store.install(first, sha256(first))
    with pytest.raises(PluginError, match="the plugin name weather is weather's"):
        store.install(first, sha256(first))


@pytest.mark.parametrize("change", ["edit", "remove", "add", "link"])
def test_what_was_changed_since_is_found(tmp_path: Path, change: str) -> None:
    store = PackageStore(tmp_path / "home")
    path = wheel(tmp_path)
    package = store.install(path, sha256(path))
    module = package.folder / "weather_plugin/model.py"
    actions: dict[str, Any] = {
        "edit": lambda: module.write_text("x = 2\n"),
        "remove": module.unlink,
        "add": lambda: (package.folder / "weather_plugin/more.py").write_text(""),
        "link": lambda: (module.rename(tmp_path / "moved"), module.symlink_to(tmp_path / "moved")),
    }
    actions[change]()
    with pytest.raises(PluginError, match="install it again"):
        package.check()
