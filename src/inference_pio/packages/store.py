"""Where plugin packages lie, which are there, and whether they are still what was installed."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import msgspec

from inference_pio.errors import PluginError
from inference_pio.packages.wheel import Wheel, read_wheel
from inference_pio.plugin.registry import BUILT_IN

_RECEIPT = "installed.json"
_ABANDONED_SECONDS = 3600.0


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Written last: without one nothing is installed. `sha256` is the wheel's, `files` have theirs."""

    name: str
    version: str
    sha256: str
    plugins: dict[str, str]
    files: dict[str, str]


@dataclass(frozen=True)
class Package:
    """One that is installed; its files are imported from `folder`."""

    folder: Path
    receipt: Receipt

    @classmethod
    def at(cls, folder: Path) -> Package:
        """
        Raises:
            PluginError: there is no receipt that can be read.
        """
        return cls(folder, _receipt(folder / _RECEIPT))

    def check(self) -> None:
        """
        Raises:
            PluginError: a file was changed, removed or added since.
        """
        there = {
            str(file.relative_to(self.folder)): file
            for file in self.folder.rglob("*")
            if not file.is_dir() and "__pycache__" not in file.parts and file.name != _RECEIPT
        }
        name = self.receipt.name
        for file, digest in self.receipt.files.items():
            found = there.pop(file, None)
            if found is None or found.is_symlink() or _sha256(found) != digest:
                raise PluginError(f"{name}: {file} is not what was installed; remove it and install it again")
        if there:
            raise PluginError(
                f"{name}: {min(there)} was not installed with it; remove it and install it again"
            )


class PackageStore:
    """`<home>/plugins/<name>-<version>/`, a folder and a receipt for each."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "plugins"

    def installed(self) -> tuple[Package, ...]:
        """By name. Nothing of them is imported.

        Raises:
            PluginError: a receipt cannot be read.
        """
        return tuple(Package.at(folder) for folder in self.folders())

    def folders(self) -> tuple[Path, ...]:
        """Of what is installed, sorted."""
        there = sorted(self._folder.glob("[!.]*")) if self._folder.is_dir() else []
        return tuple(folder for folder in there if (folder / _RECEIPT).exists())

    def plugins(self) -> Mapping[str, Package]:
        """Plugin name -> what brings it."""
        return {name: package for package in self.installed() for name in package.receipt.plugins}

    def install(self, wheel: Path, sha256: str) -> Package:
        """
        Args:
            sha256: what the wheel has to have.

        Raises:
            PluginError: it has another, is not let in (`wheel.py`), or brings a plugin whose name is taken.
        """
        found = _sha256(wheel)
        if found != sha256.removeprefix("sha256:").lower():
            raise PluginError(
                f"{wheel.name} is not installed: its sha256 is {found}, and {sha256} was asked for"
            )
        read = read_wheel(wheel)
        if (there := self._named().get(read.name)) is not None:
            raise PluginError(
                f"{wheel.name} is not installed: {there.name} is there, which "
                f"`inference-pio plugin remove {read.name}` takes away"
            )
        self._check_names(read)
        _check_requirements(read)
        folder = self._folder / f"{read.name}-{read.version}"
        self._clear_away(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=self._folder, prefix="."))
        try:
            read.unpack(draft)
            receipt = Receipt(read.name, read.version, found, dict(read.plugins), dict(read.files))
            (draft / _RECEIPT).write_bytes(msgspec.json.encode(receipt))
            draft.replace(folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        return Package(folder, receipt)

    def remove(self, name: str) -> str:
        """Take it away, whatever its files are by now; its name and version.

        Raises:
            PluginError: none of that name is installed.
        """
        there = self._named()
        if (folder := there.get(name)) is None:
            raise PluginError(
                f"no package {name!r:.80} is installed; there are: {', '.join(there) or 'none'}"
            )
        (folder / _RECEIPT).unlink()  # from here on it is none
        shutil.rmtree(folder)
        return folder.name

    def _named(self) -> Mapping[str, Path]:
        return {_name_of(folder): folder for folder in self.folders()}

    def _clear_away(self, folder: Path) -> None:
        """What was left where removing this one was cut off, and of installing others long ago."""
        if folder.exists():
            shutil.rmtree(folder)
        for draft in self._folder.glob(".*"):
            if draft.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                shutil.rmtree(draft, ignore_errors=True)

    def _check_names(self, wheel: Wheel) -> None:
        taken = dict.fromkeys(BUILT_IN, "comes with this project")
        taken |= {name: f"is {package.receipt.name}'s" for name, package in self.plugins().items()}
        for plugin in wheel.plugins:
            if plugin in taken:
                raise PluginError(
                    f"{wheel.path.name} is not installed: the plugin name {plugin} {taken[plugin]}"
                )


def _name_of(folder: Path) -> str:
    """The package whose folder it is; a version has no hyphen."""
    return folder.name.rpartition("-")[0]


def _check_requirements(wheel: Wheel) -> None:
    missing = []
    for name in wheel.requires:
        try:
            distribution(name)
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        raise PluginError(
            f"{wheel.path.name} is not installed: it needs {', '.join(missing)}, which is not here: install that first"
        )


def _receipt(file: Path) -> Receipt:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Receipt)
    except (OSError, msgspec.MsgspecError) as error:
        way_out = f"`inference-pio plugin remove {_name_of(file.parent)}` takes the package away"
        raise PluginError(f"{file}: is no receipt of a plugin package: {error}; {way_out}") from error


def _sha256(file: Path) -> str:
    try:
        with open(os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise PluginError(f"{file} cannot be read: {error.strerror}") from error
