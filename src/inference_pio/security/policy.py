"""What a locked process may not ask of the kernel, by how far its plugin is trusted."""

from __future__ import annotations

import errno
import os

from inference_pio.security.levels import SecurityLevel
from inference_pio.security.seccomp import Refusal, When

_CLONE_THREAD = 0x10000
_NEW_NAMESPACES = 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x20000
_SHARED_ANONYMOUS = 0x01 | 0x20

# Other processes' memory, the kernel itself, file systems, clocks, keys: nothing that runs a model has a use for them.
_NEVER = (
    "acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init finit_module fsconfig "
    "fsmount fsopen fspick init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp "
    "kexec_file_load kexec_load keyctl mount mount_setattr move_mount move_pages name_to_handle_at open_by_handle_at "
    "open_tree perf_event_open personality pidfd_getfd pivot_root process_madvise process_vm_readv process_vm_writev "
    "ptrace quotactl reboot request_key setns settimeofday swapoff swapon syslog umount2 unshare userfaultfd"
)
# Memory that neither a limit on data nor the resident size counts.
_UNCOUNTED = "memfd_create memfd_secret shmget shmat msgget semget mq_open"
# Of files that it may not even read: Landlock does not ask who changes rights, owners, times and labels.
_RIGHTS = (
    "chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat setxattr lsetxattr "
    "fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat"
)
# Of other processes of the same user: limits, priorities, where their memory lies.
_OTHERS = "setpriority ioprio_set sched_setscheduler sched_setparam sched_setattr migrate_pages"
_SIGNALS = "tkill pidfd_open pidfd_send_signal"
_SIGNALS_BY_PID = "kill tgkill rt_sigqueueinfo rt_tgsigqueueinfo"


def refusals(level: SecurityLevel, *, own_pid: int | None = None) -> tuple[Refusal, ...]:
    """
    Args:
        level: below MAXIMUM_TRUST, which is not locked.
        own_pid: of the process that is locked, the only one that it may signal; None: this one.
    """
    always = [
        *_all(_NEVER),
        Refusal("clone", when=(When(0, "any of", _NEW_NAMESPACES),)),
        # libc falls back to clone, whose flags a filter can read.
        Refusal("clone3", errno.ENOSYS),
        # Sockets: the one to the parent is there already, and a pair reaches nobody.
        *_all("socket connect bind listen accept accept4", errno.EACCES),
    ]
    if level is SecurityLevel.HIGH_TRUST:
        return tuple(always)
    pid = own_pid or os.getpid()
    return (
        *always,
        *_all("execve execveat fork vfork"),
        Refusal("clone", when=(When(0, "none of", _CLONE_THREAD),)),
        *_all(_UNCOUNTED),
        Refusal("mmap", when=(When(3, "all of", _SHARED_ANONYMOUS),)),
        Refusal("sched_setaffinity"),
        *_all(_RIGHTS),
        *_all(_OTHERS),
        Refusal("prlimit64", when=(When(0, "is not", 0),)),
        *_all(_SIGNALS),
        *(Refusal(call, when=(When(0, "is not", pid),)) for call in _SIGNALS_BY_PID.split()),
    )


def _all(calls: str, error: int = errno.EPERM) -> list[Refusal]:
    return [Refusal(call, error) for call in calls.split()]
