"""Which user a locked process becomes where this one is root: never root, and one that can read what it needs."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from inference_pio.errors import UsageError
from inference_pio.security import landlock
from inference_pio.security.identity import may_change_user

USER_VARIABLE = "INFERENCE_PIO_WORKER_USER"
_NOBODY = 65534

User = tuple[int, int]


def worker_user(environ: Mapping[str, str] = os.environ) -> User | None:
    """(uid, gid): what the operator says, else nobody's. None: this process is not root, or may not change its user.

    Raises:
        UsageError: the operator says what is no user, root, or one that there is not in this namespace.
    """
    asked = environ.get(USER_VARIABLE)
    if os.geteuid() != 0:
        return None
    user = _nobody() if asked is None else _named(asked)
    if may_change_user() and _is_mapped("uid_map", user[0]) and _is_mapped("gid_map", user[1]):
        return user
    if asked is not None:
        raise UsageError(f"{USER_VARIABLE}={asked}: this process may not become that user")
    return None


def reads_all(user: User, paths: Iterable[str | Path]) -> bool:
    """Whether that user can read these files and folders, as far as they are there."""
    return all(_reads(user, Path(path)) for path in paths if os.path.exists(path))


def user_and_reading(user: User | None, paths: Iterable[str | Path]) -> tuple[User | None, bool]:
    """(who a process becomes, whether it has to keep reading what this one can): without Landlock, which bounds what
    that is, it stays root without privileges instead.
    """
    if user is None or reads_all(user, paths):
        return user, False
    return (user, True) if landlock.version() else (None, False)


def _named(asked: str) -> User:
    uid, colon, gid = asked.partition(":")
    try:
        if not uid.isdecimal():
            found = pwd.getpwnam(asked)
            user = found.pw_uid, found.pw_gid
        else:
            user = int(uid), int(gid) if colon else int(uid)
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"{USER_VARIABLE} must be a user's name, UID or UID:GID, got {asked!r:.60}"
        ) from error
    if 0 in user or max(user) >= 2**32 - 1:
        raise UsageError(f"{USER_VARIABLE}={asked!r:.60}: a worker runs as another user and group than root")
    return user


def _nobody() -> User:
    try:
        found = pwd.getpwnam("nobody")
    except KeyError:
        return _NOBODY, _NOBODY
    return (found.pw_uid, found.pw_gid) if found.pw_uid and found.pw_gid else (_NOBODY, _NOBODY)


def _is_mapped(table: str, number: int) -> bool:
    """Whether this namespace has a user or group of that number."""
    lines = Path(f"/proc/self/{table}").read_text().splitlines()
    ranges = [tuple(map(int, line.split())) for line in lines]
    return any(first <= number < first + count for first, _, count in ranges)


def _reads(user: User, path: Path) -> bool:
    real = path.resolve()
    if not _has(user, real, stat.S_IROTH | (stat.S_IXOTH if real.is_dir() else 0)):
        return False
    return all(_has(user, above, stat.S_IXOTH) for above in real.parents)


def _has(user: User, path: Path, rights: int) -> bool:
    """`rights` are bits of what others may."""
    found = path.stat()
    shift = 6 if found.st_uid == user[0] else 3 if found.st_gid == user[1] else 0
    return found.st_mode >> shift & rights == rights
