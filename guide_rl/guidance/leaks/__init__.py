r"""Does a text give a problem's final answer away?

It does when it states the answer's value in any form: digits, a fraction, a decimal, per cent, LaTeX, words, another
arrangement of the same formula; or, for an answer in words, the phrase itself. It does not where the problem's own
question states that value, nor by numbers that are part of a formula, of a list marker or of an ordinal.

`quick_leak` reads formulas itself (`leaks.formulas`), in well under a millisecond. What it cannot read (matrices, sums,
logarithms) math-verify compares, in worker processes with hard limits: text of a model is hostile.
"""

import contextlib
import hashlib
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Self

from guide_rl.disk_cache import DiskCache
from guide_rl.graders.pool import GraderPool
from guide_rl.guidance.leaks.reading import quick_leak, restates
from guide_rl.types import Problem

__all__ = ["LeakCheck", "quick_leak", "restates"]

WORKERS, TIMEOUT_S, MEMORY_MB = 1, 2.0, 2048
"""Limits of the comparisons by math-verify; one that outlasts them counts as different."""
MOST_COMPARED = 12
"""Formulas of one text that math-verify compares at most."""

LONGEST = 8_000
"""Characters of the longest text that is read; a longer one is refused."""


class LeakCheck:
    """Looks for answers in texts; use it as a context manager.

    Args:
        cache: a file that keeps verdicts, so that a text is looked at once; None keeps none.
    """

    def __init__(self, cache: str | Path | None = None) -> None:
        self._pool: GraderPool | None = None
        self._verdicts = None if cache is None else _opened(Path(cache))
        self.compared = 0
        """Comparisons by math-verify so far."""

    def find(self, problem: Problem, text: str) -> str | None:
        """What in the text gives the problem's answer away, or None."""
        if self._verdicts is None:
            return self._look(problem, text)
        key = _key(problem, text)
        known = None
        with contextlib.suppress(OSError, ValueError):  # Without the file, verdicts are worked out.
            known = self._verdicts.get(key)
        if known is None:
            known = [self._look(problem, text)]
            with contextlib.suppress(OSError, ValueError):
                self._verdicts.put(key, known)
        found: str | None = known[0]
        return found

    def _look(self, problem: Problem, text: str) -> str | None:
        text = _plain_characters(text)
        if len(text) > LONGEST:
            return f"(not read: more than {LONGEST:,} characters)"
        finding = quick_leak(problem.question, problem.answer, text)
        if finding.leak is not None:
            return finding.leak
        for spelled, answer in finding.open[:MOST_COMPARED]:
            if self._same_by_math_verify(spelled, answer):
                return spelled
        return None

    def _same_by_math_verify(self, spelled: str, answer: str) -> bool:
        """Whether math-verify takes the two for equal, in a worker."""
        if self._pool is None:
            self._pool = GraderPool(WORKERS, TIMEOUT_S, MEMORY_MB)
        self.compared += 1
        reference = Problem(id="", question="", answer=answer, grader="math")
        return self._pool.grade_thoroughly(reference, f"\\boxed{{{spelled}}}").correct

    def close(self) -> None:
        """End the workers, close the file."""
        if self._pool is not None:
            self._pool.close()
        if self._verdicts is not None:
            self._verdicts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _plain_characters(text: str) -> str:
    """The text without characters that do not show (zero-width spaces, soft hyphens), decimal digits of any script as 0-9."""
    if text.isascii():
        return text
    shown = (character for character in text if unicodedata.category(character) != "Cf")
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in shown)


def _opened(cache: Path) -> DiskCache:
    """The file of verdicts; a new one where it is damaged: verdicts can be worked out again."""
    try:
        return DiskCache(cache)
    except ValueError:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{cache}{suffix}").unlink(missing_ok=True)
        return DiskCache(cache)


@lru_cache(maxsize=1)
def _rules() -> bytes:
    """Stands for the rules, so that verdicts of other rules are not used."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()


def _key(problem: Problem, text: str) -> bytes:
    """What a verdict depends on, in short."""
    content = "\0".join((problem.question, problem.answer, text)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(_rules() + content).digest()
