"""Files and folders that are there whole or not at all, whatever happens while they are written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def put_text(path: Path, text: str) -> None:
    """Write a text file; half surrogate pairs, which UTF-8 cannot hold, are written as escapes."""
    put_file(path, lambda partial: partial.write_text(text, encoding="utf-8", errors="backslashreplace"))


def put_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file under another name, then put it in place at once, instead of what was there."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        sync(partial)
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk names no file
            error.filename = str(path)
        raise
    sync(path.parent)


def put_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a folder under another name, then put it in place at once, instead of what was there.

    A kill between the two renames leaves the old folder under its other name, which `mend` puts back.
    """
    partial, old = (path.with_name(f".{path.name}.{suffix}") for suffix in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        write(partial)
        for file in partial.rglob("*"):
            sync(file)
        sync(partial)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        partial.rename(path)
        sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def mend(parent: Path) -> None:
    """Undo what a killed `put_folder` left half done in this folder."""
    for old in parent.glob(".*.old"):
        final = old.with_name(old.name[1:].removesuffix(".old"))
        if final.exists():
            shutil.rmtree(old)
        else:
            old.rename(final)
    for partial in parent.glob(".*.partial"):
        if partial.is_dir():
            shutil.rmtree(partial)


def sync(path: Path) -> None:
    """Make what was written to a file or folder survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
