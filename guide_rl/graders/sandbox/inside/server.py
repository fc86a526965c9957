"""The first process in a sandbox: forks a fresh one for every job, kills it on time and says how it ended.

It never reads a job: what is in it, and what the child says, goes through files that the job brings along. So nothing of
one job is in the memory of the next.
"""

import builtins
import contextlib
import gc
import json
import os
import platform
import select
import signal
import socket
import sys
import time
from typing import Any

from guide_rl.graders.sandbox.inside import roles
from guide_rl.graders.sandbox.inside.confinement import confine
from guide_rl.graders.sandbox.inside.system_calls import filter_program

MODULES = (
    "abc array ast base64 bisect calendar cmath collections contextlib copy dataclasses datetime decimal enum fractions "
    "functools hashlib heapq inspect io itertools json math numbers operator queue random re statistics string "
    "struct textwrap threading time traceback types typing"
)
"""Imported beforehand: nothing that a usual program imports takes time in the child."""
LONGEST_MESSAGE, MOST_FILES = 4096, 8
_ASIDE = 40
"""File numbers from here on are free in a child."""


def serve(fd: int) -> None:
    """Answer requests until the other end closes: {role, wall_s, limits}, and the job's files."""
    for name in MODULES.split():
        __import__(name)
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # As site has it, which takes long to import.
    filter_program(platform.machine(), 0)
    roles.rehearse()
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=fd)
    control.send(b"{}")
    while True:
        message, files, _, _ = socket.recv_fds(control, LONGEST_MESSAGE, MOST_FILES)
        if not message:
            return
        if message == b"stop":  # The child that was meant has ended before.
            continue
        request = json.loads(message)
        pid = os.fork()
        if pid == 0:
            _run(control, request, files)
        for file in files:
            os.close(file)
        control.send(json.dumps(_wait(pid, control, request["wall_s"])).encode())


def _run(control: socket.socket, request: dict[str, Any], files: list[int]) -> None:
    """Be the child."""
    status = 1
    try:
        try:
            confine(request["limits"])
        except OSError as error:
            control.send(json.dumps({"failed": str(error)}).encode())
            raise
        files = _arrange(files)  # The other end is out of reach from here on.
        roles.ROLES[request["role"]](*files)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        pass
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(status & 0xFF)


def _arrange(files: list[int]) -> list[int]:
    """Close everything but the job's files, which become 3, 4, ...; standard input and output become nothing."""
    for position, file in enumerate(files):
        os.dup2(file, _ASIDE + position)
    nothing = os.open(os.devnull, os.O_RDWR)
    for position in range(3):
        os.dup2(nothing, position)
    for position in range(len(files)):
        os.dup2(_ASIDE + position, 3 + position, inheritable=False)
    os.closerange(3 + len(files), 4096)
    return list(range(3, 3 + len(files)))


def _wait(pid: int, control: socket.socket, wall_s: float) -> dict[str, Any]:
    """How the child ended: by itself, on time, or when the other end said so or is gone."""
    started, late = time.monotonic(), False
    ended = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([ended, control], [], [], wall_s)  # type: ignore[type-var]
        late = not ready
        if ended not in ready:
            os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
    finally:
        os.close(ended)
    code = os.waitstatus_to_exitcode(status)
    return {
        "status": max(code, 0),
        "signal": max(-code, 0),
        "late": late,
        "stopped": control in ready,
        "wall_s": time.monotonic() - started,
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }
