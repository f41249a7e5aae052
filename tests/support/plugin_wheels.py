"""The wheel of a plugin package, with whatever is to be wrong in it."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

INFO = "weather-1.0.dist-info"
FILES = {
    "weather_plugin/__init__.py": "raise SystemExit('it ran')\n",
    "weather_plugin/model.py": "x = 1\n",
    f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: weather\nVersion: 1.0\nRequires-Dist: msgspec>=0.19\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{INFO}/entry_points.txt": "[inference_pio.models]\nweather = weather_plugin:MANIFEST\n",
}
NAME = "weather-1.0-py3-none-any.whl"


def record_of(files: Mapping[str, str]) -> str:
    lines = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(text.encode())}")
    return "\n".join([*lines, f"{INFO}/RECORD,,"]) + "\n"


def wheel(
    folder: Path, more: Mapping[str, str | None] | None = None, *, record: str | None = None, file: str = NAME
) -> Path:
    """The wheel above with other files (None: without); its list fits, where none is given."""
    files = {name: text for name, text in {**FILES, **(more or {})}.items() if text is not None}
    path = folder / file
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{INFO}/RECORD", record_of(files) if record is None else record)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
