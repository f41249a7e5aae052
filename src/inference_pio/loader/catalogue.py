"""Which models are known by name, and where each of their files can be had. The data is `catalogue.json`."""

from __future__ import annotations

import difflib
import functools
import re
from importlib import resources
from typing import Literal

import msgspec

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One published package and the member of its archive that holds (a part of) the file."""

    name: str
    version: str
    member: str

    def __post_init__(self) -> None:
        # Both end up on a package client's command line, so neither may look like an option or a URL.
        if not _PACKAGE.fullmatch(self.name) or not _PACKAGE.fullmatch(self.version):
            raise ValueError(f"package {self.name!r} {self.version!r}: not a plain name and version")


class PackageSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="package"):
    """The file cut into one or more packages, fetched by `client` and concatenated in order."""

    client: Literal["pip", "npm"]
    packages: tuple[Package, ...]

    def __post_init__(self) -> None:
        if not self.packages:
            raise ValueError("a package source names at least one package")

    def __str__(self) -> str:
        first = self.packages[0]
        more = f" and {len(self.packages) - 1} more" if len(self.packages) > 1 else ""
        return f"{self.client} package {first.name} {first.version}{more}"


class HubSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="hub"):
    """The file as published in a hub repository; without `revision` its default branch."""

    repo: str
    file: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hub {self.repo}"


Source = PackageSource | HubSource


class CatalogueFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a model: `size` in bytes, `sha256` in hex, and the sources tried in this order."""

    name: str
    size: int
    sha256: str
    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        if not _FILE.fullmatch(self.name):
            raise ValueError(f"file name {self.name!r}: a plain name, without folders")
        if not _SHA256.fullmatch(self.sha256) or self.size <= 0 or not self.sources:
            raise ValueError(f"file {self.name!r}: needs a size, a sha256 in lower-case hex and a source")


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model.

    architecture    name of the plugin that runs it (it need not be installed: this is data)
    parameters      number of weights
    context_length  tokens the checkpoint was trained for
    licence         SPDX identifier, or a name where there is none
    licence_terms   what must be accepted before a download; None where nothing must be
    """

    name: str
    architecture: str
    description: str
    parameters: int
    context_length: int
    licence: str
    files: tuple[CatalogueFile, ...]
    aliases: tuple[str, ...] = ()
    licence_terms: str | None = None

    def __post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            if not NAME.fullmatch(name):
                raise ValueError(f"model name {name!r}: 1 to 80 of a-z, 0-9, '.', '_' and '-'")
        if not self.files:
            raise ValueError(f"model {self.name!r} has no file")

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)


@functools.cache
def entries() -> tuple[Entry, ...]:
    """Every model of the catalogue, in the order of `catalogue.json`."""
    return parse(resources.files(__package__).joinpath("catalogue.json").read_bytes())


def parse(data: bytes) -> tuple[Entry, ...]:
    """Read a catalogue strictly: an unknown key, a wrong type or a name used twice is a ValidationError."""
    found = msgspec.json.decode(data, type=tuple[Entry, ...])
    seen: set[str] = set()
    for entry in found:
        for name in (entry.name, *entry.aliases):
            if name in seen:
                raise msgspec.ValidationError(f"the name {name!r} is used twice")
            seen.add(name)
    return found


def find(name: str) -> Entry | None:
    """The entry of this name or alias; case does not matter."""
    wanted = name.lower()
    return next((entry for entry in entries() if wanted in (entry.name, *entry.aliases)), None)


def suggest(name: str) -> tuple[str, ...]:
    """Up to three catalogue names that look like `name`, the nearest first."""
    names = {known: entry.name for entry in entries() for known in (entry.name, *entry.aliases)}
    close = difflib.get_close_matches(name.lower()[:100], names, n=3, cutoff=0.6)
    return tuple(dict.fromkeys(names[known] for known in close))
