"""Giving up what root may do that others may not: another user where that works, no capabilities in any case."""

from __future__ import annotations

import ctypes
import os
import struct

_VERSION_3 = 0x20080522
_DROP_BOUNDING, _SET_SECURE_BITS = 24, 28
# Keep nothing across a change of user, and give root no privileges by being root; both for good.
_SECURE_BITS = 0b10_1111
_MOST_CAPABILITIES = 64


def give_up_privileges(user: tuple[int, int] | None) -> tuple[str, ...]:
    """
    Args:
        user: (uid, gid) to become where this process is root.

    Returns:
        What stays open, in words.

    Raises:
        OSError: the kernel refuses.
    """
    if os.geteuid() != 0:
        return ()
    _leave_bounding_set()
    if user is not None:
        uid, gid = user
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    _drop_capabilities()
    return (
        () if user is not None else ("it is root still, without a capability: files of root's are its own",)
    )


def has_capabilities() -> bool:
    """Whether this process could do anything that others may not."""
    held = ctypes.create_string_buffer(24)
    _checked(_libc.capget(_header(), held), "capget")
    return any(struct.unpack("6I", held.raw))


def _leave_bounding_set() -> None:
    # Without the capability for it this fails, and nothing that is executed gains capabilities under no_new_privs.
    _libc.prctl(_SET_SECURE_BITS, _SECURE_BITS, 0, 0, 0)
    for capability in range(_MOST_CAPABILITIES):
        if _libc.prctl(_DROP_BOUNDING, capability, 0, 0, 0):
            break


def _drop_capabilities() -> None:
    _checked(_libc.capset(_header(), struct.pack("6I", *[0] * 6)), "capset")


def _header() -> bytes:
    return struct.pack("Ii", _VERSION_3, 0)


def _checked(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


_libc = ctypes.CDLL(None, use_errno=True)
