"""Plugin packages that must not be let in or used, each by every way to them; nothing of them runs in this process."""

from __future__ import annotations

import json
import re
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from stat import S_IFLNK

import pytest

from bad_inputs.files import Row, read_table
from bad_inputs.front_ends import Refusal, printed, typed
from inference_pio.errors import PluginError
from inference_pio.packages import manifests
from inference_pio.packages.store import Package, PackageStore
from inference_pio.plugin.registry import External
from inference_pio.security import landlock
from support.plugin_wheels import FILES, INFO, NAME, record_of, sha256, wheel

_TABLE = read_table("packages.toml")
WHEELS, CHANGED, MODULES = (
    {f"{row['id']} {row['name']}": row for row in _TABLE[kind]} for kind in ("wheel", "changed", "module")
)
_TESTS = Path(__file__).parents[1]
_PATIENCE = 1.0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFERENCE_PIO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def nothing_runs() -> Iterator[None]:
    yield
    assert not any(name.partition(".")[0].startswith("weather") for name in sys.modules)


@pytest.mark.parametrize("case", WHEELS)
def test_not_installed(case: str, home: Path, tmp_path: Path) -> None:
    row = WHEELS[case]
    if "installed" in row:  # the same wheel, as the package that is named
        folder = _installed(home, tmp_path).folder
        folder.rename(folder.with_name(row["installed"]))
    path = _made(row, tmp_path)
    digest = row.get("sha256", sha256(path))
    before = sorted(home.rglob("*"))
    with pytest.raises(PluginError) as caught:
        PackageStore(home).install(path, digest)
    said = str(caught.value)
    assert typed("plugin", "install", path, "--sha256", digest) == Refusal(PluginError.exit_code, said)
    assert said.startswith(f"{path.name} is not installed: ")
    assert re.search(row["words"], said)
    assert said.isprintable()
    assert [file for file in sorted(home.rglob("*")) if file.is_file()] == [f for f in before if f.is_file()]


def _made(row: Row, folder: Path) -> Path:
    named = row.get("named", NAME)
    if "bytes" in row:
        (folder / named).write_text(row["bytes"])
        return folder / named
    files: dict[str, str | None] = {_place(name): text for name, text in row.get("files", {}).items()}
    files |= dict.fromkeys(map(_place, row.get("without", [])))
    record = row.get("record")
    if "listed" in row:
        record = record_of({**FILES, **row["listed"]})
    path = wheel(folder, files, record=record, file=named)
    if record == "-":
        _without_list(path)
    if "link" in row:
        with zipfile.ZipFile(path, "a") as archive:
            link = zipfile.ZipInfo(row["link"])
            link.external_attr = (S_IFLNK | 0o777) << 16
            archive.writestr(link, "/etc/passwd")
    return path


def _without_list(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if not name.endswith("RECORD")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in kept.items():
            archive.writestr(name, data)


def _place(name: str) -> str:
    return f"{INFO}/{name[2:]}" if name.startswith("i/") else name


def test_a_package_cannot_ask_for_more_trust(home: Path, tmp_path: Path) -> None:
    """P-6: what a package says of its level is not read."""
    asks = FILES[f"{INFO}/METADATA"] + "Security-Level: maximum_trust\nKeywords: maximum_trust\n"
    path = wheel(tmp_path, {f"{INFO}/METADATA": asks})
    assert printed("plugin", "install", path, "--sha256", sha256(path)).endswith("at level low_trust\n")
    [package] = PackageStore(home).installed()
    assert "maximum" not in repr(package.receipt)


@pytest.mark.parametrize("case", CHANGED)
def test_found_to_be_changed(case: str, home: Path, tmp_path: Path) -> None:
    row, package = CHANGED[case], _installed(home, tmp_path)
    for name, text in row.get("write", {}).items():
        (package.folder / name).write_text(text)
    if "without" in row:
        (package.folder / row["without"]).unlink()
    if "link" in row:
        (package.folder / row["link"]).rename(tmp_path / "moved")
        (package.folder / row["link"]).symlink_to(tmp_path / "moved")
    with pytest.raises(PluginError, match=row["words"]) as caught:
        package.check()
    [listed] = json.loads(printed("plugin", "list", "--json"))
    assert listed["problem"] == str(caught.value)


@pytest.mark.parametrize("receipt", ["", "{", '{"name": "weather"}', "[" * 10_000])
def test_what_has_a_broken_receipt_is_listed_and_can_be_removed(
    receipt: str, home: Path, tmp_path: Path
) -> None:
    package = _installed(home, tmp_path)
    (package.folder / "installed.json").write_text(receipt)
    [listed] = json.loads(printed("plugin", "list", "--json"))
    assert (listed["name"], listed["version"], listed["plugins"]) == ("weather", "1.0", [])
    assert "installed.json: is no receipt of a plugin package" in listed["problem"]
    assert "`inference-pio plugin remove weather` takes the package away" in listed["problem"]
    assert printed("plugin", "remove", "weather") == "weather-1.0 is removed\n"
    assert json.loads(printed("plugin", "list", "--json")) == []


def _installed(home: Path, folder: Path) -> Package:
    path = wheel(folder)
    return PackageStore(home).install(path, sha256(path))


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
@pytest.mark.parametrize("case", MODULES)
def test_what_goes_wrong_in_a_package_is_told_and_goes_no_further(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = MODULES[case]
    monkeypatch.setattr(manifests, "_PATIENCE", _PATIENCE if "never" in row["name"] else 60.0)
    (tmp_path / "weather_plugin.py").write_text(row["code"])
    started = time.monotonic()
    with pytest.raises(PluginError) as caught:
        manifests.manifest_of(External("weather", "weather_plugin:MANIFEST", "weather", (str(tmp_path),)))
    said = str(caught.value)
    assert said.startswith("weather_plugin:MANIFEST of weather does not load: ")
    assert re.search(row["words"], said), said
    assert said.isprintable()
    assert len(said) < 500
    assert time.monotonic() - started < 30
    assert not Path("/tmp/weather").exists()


def test_what_is_said_of_other_tests_is_so() -> None:
    for row in _TABLE["elsewhere"]:
        file, _, name = row["test"].partition("::")
        assert f"def {name}(" in (_TESTS / file).read_text() if name else (_TESTS / file).exists(), row
    named = {row["id"] for rows in _TABLE.values() for row in rows} | {"P-6"}
    assert named == {f"P-{number}" for number in range(1, 13)}
