"""Files of rows: JSON lines, JSON, CSV, TSV (each also in gzip), Parquet. A bad row does not stop the rest."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from guide_rl.config import SourceConfig
from guide_rl.problems.sources.rows import NumberedRow

_ROWS_AT_ONCE = 1024
LONGEST_LINE = 2**28
"""Characters of a line, and of a cell: a small packed file may unpack to one that fills the memory."""


def read_jsonl(source: SourceConfig, columns: Sequence[str] | None, seed: int) -> Iterator[NumberedRow]:
    """One JSON object a line; empty lines are skipped."""
    with _opened(source.path) as lines:
        for number, line in enumerate(_lines(source.path, lines), start=1):
            if line.strip():
                yield number, _object(line)


def read_json(source: SourceConfig, columns: Sequence[str] | None, seed: int) -> Iterator[NumberedRow]:
    """A JSON list of objects, read as a whole.

    Raises:
        ValueError: the file holds something else.
    """
    with _opened(source.path) as file:
        try:
            rows = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{source.path}: not JSON ({error}); for an object a line, set kind: jsonl") from None
    if not isinstance(rows, list):
        raise ValueError(f"{source.path}: holds a {type(rows).__name__}; write a list of objects")
    for number, row in enumerate(rows, start=1):
        yield number, _row(row)


def read_csv(source: SourceConfig, columns: Sequence[str] | None, seed: int) -> Iterator[NumberedRow]:
    """Comma-separated values with a header, UTF-8; all values are text."""
    return _cells(source.path, ",")


def read_tsv(source: SourceConfig, columns: Sequence[str] | None, seed: int) -> Iterator[NumberedRow]:
    """As CSV, separated by tabs."""
    return _cells(source.path, "\t")


def _cells(path: str, delimiter: str) -> Iterator[NumberedRow]:
    """The rows of a table as text; columns without a name, such as an index or empty ones, are left out."""
    csv.field_size_limit(LONGEST_LINE)
    with _opened(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        reader = csv.DictReader(_lines(path, lines), delimiter=delimiter)
        names = [name.strip() for name in reader.fieldnames or ()]
        if any("\0" in name for name in names):
            raise ValueError(f"{path}: not UTF-8 (maybe UTF-16); save it as UTF-8")
        if twice := [name for name in names if name and names.count(name) > 1]:
            raise ValueError(f"{path}: two columns are called {twice[0]!r}; rename one")
        reader.fieldnames = names
        for number, row in enumerate(reader, start=1):
            short = None in row or None in row.values()
            yield number, "not as many cells as the header" if short else {name: row[name] for name in row if name}


def read_parquet(source: SourceConfig, columns: Sequence[str] | None, seed: int) -> Iterator[NumberedRow]:
    """A Parquet file; only the needed columns are read."""
    from pyarrow import ArrowException

    path = _existing(source.path)
    try:
        yield from enumerate(_parquet(path, columns), start=1)
    except (ArrowException, OSError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{source.path}: cannot be read as Parquet ({said}); get it again") from error


def _parquet(path: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        there = file.schema_arrow.names
        wanted = there if columns is None else [name for name in there if name in columns]
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=wanted):
            yield from batch.to_pylist()


@contextmanager
def _opened(path: str, mode: str = "rb", **options: Any) -> Iterator[IO[Any]]:
    """A file, unpacked where it ends in .gz."""
    existing = _existing(path)
    opened: Any = gzip.open if existing.suffix == ".gz" else Path.open
    with opened(existing, mode, **options) as file:
        try:
            yield file
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise OSError(f"{path}: cannot be unpacked ({error}); get it again, or remove .gz from its name") from error
        except csv.Error as error:
            raise ValueError(f"{path}: not a table ({error}); correct it") from error


def _lines(path: str, file: IO[Any]) -> Iterator[Any]:
    """The lines of a file; one without end is an error."""
    while line := file.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise ValueError(f"{path}: a line has more than {LONGEST_LINE:,} characters; correct it")
        yield line


def _existing(path: str) -> Path:
    """The path of a file that is there."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; correct the path")
    return Path(path)


def _object(line: bytes) -> dict[str, object] | str:
    """A line's object, or why it holds none."""
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        return "not UTF-8"
    except (ValueError, RecursionError) as error:
        return f"not valid JSON ({error}); a line must be one JSON object"
    return _row(row)


def _row(value: object) -> dict[str, object] | str:
    """A value that must be an object, or why it is none."""
    return value if isinstance(value, dict) else f"a {type(value).__name__}, not a JSON object"
