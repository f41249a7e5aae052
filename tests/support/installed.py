"""A package's folder made visible as an installed distribution would be: on the path, with its metadata."""

from __future__ import annotations

import tomllib
from pathlib import Path


def metadata_of(folder: Path) -> Path:
    """Write what an installer leaves of `folder`/pyproject.toml into `folder`/src, and return that."""
    stated = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / "src" / f"{stated['name'].replace('-', '_')}-{stated['version']}.dist-info"
    info.mkdir()
    named = f"Metadata-Version: 2.1\nName: {stated['name']}\nVersion: {stated['version']}\n"
    (info / "METADATA").write_text(named)
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in stated["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))
    return folder / "src"
