"""Replies that were paid for, in one SQLite file: stored before they are used, shared by processes."""

import fcntl
import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

Row = tuple[str, str, int, int]
"""A reply as it is stored: text, finish reason, prompt tokens, reply tokens."""

_FORMAT = 1
_TABLE = (
    "CREATE TABLE IF NOT EXISTS replies (digest BLOB PRIMARY KEY, text TEXT NOT NULL, finish TEXT NOT NULL, "
    "prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, crc INTEGER NOT NULL)"
)


class ReplyCache:
    """Digest of a request -> its reply.

    What `put` has stored survives a kill of the process at any moment; a power cut may lose the last replies, never the
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
        if (tables, version) != (set(), 0) and (tables, version) != ({"replies"}, _FORMAT):
            raise ValueError(f"{self.path} is no reply cache of this version; name another file")
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

    def get(self, digest: bytes) -> Row | None:
        """The stored reply, or None."""
        with self._explained():
            found = self._db.execute(
                "SELECT text, finish, prompt_tokens, completion_tokens, crc FROM replies WHERE digest = ?", (digest,)
            ).fetchone()
            if found is None:
                return None
            row: Row = found[:-1]
            if _crc(row) != found[-1]:
                raise sqlite3.DatabaseError("a reply is not what was stored")
        return row

    def put(self, digest: bytes, row: Row) -> None:
        """Store a reply; a reply that another process stored first stays."""
        with self._explained():
            self._db.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?)", (digest, *row, _crc(row)))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What SQLite says, with the file's name and what to do."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(f"reply cache {self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            said = " ".join(str(error).split())
            raise ValueError(
                f"reply cache {self.path} is damaged ({said}); move it away, or put a copy of it back: "
                "without it, all is asked again"
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


def _crc(row: Row) -> int:
    """A checksum: SQLite notices a damaged page only where its structure suffers."""
    return zlib.crc32(repr(row).encode())
