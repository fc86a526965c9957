r"""The grader pool keeps its limits, whatever the text or the user's grader does, and goes on afterwards."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.progress import Progress

from guide_rl.config import GradingConfig
from guide_rl.graders import check, resolve
from guide_rl.graders.pool import GraderPool, check_answers
from guide_rl.graders.setup_error import GraderSetupError
from guide_rl.graders.user_function import as_grade
from guide_rl.problems.preparation import unreadable_answers
from guide_rl.types import Finish, Grade, Problem, Rollout

LIMIT_S = 1.0

USER_GRADERS = """
import os, signal, subprocess, sys, threading, time
from guide_rl.types import Grade

def right(problem, text): return text == problem.answer
def where(problem, text): return Grade(0.5, True, str(os.getpid()))
def loops(problem, text):
    while True: pass
def sleeps_on(problem, text):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", problem.answer])
    time.sleep(60)
def fills_memory(problem, text): return len(bytearray(10 * 2**30)) > 0
def fills_memory_slowly(problem, text):
    kept = []
    while True: kept.append(bytearray(2**24))
def keeps_memory(problem, text): globals().setdefault("kept", []).append(bytearray(80 * 2**20)); return True
def exits(problem, text): os._exit(0)
def exits_politely(problem, text): sys.exit(3)
def is_killed(problem, text): os.kill(os.getpid(), signal.SIGKILL)
def raises(problem, text): raise KeyError(text)
def raises_text(problem, text): raise ValueError(text)
def raises_deep(problem, text, depth=0):
    if depth > 400: raise ValueError
    (lambda:
        raises_deep(problem, text, depth + 1))()
class Unspeakable(Exception):
    def __str__(self): raise SystemExit
def raises_unspeakable(problem, text): raise Unspeakable
def interrupts(problem, text): raise KeyboardInterrupt
def prints(problem, text): print("noise" * 1000, flush=True); return True
def returns_none(problem, text): return None
def returns_nan(problem, text): return float("nan")
def returns_text(problem, text): return "yes"
def modules(problem, text): return Grade(1.0, True, str(sorted({"torch", "transformers"} & set(sys.modules))))
def naps(problem, text): time.sleep(0.02); return True
def takes_one(problem): return True
number = 3
"""

VERDICTS = {
    "loops": "timeout",
    "exits": "crashed",
    "is_killed": "crashed",
    "exits_politely": "error: SystemExit",
    "raises": "error: KeyError",
    "interrupts": "error: KeyboardInterrupt",
    "returns_none": "error: not a grade",
    "returns_nan": "error: not a grade",
    "returns_text": "error: not a grade",
}

HOSTILE = [
    "",
    " \n\t",
    "{" * 10**6,
    "\\boxed{" * 150_000,
    "\\boxed{" * 100_000 + "}" * 100_000,
    "9**9**9",
    r"\boxed{9**9**9}",
    "\\boxed{\u202e5\u202c}",
    "\\boxed{5\u200b}",
    "\\boxed{5\x00}",
    "\\boxed{\ud800}",
    "\udcff\x00\ud800",
    "\\boxed{" + "9" * 10**6 + "}",
    "\\boxed{" + "1," * 10**5 + "}",
    "\\boxed{" + "1," * 900 + "}",
    "\\boxed{" + r"\frac{1}{" * 5000 + "1" + "}" * 5000 + "}",
    "\\boxed{" + r"\frac{1}{" * 20 + "1" + "}" * 20 + "}",
    "\\boxed{" + "(" * 20 + "1" + ")" * 20 + "}",
    "\\boxed{" + "-" * 100 + "1}",
    "\\boxed{__import__('os').system('touch x')}",
    r"\boxed{\input{/etc/passwd}}",
    "\\boxed{\u0665}",
    r"\boxed{nan}",
    r"\boxed{inf}",
    r"\boxed{\frac{0}{0}}",
    r"\boxed{\frac{1}{0}}",
    r"\boxed{\infty - \infty}",
    "<answer>" + "5 " * 10**5,
    "\\boxed{<answer>}",
]
ENDLESS = [r"\boxed{9^{9^{9}}}", r"\boxed{10^{10^{10}}}", r"\boxed{100000!!}"]


def _rollout(text: str, finish: Finish = "eos") -> Rollout:
    return Rollout("p", 0, False, (1,), (2,), (-0.5,), text, finish, 0.1)


def _problem(answer: str = "5", grader: str = "math") -> Problem:
    return Problem("p", "q", answer, grader=grader)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("user")
    (folder / "zoo.py").write_text(USER_GRADERS)
    (folder / "broken.py").write_text("x = 1\ny = x / 0\n")
    (folder / "needy.py").write_text("import no_such_package\n")
    before = os.getcwd(), list(sys.path)
    os.chdir(folder)
    yield folder
    os.chdir(before[0])
    sys.path[:] = before[1]


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[GraderPool]:
    with GraderPool(workers=2, timeout_s=LIMIT_S, memory_mb=700) as pool:
        pool.check(_problem())
        pool.check(_problem(grader="zoo:right"))
        pool.warm_up()
        yield pool


@pytest.fixture(scope="module")
def small_pool(folder: Path) -> Iterator[GraderPool]:
    with GraderPool(workers=1, timeout_s=60.0, memory_mb=300) as pool:
        yield pool


def _still_works(pool: GraderPool) -> bool:
    return pool.submit(_problem("1/2"), _rollout(r"\boxed{0.5}")).result().correct


def test_hostile_texts_are_wrong_within_the_limit(pool: GraderPool, folder: Path) -> None:
    started = time.monotonic()
    pending = [pool.submit(_problem(r"\frac{5}{7}"), _rollout(text)) for text in HOSTILE]
    grades = [grade.result() for grade in pending]
    assert time.monotonic() - started < len(HOSTILE) * LIMIT_S
    assert all(grade.reward == 0.0 and not grade.correct for grade in grades)
    assert not list(Path().glob("x"))
    assert _still_works(pool)


@pytest.mark.e2e
def test_answers_that_take_for_ever_are_timeouts(pool: GraderPool) -> None:
    before = pool.counts["timeout"]
    pending = [pool.submit(_problem(), _rollout(text)) for text in ENDLESS]
    assert [grade.result().verdict for grade in pending] == ["timeout"] * len(ENDLESS)
    assert pool.counts["timeout"] - before == len(ENDLESS)
    assert _still_works(pool)


@pytest.mark.parametrize(("name", "verdict"), VERDICTS.items())
def test_what_a_users_grader_does_stays_in_its_worker(pool: GraderPool, name: str, verdict: str) -> None:
    started = time.monotonic()
    grade = pool.submit(_problem(grader=f"zoo:{name}"), _rollout("text")).result()
    assert grade == Grade(0.0, False, verdict)
    assert time.monotonic() - started < LIMIT_S + 3.0
    assert pool.submit(_problem(grader="zoo:right"), _rollout("5")).result() == Grade(1.0, True, "correct")


def _first_error(name: str, text: str, problem_id: str = "p7") -> str | None:
    with GraderPool(1, timeout_s=20.0) as pool:
        pool.submit(Problem(problem_id, "q", "5", grader=name), _rollout(text)).result()
        return pool.first_error


def test_the_first_failure_of_a_users_grader_is_told_with_its_lines(folder: Path) -> None:
    told: list[str] = []
    with GraderPool(1, note=told.append) as pool:
        pool.submit(_problem(grader="zoo:right"), _rollout("")).result()
        assert pool.first_error is None
        for problem_id, name in (("p7", "raises_text"), ("p8", "raises")):
            pool.submit(Problem(problem_id, "q", "5", grader=f"zoo:{name}"), _rollout("text")).result()
        error = pool.first_error
    assert error is not None
    assert [text.partition("\n")[2] for text in told] == [error]
    first, file, source, *_, last = error.splitlines()
    assert first == "grader zoo:raises_text, problem p7: "
    assert "zoo.py" in file
    assert source.strip() == "def raises_text(problem, text): raise ValueError(text)"
    assert last == "ValueError: text"


def test_how_a_users_grader_ended_its_worker_is_told(folder: Path) -> None:
    assert _first_error("zoo:exits", "") == "grader zoo:exits, problem p7: the worker process ended with exit status 0"
    assert (
        _first_error("zoo:is_killed", "") == "grader zoo:is_killed, problem p7: the worker process ended with signal 9"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("zoo:raises_text", "\x1b[31mred\x07 \u202ereverse \ud800 \r\nFile forged"),
        ("zoo:raises_text", "\x1b" * 10**6),
        ("zoo:raises_text", "line\n" * 10**5),
        ("zoo:raises_deep", ""),
        ("zoo:raises_unspeakable", ""),
    ],
)
def test_what_is_told_of_a_failure_is_short_and_cannot_steer_a_terminal(folder: Path, name: str, text: str) -> None:
    error = _first_error(name, text, problem_id="p\x1b[2J")
    assert error is not None
    assert len(error) <= 3000
    assert len(error.splitlines()) < 30
    assert error.replace("\n", "").isprintable()
    assert error.splitlines()[-1].startswith(("ValueError", "zoo.Unspeakable"))


@pytest.mark.e2e
def test_a_timeout_ends_what_the_grader_started(pool: GraderPool) -> None:
    mark = f"mark-{os.getpid()}"
    assert pool.submit(_problem(mark, "zoo:sleeps_on"), _rollout("")).result().verdict == "timeout"
    assert _comes_true(lambda: not _running(mark))


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["fills_memory", "fills_memory_slowly"])
def test_what_exceeds_the_memory_is_wrong(small_pool: GraderPool, name: str) -> None:
    assert small_pool.submit(_problem(grader=f"zoo:{name}"), _rollout("")).result() == Grade(0.0, False, "memory")
    assert _still_works(small_pool)


def test_memory_that_one_grading_keeps_fails_no_more_than_one_other(small_pool: GraderPool) -> None:
    verdicts = [small_pool.submit(_problem(grader="zoo:keeps_memory"), _rollout("")).result().verdict for _ in range(5)]
    first = verdicts.index("memory")
    assert verdicts[first + 1] == "correct"


def test_workers_do_not_import_the_callers_main_module_nor_torch(folder: Path) -> None:
    script = """
        import sys
        sys.modules["torch"] = sys  # Stands for what an unguarded training script imports.
        from guide_rl.graders.pool import GraderPool
        from guide_rl.types import Problem, Rollout
        print("main")
        with GraderPool(1) as pool:
            problem = Problem("p", "q", "5", grader="zoo:modules")
            print(pool.submit(problem, Rollout("p", 0, False, (), (), (), "", "eos", 0.0)).result().verdict)
    """
    (folder / "unguarded.py").write_text(textwrap.dedent(script))
    run = subprocess.run([sys.executable, "unguarded.py"], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.split() == ["main", "[]"]


@pytest.mark.e2e
def test_ctrl_c_ends_program_and_workers_at_once(folder: Path) -> None:
    script = """
        import os, signal, threading
        from guide_rl.graders.pool import GraderPool
        from guide_rl.types import Problem, Rollout
        rollout = Rollout("p", 0, False, (), (), (), "", "eos", 0.0)
        with GraderPool(1, timeout_s=60) as pool:
            print(pool.submit(Problem("p", "q", "5", grader="zoo:where"), rollout).result().verdict, flush=True)
            pending = pool.submit(Problem("p", "q", "5", grader="zoo:loops"), rollout)
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            pending.result()
    """
    started = time.monotonic()
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert run.stderr.rstrip().endswith("KeyboardInterrupt")
    assert time.monotonic() - started < 10.0
    with pytest.raises(ProcessLookupError):
        os.kill(int(run.stdout), 0)


@pytest.mark.e2e
def test_a_worker_whose_parent_was_killed_ends_too(folder: Path) -> None:
    script = """
        import os, signal, time
        from guide_rl.graders.pool import GraderPool
        from guide_rl.types import Problem, Rollout
        rollout = Rollout("p", 0, False, (), (), (), "", "eos", 0.0)
        pool = GraderPool(1, timeout_s=0.3)
        print(pool.submit(Problem("p", "q", "5", grader="zoo:where"), rollout).result().verdict, flush=True)
        pool.submit(Problem("p", "q", "5", grader="zoo:loops"), rollout)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60)
    assert run.returncode == -signal.SIGKILL
    assert _comes_true(lambda: not _alive(int(run.stdout)))


def _alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def _running(mark: str) -> list[str]:
    """Command lines of running processes that end with the mark; those of ended ones are empty."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.append(path.read_text(errors="replace").rstrip("\0"))
    return [line for line in found if line.endswith(mark)]


def _comes_true(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20.0
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_what_a_grader_prints_is_not_in_the_output(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with GraderPool(1) as pool:
        assert pool.submit(_problem(grader="zoo:prints"), _rollout("")).result().correct
    said = capfd.readouterr()
    assert "noise" in said.err
    assert "noise" not in said.out


def test_warming_up_while_rollouts_are_graded_waits_for_them(folder: Path) -> None:
    with GraderPool(1) as pool:
        pending = [pool.submit(_problem(grader="zoo:naps"), _rollout("")) for _ in range(20)]
        pool.warm_up()
        assert all(grade.result().correct for grade in pending)


def test_a_truncated_rollout_is_wrong_unread() -> None:
    with GraderPool(1) as pool:
        grade = pool.submit(_problem(), _rollout(r"\boxed{5}", "length")).result()
        assert grade == Grade(0.0, False, "truncated")
        assert pool.submit(_problem(), _rollout(r"\boxed{5}", "stop")).result().correct
        assert pool.counts == {"truncated": 1, "correct": 1}


def test_quick_decisions_start_no_worker() -> None:
    with GraderPool(2) as pool:
        for text in (r"\boxed{5}", r"\boxed{6}", "nothing"):
            pool.submit(_problem(), _rollout(text)).result()
        assert all(worker._process is None for worker in pool._workers)
        assert pool.counts == {"correct": 1, "wrong": 1, "no answer": 1}


REFUSED = {
    "maths": "unknown grader 'maths'; use one of .*exact, math, .*reasoning_gym",
    "zoo:nothing": "module 'zoo' has no function 'nothing'",
    "zoo:number": "module 'zoo' has no function 'number'",
    "zoo:takes_one": r"must take \(problem, text\)",
    "no_such_module:grade": "there is no module 'no_such_module'; install it, or start in the folder that holds it",
    "guide_rl.nothing:grade": "there is no module 'guide_rl.nothing'",
    "needy:grade": "module 'needy' needs 'no_such_package'; install it",
    "broken:grade": r"importing module 'broken' failed in .*broken.py, line 2: ZeroDivisionError",
    ":": "grader ':'",
    "zoo:": "has no function ''",
    ".zoo:right": "grader '.zoo:right'",
}


@pytest.mark.parametrize(("name", "message"), REFUSED.items())
def test_a_grader_that_is_not_there_is_refused_before_anything_is_graded(
    pool: GraderPool, name: str, message: str
) -> None:
    with pytest.raises(GraderSetupError, match=message):
        pool.submit(_problem(grader=name), _rollout("", "length"))
    with pytest.raises(GraderSetupError, match=f"problem 'p': .*{message}"):
        check(_problem(grader=name))


def test_a_worker_that_cannot_load_the_grader_is_an_error_and_no_grade() -> None:
    with GraderPool(1, memory_mb=48) as pool:
        pending = pool.submit(_problem(r"\sqrt{2}"), _rollout(r"\boxed{2^{1/2}}"))
        with pytest.raises((RuntimeError, GraderSetupError), match=r"raise grading.memory_mb \(48\)"):
            pending.result()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has bubblewrap")
def test_a_grader_that_cannot_start_says_only_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    problem = Problem("p", "q", "1", grader="unit_tests", metadata={"tests": "assert f() == 1"})
    with GraderPool(1) as pool:
        pool.check(problem)
        with pytest.raises(GraderSetupError, match=r"^grader 'unit_tests': bubblewrap cannot start") as raised:
            pool.warm_up()
    assert "memory" not in str(raised.value)
    with pytest.raises(GraderSetupError, match=r"bubblewrap cannot start.*; unreadable_answers=unchecked runs no"):
        unreadable_answers([problem], GradingConfig(workers=1), Progress(disable=True))


def test_a_pool_without_a_sandbox_says_so_once_when_it_starts_with_code_and_only_then() -> None:
    problem = Problem("p", "q", "1", grader="unit_tests", metadata={"tests": "assert f() == 1"})
    said: list[str] = []
    for off, checked in ((False, problem), (True, _problem()), (True, problem)):
        assert said == []
        with GraderPool.of(GradingConfig(workers=1, run_untrusted_code_without_sandbox=off), said.append) as pool:
            pool._workers[0].load = lambda name: None  # type: ignore[method-assign]
            pool.check(checked)
            pool.warm_up()
    (line,) = said
    assert "grading.run_untrusted_code_without_sandbox is true" in line
    assert "\n" not in line


def test_a_pool_checks_a_problem_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    monkeypatch.setattr("guide_rl.graders.check", lambda problem: checked.append(problem.id))
    with GraderPool(1) as pool:
        problem = _problem()
        for each in (problem, problem, _problem(), problem):
            pool.check(each)
    assert len(checked) == 2


def test_metadata_that_cannot_travel_is_refused(pool: GraderPool) -> None:
    problem = Problem("p", "q", "5", grader="zoo:right", metadata={"key": lambda: 0})
    with pytest.raises(GraderSetupError, match="metadata cannot be sent to a worker process"):
        pool.submit(problem, _rollout("")).result()
    assert _still_works(pool)


def test_a_closed_pool_takes_no_more(folder: Path) -> None:
    with GraderPool(1) as pool:
        pass
    with pytest.raises(RuntimeError):
        pool.submit(_problem(grader="zoo:right"), _rollout(""))


def test_what_user_functions_return_is_read_as_a_grade() -> None:
    numpy = pytest.importorskip("numpy")
    assert (
        as_grade(True)
        == as_grade(1)
        == as_grade(numpy.bool_(True))
        == as_grade(numpy.float32(1))
        == Grade(1.0, True, "correct")
    )
    assert as_grade(False) == as_grade(0.0) == as_grade((0.0, False)) == Grade(0.0, False, "wrong")
    assert as_grade(0.5) == Grade(0.5, False, "wrong")
    assert as_grade((0.5, True)) == as_grade((numpy.float64(0.5), numpy.bool_(True))) == Grade(0.5, True, "correct")
    assert as_grade(Grade(2.0, False, "half")) == Grade(2.0, False, "half")
    assert len(as_grade(Grade(0.0, False, "long" * 100)).verdict) <= 60
    for nonsense in (
        None,
        "yes",
        float("nan"),
        float("inf"),
        (1.0, 1),
        (1.0,),
        [],
        Grade(float("nan"), True),
        numpy.zeros(3),
    ):
        assert as_grade(nonsense).verdict == "error: not a grade"
    assert resolve("zoo:right")(_problem(), "5").correct


def test_reference_answers_that_cannot_be_read_are_found(pool: GraderPool) -> None:
    readable = [
        _problem(answer) for answer in ("5", "1,234", r"\frac{1}{2}", "Monday", r"\{1, 2\}", "$x^2$", r"\boxed{7}")
    ]
    unreadable = [_problem(answer) for answer in (r"\frac{1}{", "x**2", "}{", "9" * 5000)]
    of_the_user = [_problem(grader="zoo:right"), _problem(grader="zoo:raises")]
    before = pool.counts.copy()
    assert check_answers([*readable, *of_the_user, *unreadable], pool) == (unreadable, len(readable + unreadable))
    assert check_answers(of_the_user, pool) == ([], 0)
    assert pool.counts == before
