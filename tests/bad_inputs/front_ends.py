"""Every way by which a model's path comes in, and what each says of one that it refuses."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from inference_pio import LLM, ResourceLimits, SecurityLevel, create_plugin, initialize_plugin
from inference_pio.cli.app import execute
from inference_pio.cli.main import guarded
from inference_pio.errors import InferencePIOError
from inference_pio.loader.checkpoint import open_checkpoint
from inference_pio.loader.headers import check_headers
from inference_pio.loader.raw_config import raw_config

WIDE = ResourceLimits(
    cpu_percent=1e9, memory_gb=1e9, gpu_memory_gb=1e9, disk_space_gb=1e9, network_bandwidth_mbps=1e9
)
_SMALL = {"kv_cache_memory_gb": 0.02, "dtype": "float32"}


@dataclass(frozen=True)
class Refusal:
    """`kind` is the error's class, or the command line's exit code."""

    kind: str | int
    text: str


def reader(path: Path) -> None:
    with open_checkpoint(path) as checkpoint:
        raw_config(checkpoint, path)


def parent(path: Path) -> None:
    check_headers(path)


def llm(path: Path) -> None:
    LLM(str(path), **_SMALL).close()


def worker(path: Path) -> None:
    LLM(str(path), security_level=SecurityLevel.LOW_TRUST, **_SMALL).close()


def standard(path: Path) -> None:
    plugin = create_plugin("llama")
    config = plugin.config_class(model_path=str(path))
    initialize_plugin(plugin, config=config, resource_limits=WIDE)
    plugin.cleanup()


def run(path: Path) -> Refusal | None:
    return typed("run", path, "hello", "--max-tokens", "1", "--dtype", "float32")


def plan(path: Path) -> Refusal | None:
    return typed("plan", path)


def typed(*arguments: object) -> Refusal | None:
    """What a command line says on stderr, and nothing on stdout."""
    code, out, err = _executed(*arguments)
    if not code:
        return None
    assert out == ""
    assert err.startswith("error: "), err
    assert err.endswith("\n")
    return Refusal(code, err.removeprefix("error: ")[:-1])


def printed(*arguments: object) -> str:
    """What a command line that does what it is told says on stdout."""
    code, out, err = _executed(*arguments)
    assert (code, err) == (0, "")
    return out


def _executed(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = guarded(lambda: execute([str(argument) for argument in arguments]))
    return code, out.getvalue(), err.getvalue()


FRONT_ENDS: Mapping[str, Callable[[Path], Refusal | None]] = {
    "reader": reader,
    "parent": parent,
    "plan": plan,
    "llm": llm,
    "worker": worker,
    "standard": standard,
    "run": run,
}
# Those that would start a worker.
APART = ("worker", "standard")
READERS = ("reader", "parent")


def refusal(front_end: str, path: Path) -> Refusal | None:
    """What it says; None where it takes the model. Anything but an error of ours comes out as it is."""
    try:
        return FRONT_ENDS[front_end](path)
    except InferencePIOError as error:
        return Refusal(type(error).__name__, str(error))


class Counted:
    """The processes that are started while it is there, under the names of their programs."""

    def __init__(self) -> None:
        self.started: list[list[str]] = []
        self._begin = subprocess.Popen.__init__

    def __enter__(self) -> Counted:
        counted = self

        def begin(process: subprocess.Popen[bytes], *arguments: object, **options: object) -> None:
            counted.started.append([str(word) for word in arguments[0]])  # type: ignore[attr-defined]
            counted._begin(process, *arguments, **options)  # type: ignore[call-overload]

        subprocess.Popen.__init__ = begin  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.Popen.__init__ = self._begin  # type: ignore[method-assign]


def modules_from(folder: Path) -> list[str]:
    """Modules that were imported out of a folder."""
    return [
        name
        for name, module in list(sys.modules.items())
        if str(getattr(module, "__file__", None) or "").startswith(str(folder))
    ]
