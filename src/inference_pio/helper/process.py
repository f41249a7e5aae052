"""The helper, from the outside: one per process, started when it is first needed, and again when a job ended it."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping
from typing import Any

from inference_pio.children.beginning import command, environment, import_paths
from inference_pio.children.crossing import error_of
from inference_pio.children.frames import ProtocolError
from inference_pio.children.line import Line
from inference_pio.errors import ImageError, InferencePIOError, PluginError
from inference_pio.helper.jobs import (
    MOST_BYTES,
    Begin,
    Decode,
    FromHelper,
    Pixels,
    Ready,
    Refused,
    Render,
    Rendered,
    ToHelper,
)
from inference_pio.security.confine import Confinement
from inference_pio.security.levels import SecurityLevel
from inference_pio.security.reach import Places, interpreter, reach_of
from inference_pio.security.user import user_and_reading, worker_user
from inference_pio.text.rendering import failure

CPU_SECONDS = 4
_MEMORY_BYTES = 640 << 20
_PATIENCE = 30.0  # of the clock, where processors are busy with other work
_CHILD = "inference_pio.helper.child:main"


class HelperEnded(PluginError):
    """A job ended it."""


class Helper:
    """Its methods may be called from any thread; one job runs at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._line: Line[FromHelper, ToHelper] | None = None
        self._owner = 0

    def render(self, source: str, values: Mapping[str, Any], path: str) -> str:
        """A chat template's text (`text/rendering.py`), with the same errors."""
        try:
            said = self._ask(Render(source, dict(values), path))
        except HelperEnded as error:
            raise failure(path, f"the template {error}") from error
        if not isinstance(said, Rendered):
            raise ProtocolError(f"the helper said {type(said).__name__} of a template")
        return said.text

    def rgb(self, data: bytes, where: str, name: str, width: int, height: int) -> tuple[int, int, bytes]:
        """An image's pixels (`multimodal/decoding.py`), with the same errors."""
        try:
            said = self._ask(Decode(data, where, name, width, height))
        except HelperEnded as error:
            raise ImageError(where, f"decoding it {error}") from error
        if not isinstance(said, Pixels):
            raise ProtocolError(f"the helper said {type(said).__name__} of an image")
        if {said.height, said.width} != {height, width} or len(said.data) != 3 * height * width:
            raise ProtocolError(f"{said.height} × {said.width} pixels of an image with {height} × {width}")
        return said.height, said.width, said.data

    def start(self) -> None:
        """Ahead of the first job."""
        with self._lock:
            self._started()

    def close(self) -> None:
        """End it; the next job starts another one."""
        with self._lock:
            self._end()

    def _ask(self, job: ToHelper) -> FromHelper:
        with self._lock:
            line = self._started()
            try:
                line.say(job)
                said = line.hear()
            except (OSError, ProtocolError) as error:
                raise self._given_up(str(error)) from error
            if said is None:
                raise self._given_up("it hung up")
        if isinstance(said, Refused):
            raise _refusal(said)
        return said

    def _started(self) -> Line[FromHelper, ToHelper]:
        if self._line is not None and self._child is not None and self._owner == os.getpid():
            if self._child.poll() is None:
                return self._line
            self._end()  # somebody ended it while it had nothing to do
        ours, theirs = socket.socketpair()
        ours.settimeout(_PATIENCE)
        with theirs:
            try:
                self._child = subprocess.Popen(
                    command(_CHILD, theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env=environment({}),
                    cwd="/",
                )
            except OSError as error:
                ours.close()
                raise PluginError(f"no process for unsafe text can be started: {error.strerror}") from error
        self._line, self._owner = Line(ours, FromHelper, MOST_BYTES), os.getpid()
        atexit.register(self.close)
        self._line.say(Begin(_confinement(), os.getpid(), CPU_SECONDS))
        if not isinstance(self._line.hear(), Ready):
            raise self._given_up("it did not start")
        return self._line

    def _given_up(self, why: str) -> HelperEnded:
        """What it died of; it has ended then."""
        child = self._child
        assert child is not None
        self._end()
        if child.returncode == -signal.SIGXCPU:
            return HelperEnded(f"takes more than {CPU_SECONDS} s of processor time")
        if "timed out" in why:
            return HelperEnded(f"takes more than {_PATIENCE:g} s")
        return HelperEnded(f"ended the process that it ran in ({child.returncode}: {why})")

    def _end(self) -> None:
        child, line, self._child, self._line = self._child, self._line, None, None
        if child is None or line is None or self._owner != os.getpid():
            return
        atexit.unregister(self.close)
        line.close()
        try:
            child.wait(0.2)  # a limit of the kernel's may just have ended it
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _confinement() -> Confinement:
    reach = reach_of(SecurityLevel.LOW_TRUST, Places(import_paths(), (), None))
    # Any thread may be the one that starts it; it ends by itself when the line does, or its processor time.
    user, reading = user_and_reading(worker_user(), [*import_paths(), *interpreter()])
    return Confinement(
        SecurityLevel.LOW_TRUST,
        data_bytes=_MEMORY_BYTES,
        user=user,
        reading=reading,
        reach=reach,
        dies_with_parent=False,
    )


def _refusal(said: Refused) -> InferencePIOError:
    return error_of(said.error, said.text)


HELPER = Helper()
