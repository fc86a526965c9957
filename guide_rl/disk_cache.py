"""What was paid for or took long, in one SQLite file: stored before it is used, shared by processes."""

import fcntl
import json
import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FORMAT = 2
_TABLE = "CREATE TABLE IF NOT EXISTS entries (digest BLOB PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)"


class DiskCache:
    """Digest -> a value that JSON can hold.

    What `put` has stored survives a kill of the process at any moment; a power cut may lose the last values, never the
    file (a write-ahead log without a sync a commit). The file must be on a local disk: network file systems lack the
    locks and the shared memory that the log needs.

    Args:
        path: the file; made, with its folders, where there is none.

    Raises:
        ValueError: the file is damaged or something else; says what to do.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._explained():
            # Autocommit: a statement is a transaction. SQLite itself serialises the two threads that use the connection.
            self._db = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
            try:
                with _locked(self.path.parent):  # one process lays a new file out, the others find it whole
                    self._open()
            except BaseException:
                self._db.close()
                raise

    def _open(self) -> None:
        """Check the file, or lay it out."""
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if (tables, version) != (set(), 0) and (tables, version) != ({"entries"}, _FORMAT):
            raise ValueError(f"{self.path} is no cache of this version; name another file")
        found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        self._db.execute("PRAGMA synchronous = NORMAL")
        if not version:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(_TABLE)
            self._db.execute(f"PRAGMA user_version = {_FORMAT}")
            self._db.execute("COMMIT")
        self._db.execute("PRAGMA journal_mode = WAL")

    def get(self, digest: bytes) -> Any:
        """The stored value (its tuples as lists), or None."""
        with self._explained():
            found = self._db.execute("SELECT value, crc FROM entries WHERE digest = ?", (digest,)).fetchone()
            if found is None:
                return None
            if _crc(found[0]) != found[1]:
                raise sqlite3.DatabaseError("an entry is not what was stored")
        return json.loads(found[0])

    def put(self, digest: bytes, value: object) -> None:
        """Store a value that is not None; one that another process stored first stays."""
        text = json.dumps(value)
        with self._explained():
            self._db.execute("INSERT OR IGNORE INTO entries VALUES (?, ?, ?)", (digest, text, _crc(text)))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What SQLite says, with the file's name and what to do."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(f"cache {self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            said = " ".join(str(error).split())
            raise ValueError(
                f"cache {self.path} is damaged ({said}); move it away, or put a copy of it back: "
                "without it, all is asked or worked out again"
            ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes that do the same in this folder waiting."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _crc(text: str) -> int:
    """A checksum: SQLite notices a damaged page only where its structure suffers."""
    return zlib.crc32(text.encode())
