"""Entry point: whatever happens, one line on stderr and the right exit code; never a traceback.

0 done, 1 to 7 as in `inference_pio.errors`, 70 a fault of this program, 130 Ctrl-C, 141 the reader of stdout left.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from inference_pio.cli.exit_codes import INTERNAL_ERROR, INTERRUPTED, PIPE_CLOSED

DEBUG = "INFERENCE_PIO_DEBUG"


def main() -> NoReturn:
    """Run the command line of this process and leave it."""
    try:
        _prepare_streams()
        code = guarded(lambda: _run(sys.argv[1:]))
    except KeyboardInterrupt:  # while `guarded` was at work on something else
        code = INTERRUPTED
    # From here on there is nothing to save: a late Ctrl-C must not show how the interpreter shuts down.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def guarded(command: Callable[[], int]) -> int:
    """The exit code of `command`, its error told in one line."""
    from inference_pio.errors import InferencePIOError, ResourceError

    try:
        code = command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the shell's prompt begins on a line of its own
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. Flushing what is left must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return PIPE_CLOSED
    except InferencePIOError as error:
        _debug()
        return _complain(f"error: {error}", error.exit_code)
    except (
        OSError
    ) as error:  # outside of what the package foresees: a full disk behind stdout, a file without access
        _debug()
        place = f"{error.filename}: " if error.filename is not None else ""
        return _complain(f"error: {place}{error.strerror or error}", InferencePIOError.exit_code)
    except MemoryError:
        _debug()
        return _complain("error: no memory is left: raise --memory-gb, or free some", ResourceError.exit_code)
    except Exception as error:  # noqa: BLE001 - the one place where a fault of ours becomes a line for people
        _debug()
        return _complain(
            f"internal error: {type(error).__name__}: {error}; please report it "
            f"({DEBUG}=1 shows where it happened)",
            INTERNAL_ERROR,
        )
    return code


def _run(arguments: Sequence[str]) -> int:
    from inference_pio.cli.surroundings import check_folder, strangers

    check_folder()
    for warning in strangers(os.environ):
        print(f"warning: {warning}", file=sys.stderr)
    from inference_pio.cli.app import execute

    return execute(arguments)


def _complain(message: str, code: int) -> int:
    from inference_pio.cli.text import one_line

    print(one_line(message), file=sys.stderr, flush=True)
    return code


def _debug() -> None:
    if os.environ.get(DEBUG):
        import traceback

        traceback.print_exc()


def _prepare_streams() -> None:
    """A closed stream becomes an empty one; a character that the terminal cannot show becomes `?`."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - it lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
