"""What runs in a grading worker: one request at a time, inside hard limits.

Started by `worker_process` with one end of a pipe. Requests are pickles from the parent, replies JSON: what a worker
says is data, even from one that model text has taken over.
"""

import json
import os
import pickle
import resource
import signal
import traceback
from multiprocessing.connection import Connection
from typing import Any

from guide_rl.graders import GRADERS, limits, thorough_grader
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.types import Grade, Problem

OUT_OF_MEMORY = 76
"""Exit status of a worker that ran out of memory: a fresh one starts with all of it again."""
_FRAMES, _LONGEST_MESSAGE = 8, 300
"""What is told of a grading that failed: the last calls, and characters of the error."""
_ORPHAN_S = 1.0
"""What a grading may take beyond its time before the worker ends itself, should its parent be gone."""


def main(fd: int, timeout_s: float, memory_mb: int, sandboxed: bool) -> None:
    """Answer requests until the other end closes: ("load", name) and ("grade", problem, text)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limits.current = limits.Limits(timeout_s, memory_mb, sandboxed)
    _limit(resource.RLIMIT_AS, memory_mb * 2**20)
    _limit(resource.RLIMIT_CORE, 0)
    os.set_inheritable(fd, False)
    with Connection(fd) as pipe:
        while True:
            try:
                request = pipe.recv_bytes()
            except EOFError:
                return
            pipe.send_bytes(json.dumps(_answer(request, timeout_s)).encode())


def _answer(request: bytes, timeout_s: float) -> dict[str, Any]:
    """The reply to one request."""
    try:
        match pickle.loads(request):
            case ("load", name):
                return _load(name)
            case (_, problem, text):
                return _grade(problem, text, timeout_s)
    except GraderSetupError as error:
        return {"setup_error": str(error)}
    except Exception as error:
        return {"setup_error": f"cannot read the problem's metadata ({type(error).__name__}: {error})"}
    raise AssertionError("no such request")


def _limit(what: int, amount: int) -> None:
    """Lower a limit, as far as the system's own is not lower already."""
    _, hard = resource.getrlimit(what)
    amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
    resource.setrlimit(what, (amount, amount))


def _load(name: str) -> dict[str, Any]:
    """Do all that a grader does once, so that the time this takes is no grading's."""
    try:
        thorough_grader(name)
        if name in GRADERS:
            GRADERS[name].prepare()
    except GraderSetupError:
        raise
    except Exception as error:
        return {
            "setup_error": f"cannot be loaded in a worker process: {type(error).__name__}: {error}; "
            f"if memory ran out, raise grading.memory_mb ({limits.current.memory_mb})"
        }
    return {}


def _grade(problem: Problem, text: str, timeout_s: float) -> dict[str, Any]:
    """Grade one text; every exception but GraderSetupError is wrong, and described."""
    description = ""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, timeout_s + _ORPHAN_S)
    try:
        grade = thorough_grader(problem.grader)(problem, text)
    except GraderSetupError:
        raise
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except BaseException as error:  # SystemExit too: a grader may call sys.exit.
        grade = Grade(0.0, False, f"error: {type(error).__name__}")
        description = _description(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {"reward": grade.reward, "correct": grade.correct, "verdict": grade.verdict, "error": description}


def _description(error: BaseException) -> str:
    """The end of the traceback without our own frames, and the error on one line."""
    ours = os.path.dirname(__file__)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if os.path.dirname(frame.filename) != ours]
    message = traceback.format_exception_only(error)[-1].strip()[:_LONGEST_MESSAGE].replace("\n", "\\n")
    return "\n" + "".join(traceback.format_list(frames[-_FRAMES:])) + message
