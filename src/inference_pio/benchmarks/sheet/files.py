"""A sheet as three files: JSON, Markdown, HTML."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from inference_pio.benchmarks.history import folder_name
from inference_pio.benchmarks.sheet.markdown import markdown
from inference_pio.benchmarks.sheet.page import page
from inference_pio.benchmarks.sheet.record import Sheet
from inference_pio.errors import UnavailableError
from inference_pio.loader.partial import write_atomically


def write_sheet(sheet: Sheet, folder: Path) -> list[Path]:
    """`<model>-<date>.json`, `.md` and `.html` in a folder, which is made where it is missing; those of an earlier run
    of the same day are replaced.

    Raises:
        UnavailableError: the folder cannot be written to.
    """
    stem = f"{folder_name(sheet.model)}-{sheet.date[:10]}"
    texts = {"json": sheet.encode(), "md": markdown(sheet).encode(), "html": page(sheet).encode()}
    paths = {suffix: folder / f"{stem}.{suffix}" for suffix in texts}
    check_folder(folder)
    try:
        for suffix, path in paths.items():
            write_atomically(path, texts[suffix])
    except OSError as error:
        raise _unwritable(folder, error.strerror or str(error)) from error
    return list(paths.values())


def check_folder(folder: Path) -> None:
    """Make a folder for reports where it is missing.

    Raises:
        UnavailableError: it cannot be made, or not written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise _unwritable(folder, "it is a file") from error
    except OSError as error:
        raise _unwritable(folder, error.strerror or str(error)) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(folder, os.strerror(errno.EACCES))


def _unwritable(folder: Path, why: str) -> UnavailableError:
    return UnavailableError(
        f"the report cannot be written to {folder}: {why}; name another folder with --out"
    )
