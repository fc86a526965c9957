"""Tables as Markdown, LaTeX and CSV."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass

MISSING = "-"
"""Stands where nothing was measured."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    best: bool = False
    """Whether it is the best of its row."""


@dataclass(frozen=True)
class Table:
    """A table, ready to be written."""

    name: str
    """Its files' name."""
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    heads: int = 2
    """How many of the first columns name the row."""


def markdown(table: Table) -> str:
    """The table in Markdown, best in bold."""

    def cell(c: Cell) -> str:
        text = c.text.replace("|", "\\|").replace("\n", " ")
        return f"**{text}**" if c.best else text

    lines = ["| " + " | ".join(name.replace("|", "\\|") for name in table.header) + " |"]
    lines.append("|" + "".join(" --- |" if i < table.heads else " ---: |" for i in range(len(table.header))))
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in table.rows]
    return f"**{table.title}.** {table.caption}\n\n" + "\n".join(lines) + "\n"


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"$<$", ">": r"$>$",
    }
)  # fmt: skip


def latex(table: Table) -> str:
    """The table for LaTeX, with booktabs; best in bold."""

    def cell(c: Cell) -> str:
        text = c.text.translate(_LATEX)
        return rf"\textbf{{{text}}}" if c.best else text

    columns = "l" * table.heads + "r" * (len(table.header) - table.heads)
    lines = [r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering"]
    lines += [rf"\caption{{{table.caption.translate(_LATEX)}}}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(name.translate(_LATEX) for name in table.header) + r" \\", r"\midrule"]
    lines += [" & ".join(map(cell, row)) + r" \\" for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def as_csv(table: Table) -> str:
    """The table as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows([c.text for c in row] for row in table.rows)
    return out.getvalue()


WRITERS: dict[str, Callable[[Table], str]] = {"md": markdown, "tex": latex, "csv": as_csv}
"""File suffix -> writer."""
