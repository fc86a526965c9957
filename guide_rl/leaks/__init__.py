r"""Does a text give a problem's final answer away?

It does when it states the answer's value in any form: digits, a fraction, a decimal, per cent, LaTeX, words, another
arrangement of the same formula; or, for an answer in words, the phrase itself. It does not where the problem's own
question states that value, nor by numbers that are part of a formula, of a list marker or of an ordinal.

`quick_leak` reads formulas itself (`leaks.formulas`), in well under a millisecond. What it cannot read (matrices, sums,
logarithms) math-verify compares, in worker processes with hard limits: text of a model is hostile.
"""

import contextlib
import hashlib
import sqlite3
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Self

from guide_rl.graders.pool import GraderPool
from guide_rl.leaks.reading import quick_leak, restates
from guide_rl.types import Problem

__all__ = ["LeakCheck", "quick_leak", "restates"]

WORKERS, TIMEOUT_S, MEMORY_MB = 1, 2.0, 2048
"""Limits of the comparisons by math-verify; one that outlasts them counts as different."""
MOST_COMPARED = 12
"""Formulas of one text that math-verify compares at most."""

_STORED_AT_ONCE = 256
LONGEST = 8_000
"""Characters of the longest text that is read; a longer one is refused."""


class LeakCheck:
    """Looks for answers in texts; use it as a context manager.

    Args:
        cache: a SQLite file that keeps verdicts, so that a text is looked at once; None keeps none.
    """

    def __init__(self, cache: str | Path | None = None) -> None:
        self._pool: GraderPool | None = None
        self._verdicts: sqlite3.Connection | None = None
        self._new: dict[bytes, str | None] = {}
        self.compared = 0
        """Comparisons by math-verify so far."""
        if cache is not None:
            try:
                self._verdicts = _verdicts(cache)
            except sqlite3.DatabaseError:  # Damaged: verdicts can be worked out again.
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{cache}{suffix}").unlink(missing_ok=True)
                self._verdicts = _verdicts(cache)

    def find(self, problem: Problem, text: str) -> str | None:
        """What in the text gives the problem's answer away, or None."""
        if self._verdicts is None:
            return self._look(problem, text)
        key = _key(problem, text)
        if key in self._new:
            return self._new[key]
        with contextlib.suppress(sqlite3.Error):
            known = self._verdicts.execute("SELECT found FROM leaks WHERE key = ?", (key,)).fetchone()
            if known is not None:
                return known[0]
        found = self._look(problem, text)
        self._new[key] = found
        if len(self._new) >= _STORED_AT_ONCE:
            self._store()
        return found

    def _store(self) -> None:
        """Write the new verdicts, where the file takes them."""
        assert self._verdicts is not None
        with contextlib.suppress(sqlite3.Error), self._verdicts:
            self._verdicts.executemany("INSERT OR REPLACE INTO leaks VALUES (?, ?)", self._new.items())
        self._new.clear()

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
            self._store()
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


def _verdicts(cache: str | Path) -> sqlite3.Connection:
    """The file of verdicts, laid out and seen to be whole; sqlite3.DatabaseError where it is damaged."""
    verdicts = sqlite3.connect(cache, timeout=10)
    try:
        verdicts.execute("PRAGMA journal_mode = WAL")
        verdicts.execute("PRAGMA synchronous = OFF")  # A lost verdict is only worked out again.
        verdicts.execute("CREATE TABLE IF NOT EXISTS leaks (key BLOB PRIMARY KEY, found TEXT) WITHOUT ROWID")
        if verdicts.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("damaged")
    except BaseException:
        verdicts.close()
        raise
    return verdicts


@lru_cache(maxsize=1)
def _rules() -> bytes:
    """Stands for the rules, so that verdicts of other rules are not used."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()


def _key(problem: Problem, text: str) -> bytes:
    """What a verdict depends on, in short."""
    content = "\0".join((problem.question, problem.answer, text)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(_rules() + content).digest()
