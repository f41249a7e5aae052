"""A wheel, read strictly: whatever could run before a sandbox is around it keeps it out.

Format: PEP 427 and the binary distribution format of packaging.python.org.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import re
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

from inference_pio.errors import PluginError
from inference_pio.plugin.registry import ENTRY_POINT_GROUP

_MOST_FILES, _MOST_BYTES = 10_000, 200 << 20
_MOST_TEXT = 4 << 20  # of what it says of itself: a list of 10,000 files is half as long
_FILE_NAME = re.compile(
    r"(?P<name>[A-Za-z0-9_.]+)-(?P<version>[A-Za-z0-9_.!+]+)(-\w+)?-[\w.]+-[\w.]+-[\w.]+\.whl"
)
_PLUGIN = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
# Python runs these by themselves when it starts, wherever it finds them.
_RUN_AT_START = re.compile(r"(.*/)?((site|user)customize([./].*)?|[^/]*\.pth)")
_SCRIPTS = ("console_scripts", "gui_scripts")


@dataclass(frozen=True)
class Wheel:
    """What it says of itself.

    plugins   name -> "package.module:MANIFEST"
    packages  top-level packages that it brings
    requires  names of distributions that it needs beside it
    files     name -> sha256, in hexadecimal, of all but its own list of them
    """

    path: Path
    name: str
    version: str
    plugins: Mapping[str, str]
    packages: tuple[str, ...]
    requires: tuple[str, ...]
    files: Mapping[str, str]

    def unpack(self, folder: Path) -> None:
        """Its files, each checked again, into a folder that is empty.

        Raises:
            PluginError: it has changed, or cannot be written.
        """
        with _opened(self.path) as archive:
            for name, digest in self.files.items():
                data = archive.read(name)
                if hashlib.sha256(data).hexdigest() != digest:
                    raise _refused(self.path, f"{name} is not what its list says")
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)


def read_wheel(path: Path) -> Wheel:
    """
    Raises:
        PluginError: it is no wheel, is broken, brings no plugin, or brings what is not let in.
    """
    named = _FILE_NAME.fullmatch(path.name)
    if named is None:
        raise _refused(
            path, "the name is no wheel's: only wheels are installed, because nothing of them runs"
        )
    with _opened(path) as archive:
        entries = _entries(path, archive)
        information = _information(path, entries, named["name"])
        _only_packages(path, entries, information)
        files = _listed(path, archive, entries, information)
        plugins = _plugins(path, archive, entries, information)
        headers = HeaderParser().parsestr(_text(path, archive, f"{information}/METADATA"))
    packages = tuple(sorted({name.partition("/")[0] for name in entries} - {information}))
    _shadows_nothing(path, packages)
    requires = tuple(
        _distribution(line) for line in headers.get_all("Requires-Dist", []) if "extra ==" not in line
    )
    return Wheel(path, named["name"], named["version"], plugins, packages, requires, files)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    # All that Python's reader raises about bytes that are no archive, and what a disk says.
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        OSError,
        ValueError,
        RuntimeError,
    ) as error:
        raise _refused(path, f"it cannot be read: {error}") from error


def _entries(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = entry.filename
        pure = PurePosixPath(name)
        if (
            pure.is_absolute()
            or ".." in pure.parts
            or str(pure) != name.removesuffix("/")
            or "\\" in name
            or not name.isprintable()
            or name in found
        ):
            raise _refused(path, f"{name!r:.80} is no name for a file of a package")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(path, f"{name!r:.80} is a link or a device")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(path, f"{name!r:.80} is packed in a way that wheels are not")
        if _RUN_AT_START.fullmatch(name):
            raise _refused(path, f"{name!r:.80} would run whenever Python starts")
        if not entry.is_dir():
            found[name] = entry
    total = sum(entry.file_size for entry in found.values())
    if len(found) > _MOST_FILES or total > _MOST_BYTES:
        raise _refused(
            path,
            f"{len(found):,} files with {total:,} bytes are more than {_MOST_FILES:,} and {_MOST_BYTES:,}",
        )
    return found


def _information(path: Path, entries: Iterable[str], name: str) -> str:
    folders = {entry.partition("/")[0] for entry in entries if entry.partition("/")[0].endswith(".dist-info")}
    if len(folders) != 1:
        raise _refused(path, f"it has {len(folders)} folders of information about itself")
    folder = folders.pop()
    if not folder.lower().startswith(name.lower()):
        raise _refused(path, f"it calls itself {folder!r:.80}")
    return folder


def _only_packages(path: Path, entries: Iterable[str], information: str) -> None:
    for entry in entries:
        top, slash, _ = entry.partition("/")
        if top.endswith(".data"):
            raise _refused(path, f"{entry!r:.80} would go outside of its package")
        if top != information and (not slash or not top.isidentifier()):
            raise _refused(path, f"{entry!r:.80} lies outside of a package")


def _listed(
    path: Path, archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], information: str
) -> dict[str, str]:
    """Every file with its sha256, as RECORD has it and as it is."""
    record = f"{information}/RECORD"
    stated: dict[str, str] = {}
    for line in _text(path, archive, record).splitlines():
        name, _, rest = line.rpartition(",")[0].rpartition(",")
        if name and name != record:
            stated[name.strip('"')] = rest
    signatures = {record, f"{information}/RECORD.jws", f"{information}/RECORD.p7s"}
    files = {}
    for name in entries:
        if name in signatures:
            continue
        digest = hashlib.sha256(archive.read(name)).digest()
        if stated.get(name) != f"sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}":
            raise _refused(path, f"{name!r:.80} is not in its list with the sha256 that it has")
        files[name] = digest.hex()
    if missing := sorted(set(stated) - set(entries)):
        raise _refused(path, f"it lists {missing[0]!r:.80}, which it has not")
    return files


def _plugins(
    path: Path, archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], information: str
) -> dict[str, str]:
    name = f"{information}/entry_points.txt"
    points = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=True)
    points.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        points.read_string(_text(path, archive, name) if name in entries else "")
    except configparser.Error as error:
        raise _refused(path, f"its entry points cannot be read: {error}".splitlines()[0]) from error
    if scripts := [group for group in _SCRIPTS if points.has_section(group)]:
        raise _refused(path, f"it brings programs ({scripts[0]})")
    found = dict(points[ENTRY_POINT_GROUP]) if points.has_section(ENTRY_POINT_GROUP) else {}
    if not found:
        raise _refused(path, f"it brings no plugin: no entry point {ENTRY_POINT_GROUP}")
    for plugin, target in found.items():
        if not _PLUGIN.fullmatch(plugin):
            raise _refused(path, f"the plugin's name {plugin!r:.80}: use 1 to 64 of a-z, 0-9 and _")
        if not _TARGET.fullmatch(target):
            raise _refused(path, f"{plugin} = {target!r:.80} is not of the form package.module:NAME")
    return found


def _shadows_nothing(path: Path, packages: Iterable[str]) -> None:
    for package in packages:
        if package in sys.stdlib_module_names or package in ("inference_pio", "torch", "numpy", "msgspec"):
            raise _refused(path, f"its package {package!r} has the name of another")


def _distribution(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9][\w.-]*", requirement)
    return found.group() if found else requirement


def _text(path: Path, archive: zipfile.ZipFile, name: str) -> str:
    try:
        size = archive.getinfo(name).file_size
    except KeyError as error:
        raise _refused(path, f"it has no {name}") from error
    if size > _MOST_TEXT:
        raise _refused(path, f"{name} has {size:,} bytes, more than {_MOST_TEXT:,}")
    return archive.read(name).decode("utf-8")


def _refused(path: Path, what: str) -> PluginError:
    return PluginError(f"{path.name} is not installed: {what}")
