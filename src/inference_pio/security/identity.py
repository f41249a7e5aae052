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
_READ_ALL, _SET_GID, _SET_UID = 2, 6, 7


def give_up_privileges(user: tuple[int, int] | None, *, reading: bool = False) -> tuple[str, ...]:
    """
    Args:
        user: (uid, gid) to become where this process is root.
        reading: as that user it still reads what its walls leave it, whoever may (CAP_DAC_READ_SEARCH).

    Returns:
        What stays open, in words.

    Raises:
        OSError: the kernel refuses.
    """
    if os.geteuid() != 0:
        return ()
    _leave_bounding_set()
    if user is None:
        _keep_capabilities(0)
        return ("it is root still, without a capability: files of root's are its own",)
    uid, gid = user
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _keep_capabilities(1 << _READ_ALL if reading else 0)
    return ("it reads what its walls leave it, though its user may not",) if reading else ()


def may_change_user() -> bool:
    """Whether this process may become another user, and leave its groups."""
    held = ctypes.create_string_buffer(24)
    _checked(_libc.capget(_header(), held), "capget")
    (effective,) = struct.unpack_from("I", held.raw)
    return bool(effective >> _SET_UID & 1 and effective >> _SET_GID & 1) and not _groups_are_fixed()


def _groups_are_fixed() -> bool:
    try:
        with open("/proc/self/setgroups") as file:
            return file.read().strip() == "deny"
    except OSError:
        return False


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


def _keep_capabilities(kept: int) -> None:
    """These of the first 32 and no others: effective, permitted, none inherited."""
    _checked(_libc.capset(_header(), struct.pack("6I", kept, kept, 0, 0, 0, 0)), "capset")


def _header() -> bytes:
    return struct.pack("Ii", _VERSION_3, 0)


def _checked(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


_libc = ctypes.CDLL(None, use_errno=True)
