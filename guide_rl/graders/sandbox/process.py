"""A sandbox as the process that grades sees it: one job at a time, each in a fresh process, started again when it ends."""

import contextlib
import fcntl
import io
import json
import os
import select
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from guide_rl.graders.sandbox import bubblewrap, inside
from guide_rl.graders.setup_error import GraderSetupError


class HasFileno(Protocol):
    """An open file or socket."""

    def fileno(self) -> int:
        """Its number."""
        ...


START_S = 30.0
"""What a sandbox may take to start."""
_GRACE_S = 2.0
"""How much later than promised a sandbox may say how a job ended."""
_PACKAGE = inside.__name__
_PARTS = ("plain_data", "system_calls", "confinement", "roles", "server")
_START = """
import sys, types
fd, names, texts = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]
for name, text in zip(names, texts):
    module = sys.modules[name] = types.ModuleType(name)
    package, _, last = name.rpartition(".")
    if package:
        setattr(sys.modules[package], last, module)
    exec(compile(text, f"<{name}>", "exec"), vars(module))
del sys.argv[1:]
sys.modules[names[-1]].serve(fd)
"""


@dataclass(frozen=True)
class Ending:
    """How a job's process ended."""

    status: int = 0
    """Its exit status."""
    signal: int = 0
    """The signal that ended it, or 0."""
    late: bool = False
    """It took all of its time."""
    stopped: bool = False
    """It still ran when nobody needed it any more."""


class SandboxEndedError(RuntimeError):
    """A sandbox ended in the middle of a job, which nothing that runs in it can make it do, but a lack of memory can."""

    def __init__(self) -> None:
        super().__init__("a sandbox ended while it ran an answer: is something ending processes, or out of memory?")


class Sandbox:
    """A sandbox; starts with the first job, and again after it was closed.

    Args:
        memory_mb: MiB of address space of a job's process.
        sandboxed: whether bubblewrap is around it; without, limits and forbidden system calls remain.
    """

    def __init__(self, memory_mb: int, sandboxed: bool = True) -> None:
        self.memory_mb, self.sandboxed = memory_mb, sandboxed
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._wall_s = 0.0

    def start(self, role: str, files: Sequence[HasFileno], wall_s: float) -> None:
        """Start a job; its files are those of the role (`inside.roles`), and stay open here.

        Raises:
            GraderSetupError: no sandbox starts here.
        """
        limits = {
            "memory_mb": self.memory_mb,
            "cpu_s": int(wall_s) + 2,
            "user": bubblewrap.user() if self.sandboxed else 0,
            "isolated": int(self.sandboxed),
        }
        message = json.dumps({"role": role, "wall_s": wall_s, "limits": limits}).encode()
        self._wall_s = wall_s
        numbers = [file.fileno() for file in files]
        try:
            socket.send_fds(self.started(), [message], numbers)
        except OSError:
            self.close()
            socket.send_fds(self.started(), [message], numbers)

    def stop(self, grace_s: float = 0.0) -> Ending:
        """End the job, if it has not ended by itself after so many seconds, and say how it did; raises as `wait`."""
        assert self._control is not None
        select.select([self._control], [], [], grace_s)
        with contextlib.suppress(OSError):
            self._control.send(b"stop")
        return self._ending(_GRACE_S)

    def wait(self) -> Ending:
        """Wait for the job's end.

        Raises:
            SandboxEndedError: the sandbox ended first.
        """
        return self._ending(self._wall_s + _GRACE_S)

    def close(self) -> None:
        """End the sandbox and everything in it."""
        if self._process is not None and self._control is not None:
            self._control.close()
            self._process.kill()
            self._process.wait()
        self._process = self._control = None

    def started(self) -> socket.socket:
        """The other end's socket, of a sandbox that is started where none is; raises as `start`."""
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._control is None:
            self._control = self._begin()
        return self._control

    def _begin(self) -> socket.socket:
        """Start the sandbox and wait until it is ready."""
        if self.sandboxed:
            bubblewrap.check()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        names, texts = _sources()
        python = [bubblewrap.python(), "-I", "-S", "-X", "utf8", "-c", _START, str(theirs.fileno()), names, *texts]
        with tempfile.TemporaryFile() as said:
            self._process = subprocess.Popen(
                [*(bubblewrap.command() if self.sandboxed else ()), *python],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                pass_fds=(theirs.fileno(),),
                cwd="/",
                env={"PYTHONHASHSEED": "0"},
            )
            theirs.close()
            ready, _, _ = select.select([ours], [], [], START_S)
            if not ready or not ours.recv(64):
                ours.close()
                self._process.kill()
                self._process.wait()
                said.seek(0)
                lines = said.read().decode(errors="replace").strip().splitlines()
                raise GraderSetupError(
                    f"a sandbox for model-written code does not start: {(lines or ['no reply'])[-1]}"
                )
        return ours

    def _ending(self, limit_s: float) -> Ending:
        """What the other end says, within the time; else all of it ends."""
        assert self._control is not None
        ready, _, _ = select.select([self._control], [], [], limit_s)
        if not ready:
            self.close()
            return Ending(late=True)
        try:
            said = json.loads(self._control.recv(4096))
        except (OSError, ValueError):
            self.close()
            raise SandboxEndedError from None
        if "failed" in said:
            self.close()
            raise GraderSetupError(
                f"a process in the sandbox cannot give up its rights, and ran nothing: {said['failed']}"
            )
        return Ending(said["status"], said["signal"], said["late"], said["stopped"])


def sealed(data: bytes) -> io.FileIO:
    """A file in memory that holds the data, which nobody can change."""
    file = io.FileIO(os.memfd_create("job", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "r+")
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    file.seek(0)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
    return file


def job_file(job: Mapping[str, Any]) -> io.FileIO:
    """A sealed file that holds a job."""
    return sealed(json.dumps(job).encode())


@cache
def _sources() -> tuple[str, list[str]]:
    """What runs inside: names of modules, parents first, and their texts."""
    folder, parts = Path(inside.__file__).parent, _PACKAGE.split(".")
    parents = [".".join(parts[: i + 1]) for i in range(len(parts))]
    names = [*parents, *(f"{_PACKAGE}.{part}" for part in _PARTS)]
    texts = [""] * len(parents) + [(folder / f"{part}.py").read_text(encoding="utf-8") for part in _PARTS]
    return ",".join(names), texts
