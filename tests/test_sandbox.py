"""No program gets a pass that it did not earn, reaches anything of ours, or stays (docs/sandbox.md)."""

import contextlib
import os
import platform
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from attacks import ATTACKS, EXHAUST, FORGE, GET_OUT, REACH, STAY, TEXTS, TRICKS
from sandboxed import children, close_sandboxes, needs_sandbox

from guide_rl.config import GradingConfig
from guide_rl.graders import limits, unit_tests
from guide_rl.graders.pool import GraderPool
from guide_rl.graders.sandbox import bubblewrap
from guide_rl.graders.sandbox.inside import system_calls
from guide_rl.graders.sandbox.process import Sandbox, SandboxEndedError, sealed
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.types import Problem

HONEST = "def secret(n): return n * 7919\nprint(secret(int(input()))) if __name__ == '__main__' else None"
ASSERTS = "def check(candidate):\n    assert candidate(3) == 23757\n    assert candidate(4) == 31676"
BY_CALLS = {"tests": ASSERTS, "entry_point": "secret"}
BY_OUTPUT = {"tests": [{"input": "3\n", "output": "23757\n"}, {"input": "4\n", "output": "31676\n"}]}
BOTH = pytest.mark.parametrize("tests", [BY_CALLS, BY_OUTPUT], ids=["calls", "output"])


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch):
    monkeypatch.setattr(limits, "current", limits.Limits(timeout_s=1.0, memory_mb=512))


@pytest.fixture(autouse=True, scope="module")
def _sandboxes_end():
    yield
    close_sandboxes()


def graded(code, tests=BY_CALLS, **metadata):
    problem = Problem("p", "q", "a", grader="unit_tests", metadata={**tests, **metadata})
    return unit_tests.thorough_grade(problem, f"```python\n{code}\n```")


def left_behind(here):
    """What attacks write, where they could; other programs use these folders too."""
    names = ("attacked", "left", "x", "y", "0", "d", "disk", "json.py")
    paths = [
        Path(folder, name)
        for folder in ("/", "/tmp", "/dev", "/dev/shm", os.path.dirname(os.__file__))
        for name in names
    ]
    return [path for path in paths if os.path.lexists(path)], sorted(os.listdir(here))


@needs_sandbox
@pytest.mark.e2e
@BOTH
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_wrong_leaves_nothing_and_does_not_stop_the_next_grading(name, tests, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "23757")
    assert graded(HONEST, tests).verdict == "passed"
    before, files = children(), left_behind(tmp_path)
    started = time.monotonic()
    grade = graded(ATTACKS[name], tests)
    took = time.monotonic() - started
    assert (grade.correct, grade.reward) == (False, 0.0)
    assert grade.verdict in {"wrong", "timeout", "memory", "forbidden"} or grade.verdict.startswith("error: ")
    assert took < 3.5
    assert left_behind(tmp_path) == files
    assert graded(HONEST, tests).verdict == "passed"
    assert len(children()) <= len(before)


@needs_sandbox
@pytest.mark.e2e
@BOTH
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_is_much_work_is_wrong_and_no_work_for_who_samples(name, tests):
    problem = Problem("p", "q", "a", grader="unit_tests", metadata=tests)
    assert graded(HONEST, tests).verdict == "passed"
    started = time.process_time()
    unit_tests.quick_grade(problem, TEXTS[name])
    assert time.process_time() - started < 0.05 + 5e-8 * len(TEXTS[name])
    started = time.monotonic()
    assert not unit_tests.thorough_grade(problem, TEXTS[name]).correct
    assert time.monotonic() - started < 5.0
    assert graded(HONEST, tests).verdict == "passed"


VERDICTS = {
    "exits_before_the_tests": "error: exit",
    "equals_everything": "wrong",
    "is_a_number_that_equals_everything": "wrong",
    "gives_itself": "wrong",
    "is_no_python": "error: SyntaxError",
    "connects": "forbidden",
    "reads_passwords": "error: FileNotFoundError",
    "writes_outside": "forbidden",
    "runs_a_program": "forbidden",
    "kills_its_parent": "forbidden",
    "signals_through_a_file": "forbidden",
    "syncs_the_hosts_disks": "forbidden",
    "locks_the_libraries": "forbidden",
    "maps_code_it_wrote": "forbidden",
    "calls_as_a_32_bit_program": "forbidden",
    "forks_without_end": "forbidden",
    "fills_memory": "memory",
    "fills_memory_at_once": "memory",
    "loops": "timeout",
    "sleeps_in_the_call": "timeout",
    "crashes": "error: SIGSEGV",
}


@needs_sandbox
@pytest.mark.e2e
def test_verdicts_say_what_an_answer_did(monkeypatch):
    monkeypatch.setattr(limits, "current", limits.Limits(timeout_s=3.0, memory_mb=256))
    close_sandboxes()
    assert {name: graded(ATTACKS[name].replace("raise SystemExit(1)", "")).verdict for name in VERDICTS} == VERDICTS
    assert graded("while True: print('x' * 10**6)", BY_OUTPUT).verdict == "error: too much output"
    close_sandboxes()


@needs_sandbox
def test_the_sandbox_holds_no_files_but_pythons_and_no_rights():
    code = """
import os
def secret(n):
    status = [sorted(os.listdir("/")), sorted(os.listdir("/dev")), os.listdir("/tmp"), dict(os.environ)]
    return [*status, os.getuid() == 0, os.getgroups(), os.path.exists("/etc/passwd"), os.path.exists("/proc/self")]
"""
    seen = graded(code, {**BY_CALLS, "tests": "assert secret(1) is None", "entry_point": ""})
    assert seen.verdict == "wrong"
    expected = [["null", "urandom", "zero"], [], {}, False, [], False, False]
    top = {Path(folder).parts[1] for folder in (sys.base_prefix, *bubblewrap.LIBRARIES)}
    test = (
        f"seen = secret(1)\nassert set(seen[0]) <= {top | {'dev', 'etc', 'tmp'}}\nassert seen[1][:] == {expected[0]}\n"
    )
    test += f"assert 'LC_CTYPE' in seen[3] or not seen[3]\nassert [*seen[2:3], *seen[4:]] == {[[], *expected[3:]]}"
    grade = graded(code, {"tests": test})
    assert grade.verdict == "passed"


@needs_sandbox
def test_a_sandbox_that_ends_is_started_again():
    assert graded(HONEST).correct
    for sandbox in unit_tests.sandboxes():
        sandbox._process.kill()
        sandbox._process.wait()
    assert graded(HONEST).correct


ENDS_IN_THE_MIDDLE = "import time\ntime.sleep(0.3)\n" + HONEST


def _killing(monkeypatch, which, times=1):
    """From now on, so many jobs lose their sandbox (0: for answers, 1: for tests) while they run."""
    start, victim, left = Sandbox.start, unit_tests.sandboxes()[which], [times]

    def started(self, *arguments):
        start(self, *arguments)
        if self is victim and left[0]:
            left[0] -= 1
            threading.Timer(0.1, self._process.kill).start()

    monkeypatch.setattr(Sandbox, "start", started)


@needs_sandbox
@pytest.mark.parametrize("which", [0, 1])
def test_an_answer_whose_sandbox_ends_in_the_middle_is_graded_once_more(monkeypatch, which):
    monkeypatch.setattr(limits, "current", limits.Limits(timeout_s=5.0, memory_mb=512))
    assert graded(HONEST).correct
    _killing(monkeypatch, which)
    assert graded(ENDS_IN_THE_MIDDLE).verdict == "passed"
    _killing(monkeypatch, which)
    assert graded(ENDS_IN_THE_MIDDLE.replace("7919", "7918")).verdict == "wrong"
    if which == 0:
        _killing(monkeypatch, which)
        assert graded(ENDS_IN_THE_MIDDLE, BY_OUTPUT).verdict == "passed"


@needs_sandbox
def test_an_answer_whose_sandboxes_keep_ending_is_an_error_with_a_name_and_the_next_is_graded(monkeypatch):
    monkeypatch.setattr(limits, "current", limits.Limits(timeout_s=5.0, memory_mb=512))
    assert graded(HONEST).correct
    _killing(monkeypatch, 0, times=2)
    with pytest.raises(SandboxEndedError, match="is something ending processes, or out of memory"):
        graded(ENDS_IN_THE_MIDDLE)
    assert graded(HONEST).correct
    monkeypatch.setattr(limits, "current", limits.Limits(timeout_s=0.4, memory_mb=512))
    _killing(monkeypatch, 0)
    with pytest.raises(SandboxEndedError):
        graded("import time; time.sleep(9)")  # Too late for another try: not the answer's time that is over.
    assert graded(HONEST).correct


@needs_sandbox
@pytest.mark.e2e
@pytest.mark.parametrize("victim", ["worker", "program"])
def test_a_killed_worker_or_program_leaves_no_process_behind(victim):
    code = """
import os, signal, sys, threading
from sandboxed import children
from guide_rl.graders.pool import GraderPool
from guide_rl.types import Problem
asked = Problem("p", "q", "a", grader="unit_tests", metadata={"tests": "assert f() == 1"})
with GraderPool(1, timeout_s=2.0, memory_mb=600) as pool:
    pool.check(asked)
    pool.warm_up()
    def kill():
        print(*(children() - {os.getpid()}), flush=True)
        os.kill(pool._workers[0]._process.pid if sys.argv[1] == "worker" else os.getpid(), signal.SIGKILL)
    threading.Timer(0.5, kill).start()
    grade = pool.grade_thoroughly(asked, "import time; time.sleep(60)")
    print(grade.verdict, pool.grade_thoroughly(asked, "def f(): return 1").verdict, pool.first_error, sep="|")
"""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code, victim], stdout=subprocess.PIPE, text=True, check=False, env=env)
    pids = done.stdout.splitlines()[0].split()
    assert len(pids) >= 8  # The worker, two sandboxes and the answer's process.
    if victim == "worker":
        assert done.stdout.splitlines()[1:] == [
            "crashed|passed|grader unit_tests, problem p: the worker process ended with signal 9"
        ]
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@needs_sandbox
def test_the_folders_of_past_jobs_are_gone():
    def mounts():
        found = []
        for pid in sorted(children() - {os.getpid()}):
            with contextlib.suppress(OSError):  # of a process that has just ended
                found.append(len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines()))
        return found

    assert graded(HONEST).correct
    before = mounts()
    assert before
    for _ in range(3):
        assert graded(HONEST).correct
    deadline = time.monotonic() + 10
    while mounts() != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert mounts() == before


@needs_sandbox
@pytest.mark.e2e
def test_a_sandbox_ends_with_the_process_that_started_it():
    code = """
from guide_rl.graders import unit_tests
import os
unit_tests.prepare()
print(*(sandbox._process.pid for sandbox in unit_tests.sandboxes()), flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pids = done.stdout.split()
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_without_bubblewrap_nothing_runs_and_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: None)
    monkeypatch.setattr(bubblewrap.importlib.util, "find_spec", lambda name: None)
    close_sandboxes()
    bubblewrap.check.cache_clear()
    try:
        with pytest.raises(GraderSetupError) as raised:
            graded(HONEST)
    finally:
        bubblewrap.check.cache_clear()
    for part in ("pip install 'guide-rl[code]'", "apt-get install bubblewrap", bubblewrap.WITHOUT):
        assert part in str(raised.value)


def test_another_system_is_named(monkeypatch):
    monkeypatch.setattr(bubblewrap.platform, "machine", lambda: "riscv64")
    with pytest.raises(GraderSetupError, match="x86_64 or aarch64 only, and this is Linux on riscv64"):
        bubblewrap.command()


def test_a_bubblewrap_that_cannot_start_says_why(monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name: str(broken))
    bubblewrap.check.cache_clear()
    try:
        with pytest.raises(
            GraderSetupError, match=r"No permissions to create new namespace\. It needs user namespaces"
        ):
            bubblewrap.check()
    finally:
        bubblewrap.check.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has seccomp")
@pytest.mark.e2e
def test_a_pool_refuses_to_start_without_a_sandbox_unless_told_to_do_without(monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    asked = Problem("p", "q", "a", grader="unit_tests", metadata=BY_CALLS)
    with GraderPool.of(GradingConfig(workers=1)) as pool:
        pool.check(asked)
        with pytest.raises(GraderSetupError, match="bubblewrap cannot start a sandbox here"):
            pool.warm_up()
    with GraderPool.of(GradingConfig(workers=1, run_untrusted_code_without_sandbox=True)) as pool:
        pool.check(asked)
        pool.warm_up()
        assert pool.grade_thoroughly(asked, HONEST).verdict == "passed"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has seccomp")
@pytest.mark.e2e
def test_without_a_sandbox_limits_and_forbidden_calls_remain_where_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(limits, "current", limits.Limits(timeout_s=3.0, memory_mb=256, sandboxed=False))
    monkeypatch.setattr(bubblewrap, "check", lambda: pytest.fail("it was not asked for"))
    close_sandboxes()
    assert graded(HONEST).correct
    names = ("connects", "forks_without_end", "loops", "fills_memory", "equals_everything", "kills_its_parent")
    said = [graded(ATTACKS[name]).verdict for name in names]
    assert said == ["forbidden", "forbidden", "timeout", "memory", "wrong", "forbidden"]
    close_sandboxes()


def test_what_is_sealed_cannot_be_changed():
    with sealed(b"abc") as file:
        with pytest.raises(PermissionError):
            os.write(file.fileno(), b"x")
        assert file.read() == b"abc"


@pytest.mark.parametrize("machine", system_calls.MACHINES)
def test_every_jump_of_the_filter_stays_in_it(machine):
    program = system_calls.filter_program(machine, 7)
    steps = [struct.unpack("HBBI", program[i : i + 8]) for i in range(0, len(program), 8)]
    assert len(steps) < 4096
    for at, (_, if_true, if_false, _) in enumerate(steps):
        assert at + max(if_true, if_false) + 1 < len(steps) + (at == len(steps) - 1)
    assert steps[-1] == (6, 0, 0, 0x7FFF0000)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads the numbers of x86_64")
def test_numbers_of_system_calls_are_the_kernels():
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("no kernel headers here")
    lines = (line.split() for line in header.read_text().splitlines() if line.startswith("#define __NR_"))
    numbers = {name.removeprefix("__NR_"): int(number) for _, name, number in lines}
    known = {name: pair[0] for name, pair in system_calls.FORBIDDEN.items() if name in numbers}
    assert len(known) > 70
    assert known == {name: numbers[name] for name in known}


def test_at_least_forty_attacks():
    assert len(ATTACKS) == len(FORGE) + len(GET_OUT) + len(REACH) + len(EXHAUST) + len(STAY) + len(TRICKS) >= 170
    assert len(FORGE) >= 30
    assert len(EXHAUST) >= 30
