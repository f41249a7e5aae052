"""Filters of system calls: what they decide, by an interpreter of the kernel's, and what a locked process meets."""

from __future__ import annotations

import errno
import struct
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pio.security.levels import SecurityLevel
from inference_pio.security.policy import refusals
from inference_pio.security.seccomp import Refusal, When, program
from inference_pio.security.syscalls import ARCHITECTURES, Architecture

_X86, _ARM = ARCHITECTURES["x86_64"], ARCHITECTURES["aarch64"]
_CALLS = ("clone", "mmap", "socket", "kill", "fork")
_WORDS = st.integers(0, 2**32 - 1)
_CONDITIONS = st.builds(
    When,
    st.integers(0, 5),
    st.sampled_from(["all of", "none of", "any of", "is", "is not"]),
    st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 2, 3, 0x21]),
)


def _runs(written: bytes, data: bytes) -> int:
    """What the kernel would return (net/core/filter.c), of the instructions that are used here."""
    accumulator, place = 0, 0
    while True:
        code, yes, no, value = struct.unpack_from("HBBI", written, 8 * place)
        place += 1
        if code == 0x06:
            return value
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x54:
            accumulator &= value
        else:
            holds = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[code]
            place += yes if holds else no


def _asked(architecture: Architecture, number: int, arguments: list[int], audit: int | None = None) -> bytes:
    return struct.pack(
        "<IIQ6Q",
        number,
        architecture.audit if audit is None else audit,
        0,
        *arguments,
        *[0] * (6 - len(arguments)),
    )


def _holds(when: When, arguments: list[int]) -> bool:
    value = arguments[when.argument] & 0xFFFFFFFF
    return {
        "all of": value & when.value == when.value,
        "any of": value & when.value != 0,
        "none of": value & when.value == 0,
        "is": value == when.value,
        "is not": value != when.value,
    }[when.test]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.builds(
            Refusal,
            st.sampled_from(_CALLS),
            st.sampled_from([errno.EPERM, errno.EACCES, errno.ENOSYS]),
            st.lists(_CONDITIONS, max_size=3).map(tuple),
        ),
        max_size=5,
    ),
    st.sampled_from([_X86, _ARM]),
    st.sampled_from([*_CALLS, "bpf"]),
    st.lists(_WORDS | st.sampled_from([1, 2, 3, 0x21, 2**40 + 1]), min_size=6, max_size=6),
)
def test_a_program_decides_as_its_refusals_say(
    refused: list[Refusal], architecture: Architecture, call: str, arguments: list[int]
) -> None:
    number = architecture.numbers.get(call, 5000)
    expected = next(
        (
            0x00050000 | one.error
            for one in refused
            if one.call == call
            and call in architecture.numbers
            and all(_holds(when, arguments) for when in one.when)
        ),
        0x7FFF0000,
    )
    assert _runs(program(refused, architecture), _asked(architecture, number, arguments)) == expected


def test_calls_of_another_convention_kill() -> None:
    written = program((), _X86)
    assert _runs(written, _asked(_X86, 1, [], audit=0x40000003)) == 0x80000000, "32 bits: other numbers"
    assert _runs(written, _asked(_X86, 0x40000000 + 59, [])) == 0x80000000, "x32"
    assert _runs(written, _asked(_X86, 1, [])) == 0x7FFF0000


_ACTIONS = {
    "socket": "socket.socket()",
    "udp": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "unix": "socket.socket(socket.AF_UNIX)",
    "fork": "os.fork()",
    "exec": "os.execv('/bin/true', ['true'])",
    "spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "memfd": "os.memfd_create('x')",
    "shared memory": "mmap.mmap(-1, 4096)",
    "signal to the parent": "os.kill(os.getppid(), 0)",
    "signal to its group": "os.kill(0, 0)",
    "affinity": "os.sched_setaffinity(0, {0})",
    "ptrace": "call(101 if x86 else 117, 16, os.getppid())",
    "unshare": "call(272 if x86 else 97, 0x10000000)",
    "io_uring": "call(425, 8, 0)",
    "System V shared memory": "call(29 if x86 else 194, 0, 4096, 0o1600)",
    "the kernel's keys": "call(250 if x86 else 219, 0, -3, 0)",
}
_LOCKED = """
import ctypes, errno, mmap, os, platform, socket, threading
from inference_pio.security.levels import SecurityLevel
from inference_pio.security.policy import refusals
from inference_pio.security.seccomp import install
x86, libc = platform.machine() == "x86_64", ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    if libc.syscall(*map(ctypes.c_long, numbers)) < 0:
        raise OSError(ctypes.get_errno(), "")
def tried(code):
    try:
        eval(code)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
begin, found = threading.Event(), []
older = threading.Thread(target=lambda: (begin.wait(), found.append(tried("socket.socket()"))))
older.start()
install(refusals(SecurityLevel(LEVEL)))
begin.set(); older.join()
print("older thread:", found[0])
later = threading.Thread(target=print, args=("threads: yes",))
later.start(); later.join()
os.kill(os.getpid(), 0)
a, b = socket.socketpair(); a.send(b"pair"); print(b.recv(9).decode())
for name, code in ACTIONS.items():
    print(f"{name}: {tried(code)}", flush=True)
"""


def _locked(level: SecurityLevel, actions: dict[str, str]) -> dict[str, str]:
    code = _LOCKED.replace("LEVEL", repr(level.value)).replace("ACTIONS", repr(actions))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    lines = [line for line in ran.stdout.splitlines() if ": " in line]
    return dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize("level", [SecurityLevel.LOW_TRUST, SecurityLevel.MEDIUM_TRUST])
def test_a_locked_process_can_compute_and_nothing_else(level: SecurityLevel) -> None:
    met = _locked(level, _ACTIONS)
    assert met.pop("threads") == "yes"
    assert met.pop("older thread") == "EACCES"
    sockets = {"socket", "udp", "unix"}
    assert met == {name: "EACCES" if name in sockets else "EPERM" for name in _ACTIONS}


def test_a_program_of_the_operators_may_start_others() -> None:
    kept = {name: action for name, action in _ACTIONS.items() if name not in ("exec", "fork")}
    met = _locked(SecurityLevel.HIGH_TRUST, kept)
    assert {met[name] for name in ("spawn", "memfd", "shared memory")} == {"done"}
    assert {met[name] for name in ("socket", "unix", "udp")} == {"EACCES"}
    assert {met[name] for name in ("ptrace", "unshare", "io_uring")} == {"EPERM"}


def test_every_call_that_is_refused_has_a_number() -> None:
    for level in (SecurityLevel.LOW_TRUST, SecurityLevel.HIGH_TRUST):
        assert not {one.call for one in refusals(level)} - set(_X86.numbers)
    only = "chmod chown fork futimesat ioperm iopl lchown utime utimes vfork"
    assert set(_X86.numbers) - set(_ARM.numbers) == set(only.split())
