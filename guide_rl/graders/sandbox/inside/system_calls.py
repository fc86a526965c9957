"""The system calls that a program in the sandbox may not make: a seccomp filter, written by hand as it is short.

No process but its own, no program but this one, no network, no mounts, no kernel interfaces that computing does not need.
A call that is forbidden ends the process with SIGSYS; one that is newer than this table fails as if it did not exist.
"""

import ctypes
import errno
import os
import platform
import struct
from functools import cache

libc = ctypes.CDLL(None, use_errno=True)
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""The machines whose system call numbers are known, with the numbers that the kernel calls them by."""
_NEWEST = 452
"""Numbers from here on do not exist for the program."""

FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "socket": (41, 198),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_setup": (206, 0),
    "io_submit": (209, 2),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "personality": (135, 92),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "sync": (162, 81),
    "syncfs": (306, 267),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "setpriority": (141, 140),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "seccomp": (317, 277),
    "landlock_create_ruleset": (444, 444),
}
"""Numbers on x86_64 and aarch64."""
_CLONE, _CLONE3, _KILL, _TKILL, _TGKILL, _PRLIMIT = (56, 220), (435, 435), (62, 129), (200, 130), (234, 131), (302, 261)
_FCNTL, _IOCTL, _SETPGID = (72, 25), (16, 29), (109, 154)
_CLONE_THREAD = 0x10000
_REACHING = (8, 10, 15, 1024)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX send signals to other processes, F_SETLEASE holds up whoever opens a file."""
_TERMINALS = (0x5412, 0x541C, 0x8901, 0x8902)
"""TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP."""

_ALLOW, _KILLED, _FAILS = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16


def filter_program(machine: str, pid: int) -> bytes:
    """The filter for a process as instructions for the kernel.

    Args:
        machine: as `platform.machine()` names it; KeyError where its numbers are not known.
        pid: the process, as it sees itself: it may send signals to itself only.
    """
    which = list(MACHINES).index(machine)
    code = [
        _step(_LOAD, _MACHINE_AT),
        _step(_EQUAL, MACHINES[machine], 1, 0),
        _step(_RETURN, _KILLED),
        _step(_LOAD, _NUMBER_AT),
        _step(_AT_LEAST, _NEWEST, 0, 1),
        _step(_RETURN, _FAILS | errno.ENOSYS),
        _step(_EQUAL, _CLONE3[which], 0, 1),
        _step(_RETURN, _FAILS | errno.ENOSYS),  # libc then uses clone, whose flags a filter can see.
        *_checked(_CLONE[which], 0, _ANY_BIT, (_CLONE_THREAD,), allowed=True),
        *_checked(_KILL[which], 0, _EQUAL, (pid,), allowed=True),
        *_checked(_TGKILL[which], 0, _EQUAL, (pid,), allowed=True),
        *_checked(_TKILL[which], 0, _EQUAL, (pid,), allowed=True),
        *_checked(_PRLIMIT[which], 0, _EQUAL, (0, pid), allowed=True),
        *_checked(_SETPGID[which], 0, _EQUAL, (0, pid), allowed=True),
        *_checked(_FCNTL[which], 1, _EQUAL, _REACHING, allowed=False),
        *_checked(_IOCTL[which], 1, _EQUAL, _TERMINALS, allowed=False),
    ]
    return b"".join(code) + never(which)


@cache
def never(which: int) -> bytes:
    """The end of the filter: what nobody may call, and that all else is allowed."""
    numbers = [pair[which] for pair in FORBIDDEN.values()]
    code = [_step(_EQUAL, number, 0, 1) + _step(_RETURN, _KILLED) for number in numbers if number is not None]
    return b"".join(code) + _step(_RETURN, _ALLOW)


def forbid() -> None:
    """Put this process under the filter, for good.

    Raises:
        OSError: the kernel has no seccomp filters.
        KeyError: a machine whose system calls are not known.
    """
    program = filter_program(platform.machine(), os.getpid())
    code = ctypes.create_string_buffer(program, len(program))
    descriptor = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_char_p(descriptor), 0, 0):
        raise OSError(ctypes.get_errno(), "no seccomp filter")


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction."""
    return struct.pack("HBBI", operation, if_true, if_false, value)


def _checked(number: int, argument: int, test: int, values: tuple[int, ...], allowed: bool) -> list[bytes]:
    """For one system call, an argument decides: one of the values is allowed, all others not, or the reverse."""
    on_match, otherwise = (_ALLOW, _KILLED) if allowed else (_KILLED, _ALLOW)
    tests = [_step(test, value, len(values) - i, 0) for i, value in enumerate(values)]
    body = [_step(_LOAD, _ARGUMENTS_AT + 8 * argument), *tests, _step(_RETURN, otherwise), _step(_RETURN, on_match)]
    return [_step(_EQUAL, number, 0, len(body)), *body]
