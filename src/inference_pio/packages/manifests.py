"""What a plugin of others says about itself, asked in a locked child: nothing of it runs here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import asdict
from functools import lru_cache

import msgspec

from inference_pio.children.beginning import environment, import_paths
from inference_pio.errors import InferencePIOError, PluginError, one_line
from inference_pio.imports import import_object
from inference_pio.plugin.manifest import Manifest
from inference_pio.security.confine import Confinement, confine
from inference_pio.security.levels import SecurityLevel
from inference_pio.security.reach import Places, reach_of

_PATIENCE = 30.0
_MEMORY_BYTES = 2 << 30
_MOST_WORDS = 300
_RUN = "import sys; sys.path[:0] = {paths!r}; from inference_pio.packages.manifests import tell; tell()"


class _Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    confinement: Confinement
    parent: int
    target: str


@lru_cache(256)
def manifest_of(target: str, origin: str, folders: tuple[str, ...] = ()) -> Manifest:
    """
    Args:
        target: "package.module:MANIFEST".
        origin: what brings it, named in errors.
        folders: where it is imported from, beside where this process imports from.

    Raises:
        PluginError: it cannot be imported, is no manifest, or takes too long.
    """
    paths = [*import_paths(), *folders]
    reach = reach_of(SecurityLevel.LOW_TRUST, Places(paths, (), None))
    lock = Confinement(SecurityLevel.LOW_TRUST, data_bytes=_MEMORY_BYTES, reach=reach)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _RUN.format(paths=paths)],
            input=msgspec.json.encode(_Question(lock, os.getpid(), target)),
            capture_output=True,
            timeout=_PATIENCE,
            env=environment({}),
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PluginError(f"{target} of {origin} does not load: no word in {_PATIENCE:g} s") from error
    except OSError as error:
        raise PluginError(f"no process can be started to ask {origin}: {error.strerror}") from error
    try:
        stated = msgspec.json.decode(done.stdout.rpartition(b"\n")[2])
        if not isinstance(stated, dict) or "manifest" not in stated:
            raise PluginError(f"{target} of {origin} does not load: {_complaint(done, stated)}")
        return msgspec.convert(stated["manifest"], Manifest)
    except msgspec.MsgspecError as error:
        raise PluginError(f"{target} of {origin} does not load: {_complaint(done, None)}") from error


def tell() -> None:
    """The child's side: a question comes in as JSON, the last line that goes out is the answer."""
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=_Question)
    confine(asked.confinement, asked.parent)
    try:
        found = import_object(asked.target)
        if not isinstance(found, Manifest):
            raise PluginError(f"is not a Manifest but {type(found).__name__}")
        answer: dict[str, object] = {"manifest": asdict(found)}
    except InferencePIOError as error:
        answer = {"error": str(error)[:_MOST_WORDS]}
    sys.stdout.flush()
    sys.stdout.buffer.write(b"\n" + msgspec.json.encode(answer))


def _complaint(done: subprocess.CompletedProcess[bytes], stated: object) -> str:
    if isinstance(stated, dict) and isinstance(stated.get("error"), str):
        return one_line(stated["error"])[:_MOST_WORDS]
    if done.returncode < 0:
        return f"it ended by {signal.Signals(-done.returncode).name}"
    said = done.stderr.decode(errors="replace").strip().splitlines()
    words = one_line(said[-1] if said else "it said nothing")[:_MOST_WORDS]
    return f"it exited with {done.returncode}: {words}"
