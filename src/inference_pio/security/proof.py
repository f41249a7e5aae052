"""Which walls hold here: a child is put behind them and tries (`canary.py`)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from inference_pio.security.canary import Told, Trial
from inference_pio.security.confine import Confinement

_PATIENCE = 20.0
_LOOK_SECONDS = 0.01
_RUN = "import sys; sys.path[:0] = {paths!r}; from inference_pio.security.canary import main; main()"


@dataclass(frozen=True)
class Proof:
    """`told` is None where the child could not even report; `why` then says why."""

    told: Told | None
    why: str = ""

    def refused(self, *attempts: str) -> bool:
        """Whether all of these were tried and came to nothing."""
        return self.told is not None and all(
            self.told.attempts.get(name, "done") not in ("done",) for name in attempts
        )

    @property
    def cores(self) -> float | None:
        """Processors' worth of time that it got; None: it did not try."""
        return None if self.told is None else self.told.cores

    def gaps(self, lock: str) -> tuple[str, ...]:
        """What a mechanism leaves open, or why it is missing."""
        if self.told is None:
            return (self.why,)
        return next((found.gaps for found in self.told.locks if found.name == lock), ())

    def state(self, lock: str) -> str:
        """ "set", "partly set" or "missing"."""
        if self.told is None:
            return "missing"
        return next((found.state for found in self.told.locks if found.name == lock), "missing")


Held = Callable[[int], AbstractContextManager[Callable[[], None]]]
"""Holds a process to limits for as long as the block lasts; what it gives is called every few milliseconds."""


def prove(
    confinement: Confinement,
    imports: Sequence[str],
    held: Held,
    threads: int,
    scratch: Path | None = None,
) -> Proof:
    """Some 0.1 s, and half a second where processors are tried: the memory that is asked for is never touched.

    Args:
        imports: where the child imports this project from.
        threads: that compute for a while; 0: none.
        scratch: a folder that the child may write to.
    """
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder) / "secret"
        secret.write_bytes(b"x")
        trial = Trial(confinement, os.getpid(), str(secret), folder, threads, str(scratch or ""))
        try:
            code, said, complaint = _run(msgspec.json.encode(trial), imports, held)
        except (OSError, TimeoutError) as error:
            return Proof(None, f"the canary could not run: {error}")
    if code:
        lines = complaint.strip().splitlines()
        return Proof(None, f"the canary ended with {code}: {lines[-1] if lines else 'no word'}")
    try:
        return Proof(msgspec.json.decode(said, type=Told))
    except msgspec.MsgspecError as error:
        return Proof(None, f"the canary said what is no report: {error}")


def _run(trial: bytes, imports: Sequence[str], held: Held) -> tuple[int, bytes, str]:
    """(exit code, what it wrote, what it complained)."""
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _RUN.format(paths=list(imports))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env={"PATH": os.environ.get("PATH", os.defpath)},
        )
        assert child.stdin is not None
        assert child.stdout is not None
        end = time.monotonic() + _PATIENCE
        try:
            with held(child.pid) as look, child.stdin, child.stdout:
                child.stdin.write(trial)
                child.stdin.close()
                while child.poll() is None:
                    look()
                    if time.monotonic() > end:
                        raise TimeoutError(f"no word in {_PATIENCE:g} s")
                    time.sleep(_LOOK_SECONDS)
                said = child.stdout.read()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        complaints.seek(0)
        return child.returncode, said, complaints.read().decode(errors="replace")
