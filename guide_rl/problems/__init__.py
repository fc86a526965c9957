"""JSON lines files -> Problems. Bad input fails with the file, the line and the reason."""

import json
import math
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from guide_rl.problems.points import POINTS
from guide_rl.types import Problem

_FIELDS = tuple(f.name for f in fields(Problem))
_TEXT_FIELDS = ("id", "question", "answer", "guidance", "solution", "grader", "stratum")
_OPTIONAL_FIELDS = ("guidance", "solution")


def load_problems(path: str | Path) -> list[Problem]:
    """Read a JSON lines file of problems, in the order of the file.

    Each line is an object with `question` and `answer` (text or number) and, maybe, `id`, `guidance`, `solution`,
    `grader`, `stratum` and `metadata`. Without an `id`, the line number is the id.

    Raises:
        FileNotFoundError: the file does not exist, or is a folder.
        ValueError: a malformed line, an unknown field, a repeated id, or no problem at all; names file and line.
    """
    path = Path(path)
    if path.is_dir():
        files = ", ".join(sorted(file.name for file in path.glob("*.jsonl"))[:5]) or "it has no .jsonl"
        raise FileNotFoundError(f"{path} is a folder; name a problem file in it ({files})")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such problem file; write one JSON object a line with question and answer")
    problems: dict[str, Problem] = {}
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            problem = _parse(line, f"{path}, line {number}", default_id=str(number))
            if problem.id in problems:
                raise ValueError(
                    f"{path}, line {number}: id {problem.id!r} stands on an earlier line too; ids must differ"
                )
            problems[problem.id] = problem
    if not problems:
        raise ValueError(f"{path}: holds no problem; write one JSON object a line with question and answer")
    return list(problems.values())


def save_problems(path: str | Path, problems: Iterable[Problem]) -> None:
    """Write problems as JSON lines that `load_problems` reads back; empty fields are left out.

    Half surrogate pairs (in metadata), which UTF-8 cannot hold, are written as escapes.
    """
    with Path(path).open("w", encoding="utf-8", errors="backslashreplace") as file:
        for problem in problems:
            values = ((name, getattr(problem, name)) for name in _FIELDS)
            row = {name: value for name, value in values if value not in (None, "", {})}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _parse(line: str, where: str, *, default_id: str) -> Problem:
    """One line -> a Problem, or ValueError that says where and why."""
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{where}: not UTF-8; save the file as UTF-8") from None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
        raise ValueError(f"{where}: not valid JSON ({error}); each line must be one JSON object") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a {type(row).__name__}, but each line must be a JSON object")
    if unknown := sorted(set(row).difference(_FIELDS)):
        raise ValueError(f"{where}: unknown field {unknown[0]!r}; the fields are {', '.join(sorted(_FIELDS))}")
    values: dict[str, Any] = {"id": default_id, **row}
    for name in ("question", "answer"):
        if not str("" if values.get(name) is None else values[name]).strip():
            raise ValueError(f"{where}: field {name!r} is missing or empty")
    for name in _TEXT_FIELDS:
        if name in values:
            values[name] = _text(values[name], name, where)
    metadata = values.get("metadata", {})
    if not isinstance(metadata, dict):
        raise ValueError(f"{where}: field 'metadata' must be an object")
    points = metadata.get(POINTS, [])
    if not isinstance(points, list):
        raise ValueError(f"{where}: field 'metadata.{POINTS}' must be a list of texts, not {type(points).__name__}")
    for point in points:
        _text(point, f"metadata.{POINTS}", where)
    return Problem(**{name: value for name, value in values.items() if value is not None})


def _text(value: Any, name: str, where: str) -> str | None:
    """A text field's value: numbers become text, null stays null where the field may be empty."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise ValueError(f"{where}: field {name!r} must be text, not {type(value).__name__}")
    if value is None:
        if name not in _OPTIONAL_FIELDS:
            raise ValueError(f"{where}: field {name!r} must be text, not null")
        return None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: field {name!r} is {value}; write a finite number, or text")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where}: field {name!r} holds half a surrogate pair, which is no text; correct it") from None
    return text if text.strip() or name not in _OPTIONAL_FIELDS else None
