"""Processes of a run, found by a mark in their environment, which Ray's processes inherit."""

from pathlib import Path


def processes(mark: str) -> dict[int, str]:
    """Processes that have this in their environment: their command lines."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has just ended
            continue
    return found
