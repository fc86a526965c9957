"""Grading beside sampling: quick decisions in the calling process, all others in worker processes with hard limits."""

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from guide_rl import graders
from guide_rl.config import GradingConfig
from guide_rl.graders.worker_process import WorkerProcess
from guide_rl.types import Grade, PendingGrade, Problem, Rollout

WITHOUT_SANDBOX = (
    "grading.run_untrusted_code_without_sandbox is true: the model's code runs with the rights of your user, outside of any "
    "sandbox"
)
TRUNCATED = Grade(0.0, False, "truncated")


class GraderPool:
    """The graders (`types.Grader`) with their worker processes, which start with the first text that needs one.

    Use it as a context manager: on leaving, workers are killed at once, whatever they are doing.

    Args:
        workers: worker processes.
        timeout_s: seconds that one grading may take; what outlasts them is wrong, "timeout".
        memory_mb: MiB of address space for a worker; what exceeds them is wrong, "memory".
        note: is told once, from another thread, how a grading failed for the first time, and that there is no sandbox.
        sandboxed: False runs model-written code with the rights of this process's user.
    """

    def __init__(
        self,
        workers: int = 2,
        timeout_s: float = 5.0,
        memory_mb: int = 2048,
        note: Callable[[str], None] = lambda text: None,
        sandboxed: bool = True,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """How often each verdict was given to a submitted rollout."""
        self.first_error: str | None = None
        """How a grading failed first, if one raised or ended its worker: grader, problem, traceback; safe to print."""
        self._note, self._sandboxed = note, sandboxed
        self._graders: set[str] = set()
        self._checked: dict[int, Problem] = {}
        self._lock = threading.Lock()
        self._workers = [WorkerProcess(timeout_s, memory_mb, sandboxed) for _ in range(workers)]
        self._idle: queue.LifoQueue[WorkerProcess] = queue.LifoQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="grading")

    @classmethod
    def of(cls, grading: GradingConfig, note: Callable[[str], None] = lambda text: None) -> Self:
        """The pool that a recipe asks for."""
        sandboxed = not grading.run_untrusted_code_without_sandbox
        return cls(grading.workers, grading.timeout_s, grading.memory_mb, note, sandboxed)

    def check(self, problem: Problem) -> None:
        """Raise GraderSetupError when its grader does not exist or the problem lacks what it needs."""
        if self._checked.get(id(problem)) is not problem:
            graders.check(problem)
            self._checked[id(problem)] = problem
        self._graders.add(problem.grader)

    def warm_up(self) -> None:
        """Start all workers and let them import what the graders of the problems checked so far need.

        Raises:
            GraderSetupError: a grader cannot start here, such as one that finds no sandbox.
        """
        if not self._sandboxed and "unit_tests" in self._graders:
            self._note(WITHOUT_SANDBOX)
        idle = [self._idle.get() for _ in self._workers]
        try:
            with ThreadPoolExecutor(len(idle)) as starters:  # self._threads may all wait for a worker.
                for name in sorted(self._graders):
                    list(starters.map(lambda worker: worker.load(name), idle))  # noqa: B023
        finally:
            for worker in idle:
                self._idle.put(worker)

    def submit(self, problem: Problem, rollout: Rollout) -> PendingGrade:
        """Start grading a rollout, or give its Grade where a glance decides; one that the length limit cut off is wrong.

        Raises:
            GraderSetupError: as `check`, now; the result raises it when the grader cannot be loaded in a worker.
        """
        self.check(problem)
        grade = TRUNCATED if rollout.finish == "length" else graders.quick_grade(problem, rollout.text)
        if grade is not None:
            return self._counted(grade)
        return self._threads.submit(lambda: self._counted(self.grade_thoroughly(problem, rollout.text)))

    def grade_thoroughly(self, problem: Problem, text: str) -> Grade:
        """Grade a text in a worker and wait for it, without the quick decision and without counting it."""
        worker = self._idle.get()
        try:
            return worker.grade(problem, text)
        finally:
            self._tell(worker.error)
            self._idle.put(worker)

    def close(self) -> None:
        """Kill the workers at once and drop what waits for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.stop()
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tell(self, error: str | None) -> None:
        """Keep and tell the first error."""
        with self._lock:
            if error is None or self.first_error is not None:
                return
            self.first_error = error
        self._note(f"a grading failed, and counts as wrong; the first one that did:\n{error}")

    def _counted(self, grade: Grade) -> Grade:
        """The same grade, its verdict counted."""
        with self._lock:
            self.counts[grade.verdict] += 1
        return grade


def check_answers(problems: Iterable[Problem], pool: GraderPool) -> tuple[list[Problem], int]:
    """The problems whose own reference answer their grader cannot read or grades as wrong, and how many were checked.

    Only those are checked that have a grader of ours, and an answer that it reads: what text earns a reward of the
    user's own, nobody else knows. Each is graded thoroughly: equal spelling does not count. So a policy can still be
    right about such a problem where it spells the answer exactly as the reference does, and only there.
    """
    ours = [problem for problem in problems if problem.grader in graders.GRADERS]
    for problem in ours:
        pool.check(problem)
    texts = [(problem, graders.GRADERS[problem.grader].reference(problem)) for problem in ours]
    checked = [(problem, text) for problem, text in texts if text is not None]
    pending = [pool._threads.submit(pool.grade_thoroughly, problem, text) for problem, text in checked]
    unreadable = [problem for (problem, _), grade in zip(checked, pending, strict=True) if not grade.result().correct]
    return unreadable, len(checked)
