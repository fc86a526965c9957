"""The `unit_tests` grader: runs the code of an answer against the problem's tests, in sandboxes (docs/sandbox.md).

What of a text is code says `code_text`, what a problem carries `code_tests`. Whether a test passed is decided outside the
process that runs the answer: it gets plain arguments and gives plain data.
"""

import ast
import contextlib
import json
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any

from guide_rl.graders import limits
from guide_rl.graders.code_tests import arguments_of, asserts, cases_of, check, entry_point_of, source_of
from guide_rl.graders.code_text import code_of
from guide_rl.graders.sandbox.inside.roles import ERRORS
from guide_rl.graders.sandbox.process import Ending, Sandbox, SandboxEndedError, job_file, sealed
from guide_rl.types import Grade, Problem

NO_ANSWER = Grade(0.0, False, "no answer")
_SHARE_OF_TIME = 0.9
"""What the answer may take of a grading's time: the rest is for saying that it took it, so that the sandbox lives on."""
_DYING_S = 0.05
"""How long an answer's process that hung up may take to end, so that how it does is known."""
_SPARE_OUTPUT = 2**16
_LONGEST_REPORT = 2**16


@dataclass(frozen=True)
class _Result:
    """How many tests passed, of how many, and why not all."""

    passed: float
    total: int
    verdict: str


def quick_grade(problem: Problem, text: str) -> Grade | None:
    """Without code wrong, else None."""
    return None if code_of(text).strip() else NO_ANSWER


def thorough_grade(problem: Problem, text: str) -> Grade:
    """What the tests say. Where a sandbox ends in the middle, which is not the answer's doing, once more in a fresh one.

    Raises:
        GraderSetupError: no sandbox here, or tests that cannot be read.
        SandboxEndedError: sandboxes end again, or too late for a second time.
    """
    if not (code := code_of(text)).strip():
        return NO_ANSWER
    check(problem)
    until = time.monotonic() + limits.current.timeout_s * _SHARE_OF_TIME
    every = problem.metadata.get("reward", "all") == "fraction"
    code = code.encode(errors="replace").decode()
    try:
        result = _run(problem.metadata, code, every, until)
    except SandboxEndedError as ended:
        result = _run(problem.metadata, code, every, until)
        if result.verdict == "timeout":
            raise ended from None
    correct = result.passed == result.total
    return Grade(result.passed / result.total if every else float(correct), correct, result.verdict)


def prepare() -> None:
    """Start the sandboxes."""
    for sandbox in sandboxes():
        sandbox.started()


def reference(problem: Problem) -> str | None:
    """A text with the problem's own answer, or None where that is no code."""
    try:
        ast.parse(f"{problem.metadata.get('setup', '')}\n{problem.answer}")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return f"```python\n{problem.answer}\n```"


def same_output(output: str, expected: str) -> bool:
    """Whether lines are equal but for spaces around them, or hold the same numbers."""
    ours, theirs = ([line.strip() for line in text.strip().split("\n")] for text in (output, expected))
    return len(ours) == len(theirs) and all(a == b or _same_numbers(a, b) for a, b in zip(ours, theirs, strict=True))


def _same_numbers(a: str, b: str) -> bool:
    """Whether two lines are the same numbers, maybe written differently."""
    try:
        ours, theirs = ([Decimal(word) for word in line.split()] for line in (a, b))
        return len(ours) == len(theirs) and all(x == y for x, y in zip(ours, theirs, strict=True))
    except InvalidOperation:  # No numbers, or one that says it is none.
        return False


@cache
def sandboxes() -> tuple[Sandbox, Sandbox]:
    """For answers, and for tests, which hold what an answer must not see."""
    memory_mb, sandboxed = limits.current.memory_mb, limits.current.sandboxed
    return Sandbox(memory_mb, sandboxed), Sandbox(memory_mb, sandboxed)


def _run(metadata: Mapping[str, Any], code: str, every: bool, until: float) -> _Result:
    """Run all tests, or up to the first that fails."""
    setup, cases = metadata.get("setup", ""), cases_of(metadata)
    job = {"setup": setup, "entry_point": entry_point_of(metadata), "stop_at_first": not every}
    answer = {"setup": setup, "code": code}
    if source := source_of(metadata["tests"]):
        return _against_tests(answer, {**job, "tests": source}, asserts(source), until)
    calls = [arguments_of(case) for case in cases if case.get("testtype") == "functional"]
    results = []
    if calls:
        results.append(_against_tests(answer, {**job, "cases": calls}, len(calls), until))
    for case in cases:
        if case.get("testtype") == "functional":
            continue
        if results and results[-1].verdict != "passed" and not every:
            break
        results.append(_against_output(answer, case["input"], case["output"], until))
    failed = [result.verdict for result in results if result.verdict != "passed"]
    return _Result(sum(result.passed for result in results), len(cases), failed[0] if failed else "passed")


def _against_tests(answer: Mapping[str, Any], job: Mapping[str, Any], total: int, until: float) -> _Result:
    """Run tests in one sandbox against the code in the other."""
    answers, tests = sandboxes()
    with ExitStack() as opened:
        answer_end, tests_end = map(opened.enter_context, socket.socketpair())
        report, write = map(opened.enter_context, socket.socketpair())
        answer_job, test_job = (opened.enter_context(job_file(each)) for each in (answer, job))
        answers.start("answer", [answer_job, answer_end], _left(until))
        said: dict[str, Any] = {}
        try:
            tests.start("tests", [test_job, write, tests_end], _left(until))
            for end in (answer_end, tests_end, write):
                end.close()
            how_tests_ended = tests.wait()
            said = _report(report)
        finally:
            how_answer_ended = answers.stop(_DYING_S if said.get("gone") else 0.0)
    passed, failed = said.get("passed", 0.0), said.get("failed", 1)
    if how_tests_ended == Ending() and not failed and passed:
        return _Result(total, total, "passed")
    why = _why(how_answer_ended, said.get("raised")) or _why(how_tests_ended, None)
    passed = passed if passed < total else total - 1  # Something failed beside the tests.
    return _Result(passed, total, why or ("error: exit" if said.get("gone") else "wrong"))


def _against_output(answer: Mapping[str, Any], given: str, expected: str, until: float) -> _Result:
    """Run the code as a program and compare what it prints."""
    answers, _ = sandboxes()
    with ExitStack() as opened:
        job, stdin = opened.enter_context(job_file(answer)), opened.enter_context(sealed(given.encode()))
        report, write = map(opened.enter_context, socket.socketpair())
        stdout, printed = map(opened.enter_context, socket.socketpair())
        answers.start("program", [job, write, stdin, printed], _left(until))
        for end in (write, printed):
            end.close()
        output = _received(stdout, 2 * len(expected.encode()) + _SPARE_OUTPUT, until)
        how_it_ended = answers.stop() if output is None else answers.wait()
        said = _report(report)
    if output is None and not how_it_ended.late:
        return _Result(0, 1, "error: too much output" if time.monotonic() < until else "timeout")
    if why := _why(how_it_ended, said.get("raised")):
        return _Result(0, 1, why)
    right = output is not None and same_output(output.decode(errors="replace"), expected)
    return _Result(int(right), 1, "passed" if right else "wrong")


def _why(ending: Ending, raised: object) -> str:
    """Why a process failed, or nothing where it did not; what it says of itself only names the failure."""
    if ending.late or ending.signal == signal.SIGXCPU:
        return "timeout"
    if ending.signal == signal.SIGSYS or raised == "PermissionError":
        return "forbidden"
    if raised == "MemoryError" or (ending.signal == signal.SIGKILL and not ending.stopped):
        return "memory"
    if raised:
        return f"error: {raised if raised in ERRORS else 'Exception'}"
    if ending.stopped or not (ending.signal or ending.status):
        return ""
    return f"error: {signal.Signals(ending.signal).name}" if ending.signal else "error: exit"


def _received(end: socket.socket, most: int, until: float) -> bytes | None:
    """All that comes until the other end closes; None when it is too much or too late."""
    data = bytearray()
    with contextlib.suppress(TimeoutError):
        while len(data) <= most:
            end.settimeout(_left(until))
            if not (part := end.recv(2**16)):
                return bytes(data)
            data += part
    return None


def _report(end: socket.socket) -> dict[str, Any]:
    """What a process that has ended reported of itself."""
    end.setblocking(False)
    try:
        said = json.loads(end.recv(_LONGEST_REPORT))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _left(until: float) -> float:
    """Seconds until then, a few milliseconds at least."""
    return max(until - time.monotonic(), 0.005)
