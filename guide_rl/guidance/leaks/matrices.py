r"""Does a text state a matrix? It may write it as `\begin{pmatrix}`, as `[[1, 2], [3, 4]]`, or a vector as `(1, 2)`."""

import re
from collections.abc import Iterator
from itertools import chain

from guide_rl.guidance.leaks.formulas import same
from guide_rl.guidance.leaks.math_text import stated

Rows = tuple[tuple[str, ...], ...]
BLOCK = re.compile(r"\\begin\s*\{(\w*matrix|array)\}(?:\{[^{}]*\})?(?P<cells>.*?)\\end\s*\{\1\}", re.DOTALL)
_LISTS = re.compile(r"\[\s*(?P<rows>\[[^\[\]]*\](?:\s*[,;]\s*\[[^\[\]]*\])*)\s*\]")
_VECTOR = re.compile(r"[\[(](?P<row>[^\[\]()]*,[^\[\]()]*)[\])]")


def matrix_leak(block: re.Match[str], question: str, text: str) -> tuple[str | None, list[tuple[str, str]]]:
    """What in the text states the matrix, or None; pairs (block, answer) that only math-verify can compare."""
    answer, wanted = block[0], _rows(block)
    asked = {rows for _, rows in _written(question)}
    if wanted in asked:
        return None, []
    open_pairs = []
    for spelled, rows in _written(text):
        verdict = False if rows in asked else _same(rows, wanted)
        if verdict:
            return spelled, []
        if verdict is None:
            lines = r" \\ ".join(" & ".join(row) for row in rows)
            open_pairs.append((rf"\begin{{pmatrix}} {lines} \end{{pmatrix}}", answer))
    return None, open_pairs


def _written(text: str) -> Iterator[tuple[str, Rows]]:
    """The matrices and vectors of a text: (as written, rows)."""
    for match in BLOCK.finditer(text):
        yield match[0], _rows(match)
    for match in _LISTS.finditer(text):
        yield match[0], tuple(_cells(row, ",") for row in re.findall(r"\[([^\[\]]*)\]", match["rows"]))
    for match in _VECTOR.finditer(text):
        yield match[0], (_cells(match["row"], ","),)


def _rows(block: re.Match[str]) -> Rows:
    """The cells of a block."""
    lines = re.split(r"\\\\(?:\s*\[[^\]]*\])?", block["cells"])
    return tuple(_cells(line, "&") for line in lines if line.strip())


def _cells(row: str, mark: str) -> tuple[str, ...]:
    """The cells of a row, each in one spelling."""
    return tuple(_respelled(cell) for cell in row.split(mark))


def _respelled(cell: str) -> str:
    """A cell without spaces, as the reader of formulas spells it."""
    found = stated(f"${cell.strip()}$")
    return found[0].spelled if len(found) == 1 else "".join(cell.split())


def _same(first: Rows, second: Rows) -> bool | None:
    """Whether two matrices have the same cells (a row or a column may be written as the other); None where open."""
    if [*map(len, first)] != [*map(len, second)] and not (_is_vector(first) and _is_vector(second)):
        return False
    cells, others = [*chain(*first)], [*chain(*second)]
    if len(cells) != len(others):
        return False
    verdicts = [one == other or same(one, other) for one, other in zip(cells, others, strict=True)]
    return None if None in verdicts and False not in verdicts else all(verdicts)


def _is_vector(rows: Rows) -> bool:
    """Whether the matrix has one row or one column."""
    return len(rows) == 1 or all(len(row) == 1 for row in rows)
