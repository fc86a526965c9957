"""What tests that run code in the sandbox share."""

import os
from pathlib import Path

import pytest

from guide_rl.graders import unit_tests
from guide_rl.graders.sandbox import bubblewrap
from guide_rl.graders.setup_error import GraderSetupError


def why_no_sandbox() -> str:
    """The reason why no sandbox starts on this machine; "" where one does."""
    try:
        bubblewrap.check()
    except GraderSetupError as error:
        return str(error)
    return ""


needs_sandbox = pytest.mark.skipif(bool(why_no_sandbox()), reason=why_no_sandbox() or "there is one")


def break_bubblewrap(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the first bubblewrap on the path is one that starts nothing."""
    broken = folder / "bwrap"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def close_sandboxes() -> None:
    """End the sandboxes of this process."""
    for sandbox in unit_tests.sandboxes():
        sandbox.close()
    unit_tests.sandboxes.cache_clear()


def children() -> set[int]:
    """All processes that descend from this one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found, new = set(), {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found
