"""Sources: where rows come from. Each is one function in `SOURCES`; a new one is a function and its name.

A row is a mapping of columns to values. What cannot be read as a row comes out as the reason in its place, with its
number, so that it is counted and not dropped.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from guide_rl.config import SourceConfig
from guide_rl.problems.sources import champ, files, hub, procedural
from guide_rl.problems.sources.rows import NumberedRow

Reader = Callable[[SourceConfig, Sequence[str] | None, int], Iterator[NumberedRow]]

SOURCES: dict[str, Reader] = {
    "jsonl": files.read_jsonl,
    "json": files.read_json,
    "csv": files.read_csv,
    "tsv": files.read_tsv,
    "parquet": files.read_parquet,
    "hub": hub.read,
    "reasoning_gym": procedural.read,
    "champ": champ.read,
}
"""(source, columns to read or None for all, seed) -> numbered rows, by the kind of the source."""

_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}


def read_rows(source: SourceConfig, columns: Sequence[str] | None, seed: int) -> Iterator[NumberedRow]:
    """The rows of a source, numbered from 1 (in a JSON lines file: the line).

    Args:
        source: what to read.
        columns: the columns that are needed, where it saves time or memory to know; None means all.
        seed: seed of procedural problems.

    Raises:
        FileNotFoundError: no such file.
        ValueError, OSError: it cannot be read; says what to do.
    """
    return SOURCES[kind_of(source)](source, columns, seed)


def kind_of(source: SourceConfig) -> str:
    """The kind of a source: as said, or by its path.

    Raises:
        ValueError: the path is a file of no known ending.
    """
    if source.kind != "auto":
        return source.kind
    kind = _SUFFIXES.get(Path(source.path.removesuffix(".gz")).suffix, "hub")
    if kind == "hub" and Path(source.path).is_file():
        endings = ", ".join(_SUFFIXES)
        raise ValueError(
            f"{source.path}: files that end in {endings} are read; say with `kind` which of them it is like"
        )
    return kind
