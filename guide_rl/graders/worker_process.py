"""One grading worker as its parent sees it: a process that is started late, killed on time, and started again.

Not multiprocessing's own processes: those import the caller's main module again, which may be a training script, with
torch in it. Not pebble's pool: it starts such processes, its clock runs while a task imports its grader, and a worker
that exits with status 0 is noticed at the time limit only.
"""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from multiprocessing.connection import Connection, Pipe
from typing import Any

from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.graders.worker import OUT_OF_MEMORY
from guide_rl.types import Grade, Problem

START_S = 120.0
"""How long a worker may take to import what a grader needs; not part of any grading's time."""

TIMEOUT = Grade(0.0, False, "timeout")
MEMORY = Grade(0.0, False, "memory")
CRASHED = Grade(0.0, False, "crashed")

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from guide_rl.graders.worker import main; "
    "main(int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == 'True')"
)
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_LONGEST_REPLY = 2**16
_LONGEST_ERROR = 3000


class WorkerProcess:
    """A worker with hard limits; used by one thread at a time, stopped by any.

    Args:
        timeout_s: seconds that one grading may take.
        memory_mb: MiB of address space that the process may have.
        sandboxed: whether it may run model-written code in a sandbox only.
    """

    def __init__(self, timeout_s: float, memory_mb: int, sandboxed: bool = True) -> None:
        self.timeout_s, self.memory_mb, self.sandboxed = timeout_s, memory_mb, sandboxed
        self.error: str | None = None
        """How a grading failed last, if one did: grader, problem and traceback, or how the process ended."""
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._loaded: set[str] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def grade(self, problem: Problem, text: str) -> Grade:
        """Grade one text; wrong when it outlasts the limits or ends the worker.

        Raises:
            GraderSetupError: the grader cannot be loaded in a worker.
            RuntimeError: workers do not start, or the pool is closed.
        """
        self.load(problem.grader)
        try:
            reply = self._ask("grade", problem, text, limit_s=self.timeout_s)
            if "setup_error" not in reply:
                self._note_error(problem, reply.get("error"))
                return Grade(reply["reward"], reply["correct"], reply["verdict"])
        except GraderSetupError:
            raise
        except TimeoutError:
            self.close()
            return TIMEOUT
        except (EOFError, OSError, ValueError, KeyError):
            return self._verdict_of_death(problem)
        raise GraderSetupError(f"problem {problem.id!r}: {reply['setup_error']}")

    def load(self, name: str) -> None:
        """Start the process where none runs, and have it import what the grader needs; raises as `grade` does."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        if name in self._loaded:
            return
        try:
            reply = self._ask("load", name, limit_s=START_S)
        except (TimeoutError, EOFError, OSError) as error:
            self.close()
            raise RuntimeError(
                f"a grading worker ended or hung while it loaded grader {name!r} ({type(error).__name__}); "
                f"if it ran out of memory, raise grading.memory_mb ({self.memory_mb})"
            ) from None
        if "setup_error" in reply:
            raise GraderSetupError(f"grader {name!r}: {reply['setup_error']}")
        self._loaded.add(name)

    def stop(self) -> None:
        """Kill the process at once, from any thread, and start none again; the thread that waits for it sees it end."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                _kill_session(self._process)

    def close(self) -> None:
        """End the process and its children, if there are any, and forget it; the next request starts another."""
        with self._lock:
            process, self._process = self._process, None
            pipe, self._pipe = self._pipe, None
        self._loaded.clear()
        if process is not None and pipe is not None:
            _kill_session(process)
            process.wait()
            pipe.close()

    def _start(self) -> None:
        """Start the process, in a session of its own: Ctrl-C does not reach it, and killing it kills its children."""
        self.close()
        with self._lock:
            if self._stopped:
                raise RuntimeError("the grader pool is closed")
            self._pipe, theirs = Pipe()
            path = json.dumps([os.path.abspath(entry) for entry in sys.path])
            arguments = [path, str(theirs.fileno()), str(self.timeout_s), str(self.memory_mb), str(self.sandboxed)]
            self._process = subprocess.Popen(
                [sys.executable, "-Wignore", "-c", _START, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=2,  # What a grader prints must not mix with this program's output.
                pass_fds=(theirs.fileno(),),
                env=os.environ | _ONE_THREAD | {"PYTHONHASHSEED": "0"},  # sympy's order of terms depends on hashes.
                start_new_session=True,
            )
            theirs.close()

    def _ask(self, *request: Any, limit_s: float) -> dict[str, Any]:
        """Send a request and wait for its reply; TimeoutError, EOFError, OSError or ValueError when none comes."""
        assert self._pipe is not None
        try:
            message = pickle.dumps(request)
        except Exception as error:
            raise GraderSetupError(
                f"a problem's metadata cannot be sent to a worker process: {error}; keep plain values in it"
            ) from error
        self._pipe.send_bytes(message)
        if not self._pipe.poll(limit_s):
            raise TimeoutError
        reply = json.loads(self._pipe.recv_bytes(_LONGEST_REPLY))
        if not isinstance(reply, dict):
            raise ValueError("a worker replies with an object")
        return reply

    def _note_error(self, problem: Problem, what: object) -> None:
        """Keep what a worker said of a failure; its text may be the model's, so nothing in it may steer a terminal."""
        if what:
            text = f"grader {problem.grader}, problem {problem.id}: {what}"
            self.error = "".join(_printable(character) for character in text)[:_LONGEST_ERROR]

    def _verdict_of_death(self, problem: Problem) -> Grade:
        """Why the worker ended."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1.0)
        verdicts = {OUT_OF_MEMORY: MEMORY, -signal.SIGALRM: TIMEOUT}
        code = self._process.returncode
        grade = verdicts.get(code, CRASHED)
        if grade is CRASHED:
            how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
            self._note_error(problem, f"the worker process ended with {how}")
        self.close()
        if self._stopped:
            raise RuntimeError("the grader pool was closed while it graded")
        return grade


def _printable(character: str) -> str:
    """The character, escaped where it is a control character (but a line feed), invisible or no character at all."""
    return character if character.isprintable() or character == "\n" else character.encode("unicode_escape").decode()


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
