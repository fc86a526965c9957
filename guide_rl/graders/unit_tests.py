"""The `unit_tests` grader: runs the code of an answer against the problem's tests, in sandboxes (docs/sandbox.md).

The code is the last fenced block of the text, to its end where the fence is never closed, or without a fence the whole
text. The problem's metadata holds `tests`, one of

- Python source, or a list of such texts, with `assert`s that call the answer's functions by name, or define
  `check(candidate)`, which is called with `entry_point` (`add`, `Solution().add`);
- a list of {input, output, testtype}: for `stdin` what the program reads and must print, for `functional` arguments, a
  JSON value a line, and the JSON value that `Solution().NAME` must give, where `call` is {func_name: NAME};

and may hold `setup` (source that runs before the code and before the tests), `public_tests` (more of such a list), and
`reward`: `all` (default: 1 when every test passes, else 0) or `fraction` (the share of tests that pass). Correct means
that every test passed.

Whether a test passed is decided outside the process that runs the answer: it gets plain arguments and gives plain data.
"""

import ast
import contextlib
import json
import re
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from typing import Any

from guide_rl.graders import limits
from guide_rl.graders.sandbox.inside.roles import ERRORS, bound_names, foreign_names
from guide_rl.graders.sandbox.process import Ending, Sandbox, SandboxEndedError, job_file, sealed
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.types import Grade, Problem

NO_ANSWER = Grade(0.0, False, "no answer")
REWARDS = ("all", "fraction")
_SHARE_OF_TIME = 0.9
"""What the answer may take of a grading's time: the rest is for saying that it took it, so that the sandbox lives on."""
_FENCE = re.compile(r"^([ \t]*)(`{3,}+|~{3,}+)([^`\n]*+)$\n?", re.MULTILINE)
"""A line that begins or ends a block: its indentation, its mark, what it says of the block."""
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


def check(problem: Problem) -> None:
    """Raise GraderSetupError unless the metadata holds tests that can decide something."""
    metadata = problem.metadata
    tests = metadata.get("tests")
    if metadata.get("reward", "all") not in REWARDS:
        raise GraderSetupError(f"metadata.reward {metadata['reward']!r} is none of {', '.join(REWARDS)}")
    for name in ("setup", "entry_point"):
        if not isinstance(metadata.get(name, ""), str):
            raise GraderSetupError(f"metadata.{name} is no text")
    if source := _source(tests):
        if not _asserts(source):
            raise GraderSetupError("metadata.tests is no Python with an assert outside of try, so it decides nothing")
        if not _entry_point(metadata) and not _asks(source, metadata.get("setup", "")):
            raise GraderSetupError(
                "metadata.tests use no name that only the answer can define, so they would pass any answer; say in "
                "metadata.entry_point what they test"
            )
        return
    cases = [*_listed(tests), *_listed(metadata.get("public_tests"))]
    if not cases:
        raise GraderSetupError(
            "grader unit_tests needs metadata.tests: Python source with asserts, or a list of {input, output}"
        )
    for case in cases:
        if not isinstance(case, Mapping) or not all(isinstance(case.get(key), str) for key in ("input", "output")):
            raise GraderSetupError("a test in metadata.tests has no texts input and output")
        if case.get("testtype", "stdin") not in ("stdin", "functional"):
            raise GraderSetupError(f"testtype {case['testtype']!r} of a test is neither stdin nor functional")
        if case.get("testtype") == "functional" and not _entry_point(metadata):
            raise GraderSetupError("functional tests need metadata.call with func_name, or metadata.entry_point")


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


def code_of(text: str) -> str:
    """The code in a text, as far to the left as its fence: see the module's first lines."""
    indent, fence, begun, ended = "", "", 0, len(text)
    for mark in _FENCE.finditer(text):
        says = mark[3].strip()
        if fence and mark[2].startswith(fence) and not says:
            fence, ended = "", mark.start()
        elif not fence or says:  # A block that says its language begins anew, whatever was left open.
            indent, fence, begun, ended = mark[1], mark[2], mark.end(), len(text)
    code = text[begun:ended]
    return re.sub(rf"^[ \t]{{1,{len(indent)}}}", "", code, flags=re.MULTILINE) if indent else code


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
    setup, entry_point = metadata.get("setup", ""), _entry_point(metadata)
    job = {"setup": setup, "entry_point": entry_point, "stop_at_first": not every}
    answer = {"setup": setup, "code": code}
    if source := _source(metadata["tests"]):
        return _against_tests(answer, {**job, "tests": source}, _asserts(source), until)
    cases = [*_listed(metadata.get("public_tests")), *_listed(metadata["tests"])]
    calls = [_call(case) for case in cases if case.get("testtype") == "functional"]
    results = []
    if calls:
        results.append(_against_tests(answer, {**job, "cases": calls}, len(calls), until))
    program = f"{setup}\n{code}" if setup else code
    for case in cases:
        if case.get("testtype") == "functional":
            continue
        if results and results[-1].verdict != "passed" and not every:
            break
        results.append(_against_output(program, case["input"], case["output"], until))
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


def _against_output(code: str, given: str, expected: str, until: float) -> _Result:
    """Run the code as a program and compare what it prints."""
    answers, _ = sandboxes()
    with ExitStack() as opened:
        job, stdin = opened.enter_context(job_file({"code": code})), opened.enter_context(sealed(given.encode()))
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


def _call(case: Mapping[str, Any]) -> dict[str, Any]:
    """A functional test as arguments and what the call must give."""
    try:
        arguments = [json.loads(line) for line in case["input"].split("\n") if line.strip()]
        return {"arguments": arguments, "expected": json.loads(case["output"])}
    except ValueError as error:
        raise GraderSetupError(f"a functional test in metadata.tests is no JSON, a value a line: {error}") from error


def _entry_point(metadata: Mapping[str, Any]) -> str:
    """What tests call."""
    call = metadata.get("call")
    name = call.get("func_name", "") if isinstance(call, Mapping) else ""
    return str(metadata.get("entry_point") or (f"Solution().{name}" if name else ""))


def _source(tests: object) -> str:
    """Tests in Python, or nothing where they are cases."""
    if isinstance(tests, str):
        return tests
    texts = isinstance(tests, Sequence) and all(isinstance(test, str) for test in tests)
    return "\n".join(tests) if texts else ""  # type: ignore[arg-type]


def _listed(cases: object) -> Sequence[Any]:
    """Cases, or none where there is no list."""
    return cases if isinstance(cases, Sequence) and not isinstance(cases, str) else ()


@lru_cache(maxsize=4096)
def _asserts(source: str) -> int:
    """How many asserts of tests in Python nothing can catch; 0 where it is no Python."""
    try:
        waiting: list[ast.AST] = [ast.parse(source)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0
    count = 0
    while waiting:
        node = waiting.pop()
        count += isinstance(node, ast.Assert)
        waiting += [] if isinstance(node, ast.Try) else ast.iter_child_nodes(node)
    return count


@lru_cache(maxsize=4096)
def _asks(source: str, setup: str) -> bool:
    """Whether tests in Python use a name that neither they nor the setup nor Python defines."""
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        return bool(foreign_names(ast.parse(source)) - bound_names(ast.parse(setup)))
    return True
