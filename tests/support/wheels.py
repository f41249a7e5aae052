"""A wheel with a plugin, whole or with what is not let in."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

INFO = "weather-1.0.dist-info"
FILES = {
    "weather_plugin/__init__.py": "raise SystemExit('it ran')\n",
    "weather_plugin/model.py": "x = 1\n",
    f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: weather\nVersion: 1.0\nRequires-Dist: msgspec>=0.19\n",
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{INFO}/entry_points.txt": "[inference_pio.models]\nweather = weather_plugin:MANIFEST\n",
}


def record_of(files: dict[str, str]) -> str:
    lines = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(text)}")
    return "\n".join([*lines, f"{INFO}/RECORD,,"]) + "\n"


def wheel(
    folder: Path, more: dict[str, str | None] | None = None, *, record: str | None = None, **named: str
) -> Path:
    """The wheel above with other files (None: without); its list fits, where none is given."""
    files = {name: text for name, text in {**FILES, **(more or {})}.items() if text is not None}
    path = folder / named.get("file", "weather-1.0-py3-none-any.whl")
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{INFO}/RECORD", record_of(files) if record is None else record)
    return path
