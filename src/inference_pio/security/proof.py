"""Which walls hold here: a child is put behind them and tries (`canary.py`)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from inference_pio.security.canary import Told, Trial
from inference_pio.security.confine import Confinement

_PATIENCE = 20.0
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


def prove(confinement: Confinement, imports: Sequence[str]) -> Proof:
    """Some 0.1 s: the memory that is tried for is asked for and never touched.

    Args:
        imports: where the child imports this project from.
    """
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder) / "secret"
        secret.write_bytes(b"x")
        trial = Trial(confinement, os.getpid(), str(secret), folder)
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-c", _RUN.format(paths=list(imports))],
                input=msgspec.json.encode(trial),
                capture_output=True,
                timeout=_PATIENCE,
                env={"PATH": os.environ.get("PATH", os.defpath)},
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Proof(None, f"the canary could not run: {error}")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return Proof(None, f"the canary ended with {done.returncode}: {said[-1] if said else 'no word'}")
    try:
        return Proof(msgspec.json.decode(done.stdout, type=Told))
    except msgspec.MsgspecError as error:
        return Proof(None, f"the canary said what is no report: {error}")
