"""One question to a child that is started for it: what it says at last, however much it says."""

from __future__ import annotations

import os
import selectors
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

_KEPT_BYTES = 1 << 16
_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Told:
    """`said` and `complained` are the last of what it wrote."""

    code: int
    said: bytes
    complained: bytes


def ask(command: Sequence[str], question: bytes, variables: Mapping[str, str], patience: float) -> Told:
    """
    Args:
        question: what it reads; less than a pipe holds.
        variables: its whole environment.
        patience: seconds until it is ended.

    Raises:
        OSError: it cannot be started.
        TimeoutError: it took longer.
    """
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(variables),
        cwd="/",
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    with child.stdin, child.stdout, child.stderr, selectors.DefaultSelector() as open_ends:
        try:
            with suppress(BrokenPipeError):  # it ended before it read that
                child.stdin.write(question)
                child.stdin.close()
            kept = {child.stdout.fileno(): b"", child.stderr.fileno(): b""}
            for descriptor in kept:
                open_ends.register(descriptor, selectors.EVENT_READ)
            end = monotonic() + patience
            while open_ends.get_map():
                ready = open_ends.select(max(0.0, end - monotonic()))
                if not ready:
                    raise TimeoutError(f"no word in {patience:g} s")
                for key, _ in ready:
                    data = os.read(key.fd, _AT_ONCE)
                    kept[key.fd] = (kept[key.fd] + data)[-_KEPT_BYTES:]
                    if not data:
                        open_ends.unregister(key.fd)
            code = child.wait(max(0.0, end - monotonic()))
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"no word in {patience:g} s") from error
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        said, complained = kept.values()
        return Told(code, said, complained)
