"""Ctrl-C and SIGTERM stop a run between two consistent states, never inside one."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Interrupts:
    """While active, SIGINT and SIGTERM raise KeyboardInterrupt; inside `held()` they wait until its end.

    A second SIGINT inside `held()` is not held: it stops the run at once.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._pending = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    @property
    def pending(self) -> bool:
        """Whether an interrupt waits for the end of `held()`."""
        return self._pending

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """A section that a first interrupt does not cut."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if self._pending and not self._depth:
            self._pending = False
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._depth and not self._pending:
            self._pending = True
            return
        raise KeyboardInterrupt
