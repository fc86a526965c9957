r"""Rows -> Problems: the column map.

A field is mapped to a column, or to [column, rule, ...], the rules applied in turn. A column with braces, such as
`"{question}\n\n{starter_code}"`, is a text with the values of those columns in it.
"""

import json
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from guide_rl.config import SourceConfig
from guide_rl.graders import GRADERS
from guide_rl.graders.choice import LETTERS
from guide_rl.problems.points import POINTS, numbered
from guide_rl.problems.rules import RULES
from guide_rl.problems.sources.rows import Row
from guide_rl.types import Problem

TEXT_FIELDS = ("question", "answer", "solution", "guidance", "grader", "stratum")
"""The fields of a problem that hold text, but for its id."""
_REQUIRED = ("question", "answer")
_DEEPEST = 100
"""Levels of metadata; JSON readers give up on many more."""
_GRADERS = tuple(sorted({*GRADERS, "unit_tests"}))
_LIST = re.compile(r"\[\s*(['\"]).*\1\s*\]", re.DOTALL)
"""A list of texts that was written as one text."""


class RowRejected(ValueError):
    """A row is no problem.

    Args:
        reason: a word or a few that rows are counted by.
        detail: what exactly.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def needed_columns(source: SourceConfig) -> list[str] | None:
    """The columns that the source's map reads; None for all, where it has no map."""
    if not source.columns:
        return None
    made = {"choices", "letter"} if source.choices else set()
    named = [name for spec in source.columns.values() for name in _named(_column(spec))]
    return sorted({*named, *source.choices, *source.where} - made)


def check_map(name: str, source: SourceConfig) -> None:
    """Raise ValueError when a source's map has an unknown field or rule, or does not give question and answer."""
    for field in (*source.columns, *source.constants):
        known = field in ("id", "metadata", *TEXT_FIELDS) or field.startswith("metadata.")
        if not known:
            raise ValueError(
                f"sources.{name}: {field!r} is no field of a problem; use id, {', '.join(TEXT_FIELDS)}, metadata.NAME"
            )
    if (grader := source.constants.get("grader")) is not None and not _is_grader(grader):
        raise ValueError(f"sources.{name}.constants: {_no_grader(grader)}")
    for field, spec in source.columns.items():
        if not spec:
            raise ValueError(f"sources.{name}.columns: {field} has no column; write `{field}: COLUMN`")
        if field in source.constants:
            raise ValueError(f"sources.{name}: {field} has a column and a constant; remove one of them")
        if unknown := [rule for rule in _rules(spec) if rule not in RULES]:
            raise ValueError(f"sources.{name}.columns: {field}: no rule {unknown[0]!r}; there are {', '.join(RULES)}")
    if source.columns:
        for field in _REQUIRED:
            if field not in source.columns and field not in source.constants:
                raise ValueError(f"sources.{name}.columns: no column for {field}; add `{field}: COLUMN`")


def to_problem(row: Row | str, number: int, name: str, source: SourceConfig, seed: int) -> Problem:
    """One row (or why it is none) -> a Problem, by the source's map.

    The id is `NAME/` and the row's own id or its number. `guidance` from a list of points becomes a numbered list, and
    `metadata["guidance_points"]` keeps the points for the ladder (`points.guidance_at`).

    Raises:
        RowRejected: a column is missing or holds nothing, a rule finds nothing, or `where` leaves the row out.
    """
    if isinstance(row, str):
        raise RowRejected("malformed", row)
    for column, wanted in source.where.items():
        value = _value(row, column)
        if _spelled(value) not in map(_spelled, wanted if isinstance(wanted, list) else [wanted]):
            raise RowRejected("filtered", f"{column} is {value!r}")
    metadata: dict[str, Any] = {}
    if source.choices:
        texts, letter = shuffled_choices([_text(_value(row, column), column) for column in source.choices], seed)
        metadata["choices"] = texts
        lines = (f"{each}) {text}" for each, text in zip(LETTERS, texts, strict=False))
        row = {**row, "choices": "\n".join(lines), "letter": letter}
    columns = source.columns or {field: field for field in row}
    if not source.columns and (unknown := sorted(set(row) - {"id", "metadata", *TEXT_FIELDS})):
        raise RowRejected(
            "malformed",
            f"{unknown[0]!r} is no field of a problem; set columns: {{question: COLUMN, answer: COLUMN}}; {_there(row)}",
        )
    values: dict[str, Any] = {"stratum": name}
    for field, text in source.constants.items():
        part, _, key = field.partition(".")
        (metadata if key else values)[key or part] = text
    for field, spec in columns.items():
        value = _extracted(row, field, spec)
        if field == "metadata":
            metadata |= _mapping(value)
        elif field.startswith("metadata."):
            metadata[field.removeprefix("metadata.")] = value
        elif field == "guidance" and isinstance(value, list | tuple):
            points = [_text(point, field).strip() for point in value]
            if points:
                values[field], metadata[POINTS] = numbered(points), points
        elif value is not None and (text := _text(value, field)).strip():
            values[field] = text
    if _LIST.fullmatch(values.get("answer", "").strip()):
        raise RowRejected("malformed", f"the answer is a list, {values['answer']:.80}; use [COLUMN, from_json, first]")
    for field in _REQUIRED:
        if field not in values:
            raise RowRejected(f"no {field}", f"column {_column(columns.get(field, field))!r} is empty or nan")
    if not _is_grader(grader := values.get("grader", "math")):
        raise RowRejected("unknown grader", _no_grader(grader))
    values["id"] = f"{name}/{values.get('id', number)}"
    _check_saveable(metadata)
    return Problem(**values, metadata=metadata)


def to_question(row: Row | str, number: int, name: str, source: SourceConfig, seed: int) -> Problem:
    """A problem of a row's question alone, for comparing: whatever else the row has may be missing or odd.

    Raises:
        RowRejected: as in `to_problem`, of the question.
    """
    columns = {"question": source.columns.get("question", "question")}
    return to_problem(row, number, name, replace(source, columns=columns, constants={"answer": "?"}), seed)


def _is_grader(name: str) -> bool:
    """Whether problems may name this grader: one of ours, one to come, or the user's own."""
    return name in _GRADERS or ":" in name


def _no_grader(name: str) -> str:
    """That there is no such grader, and which there are."""
    return f"no grader {name!r}; use {', '.join(_GRADERS)}, or your own as package.module:function"


def _spelled(value: Any) -> str:
    """A value as text, to compare what a recipe says with what a file holds."""
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    return text.casefold() if text.casefold() in ("true", "false") else text


def shuffled_choices(choices: Sequence[str], seed: int) -> tuple[list[str], str]:
    """The choices in an order that depends on them and the seed only, and the letter that the first given gets."""
    texts = [choice.strip() for choice in choices]
    if len(set(texts)) < len(texts):
        raise RowRejected("malformed", "two choices are the same")
    order = list(range(len(texts)))
    random.Random(f"{seed}:{json.dumps(texts)}").shuffle(order)
    return [texts[index] for index in order], LETTERS[order.index(0)]


def _column(spec: str | list[str]) -> str:
    """The column of a map's entry."""
    return spec if isinstance(spec, str) else spec[0]


def _rules(spec: str | list[str]) -> list[str]:
    """The rules of a map's entry."""
    return [] if isinstance(spec, str) else spec[1:]


def _named(column: str) -> list[str]:
    """The columns that a map's entry reads: those in the braces of a text, or the one."""
    return re.findall(r"\{([^{}]+)\}", column) or [column]


def _value(row: Row, column: str) -> Any:
    """What the row has in a column."""
    if column not in row:
        raise RowRejected("malformed", f"no column {column!r}; {_there(row)}")
    return row[column]


def _there(row: Row) -> str:
    """Which columns a row has."""
    return f"there are {', '.join(sorted(map(str, row)))}"


def _extracted(row: Row, field: str, spec: str | list[str]) -> Any:
    """The value of a field, after its rules; None where the column is empty."""
    column = _column(spec)
    if "{" in column:
        value: Any = re.sub(r"\{([^{}]+)\}", lambda name: _cell(_value(row, name[1]), name[1]), column)
    else:
        value = _value(row, column)
    for rule in _rules(spec):
        if _is_nothing(value):
            return None
        try:
            value = RULES[rule](value)
        except (TypeError, AttributeError, LookupError, RecursionError, MemoryError):
            what = f"column {column!r}, rule {rule}: cannot take the type {type(value).__name__}"
            raise RowRejected("malformed", what) from None
        except ValueError as error:
            raise RowRejected(f"no {field}", f"column {column!r}, rule {rule}: {error}") from error
    return None if _is_nothing(value) else value


def _is_nothing(value: Any) -> bool:
    """Whether a cell is empty: None, or the nan of tables, also written as text."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value.strip() in ("nan", "NaN"))


def _cell(value: Any, column: str) -> str:
    """A cell as text; of an empty one, no text."""
    return "" if _is_nothing(value) else _text(value, column)


def _text(value: Any, column: str) -> str:
    """A value as text; only text and numbers can be."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        hint = "; take one of it by a rule, such as [COLUMN, first]" if isinstance(value, list | tuple) else ""
        raise RowRejected("malformed", f"{column!r} is a {type(value).__name__}, not text{hint}")
    if isinstance(value, float) and not math.isfinite(value):
        raise RowRejected("malformed", f"{column!r} is {value}")
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RowRejected("malformed", f"{column!r} is not UTF-8") from None
    return text


def _mapping(value: Any) -> Mapping[str, Any]:
    """A value that must be an object, or nothing."""
    if not isinstance(value, Mapping | None):
        raise RowRejected("malformed", f"'metadata' is a {type(value).__name__}, not an object")
    return value or {}


def _check_saveable(metadata: Mapping[str, Any]) -> None:
    """Refuse metadata that a problem file cannot hold."""
    try:
        text = json.dumps(metadata, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RowRejected("malformed", f"metadata cannot be saved: {error}") from None
    level, layer = 0, [metadata]
    while layer := [part for value in layer if isinstance(value, Mapping | list) for part in _parts(value)]:
        level += 1
        if level > _DEEPEST:
            raise RowRejected("malformed", f"metadata is nested more than {_DEEPEST} deep")


def _parts(value: Mapping[str, Any] | list[Any]) -> Iterable[Any]:
    """What a value of JSON holds."""
    return value.values() if isinstance(value, Mapping) else value
