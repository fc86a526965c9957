"""What a process gives up before it runs a program that nobody trusts."""

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
from collections.abc import Mapping

from guide_rl.graders.sandbox.inside.system_calls import forbid, libc

FOLDER_MB = 16
"""What /tmp holds, and the longest file."""
_FILES, _OPEN_FILES, _THREADS = 1024, 64, 64
_NEW_MOUNTS, _NO_SETUID_NO_DEVICES_NO_PROGRAMS = 0x20000, 2 | 4 | 8
_CAPSET = {"x86_64": 126, "aarch64": 91}
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


def confine(limits: Mapping[str, int]) -> None:
    """Give this process an empty /tmp of its own and hard limits, and take from it all rights and most system calls.

    Args:
        limits: `memory_mb` of address space, `cpu_s`; `user` (0: stay the user that we are); `isolated` (0: there is
            no bubblewrap around us, so that mounts cannot be made).

    Raises:
        OSError: something of this is not possible here.
    """
    user = limits["user"]
    if limits["isolated"]:
        _require(libc.unshare(_NEW_MOUNTS), "unshare")
        options = f"size={FOLDER_MB}m,nr_inodes={_FILES},mode=0700" + f",uid={user},gid={user}" * bool(user)
        _require(
            libc.mount(b"tmpfs", b"/tmp", b"tmpfs", _NO_SETUID_NO_DEVICES_NO_PROGRAMS, options.encode()), "mount /tmp"
        )
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    os.chdir("/tmp" if limits["isolated"] else "/")
    _require(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    header, nothing = struct.pack("Ii", 0x20080522, 0), bytes(24)
    _require(libc.syscall(_CAPSET[platform.machine()], header, nothing), "capset")
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.umask(0o077)
    for name, amount in (
        ("AS", limits["memory_mb"] * 2**20),
        ("CPU", limits["cpu_s"]),
        ("FSIZE", FOLDER_MB * 2**20),
        ("NOFILE", _OPEN_FILES),
        ("NPROC", _THREADS),
        ("CORE", 0),
        ("MEMLOCK", 0),
        ("MSGQUEUE", 0),
        ("SIGPENDING", _THREADS),
    ):
        with contextlib.suppress(AttributeError):
            _lower(getattr(resource, f"RLIMIT_{name}"), amount)
    forbid()


def _lower(what: int, amount: int) -> None:
    """Lower a limit, as far as it is not lower already."""
    _, hard = resource.getrlimit(what)
    amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
    resource.setrlimit(what, (amount, amount))


def _require(failed: int, what: str) -> None:
    """Raise the system's error."""
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
