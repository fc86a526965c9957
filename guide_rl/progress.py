"""What a run shows while it works: one live line on a terminal, one line a step elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text


class Progress:
    """Phase, tokens per second, time left, reward and share rescued of a run.

    Args:
        total: steps of the run.
        done: steps done before (resumed runs).
        label: what stands in front.
        console: where to write; standard error by default, so that standard output stays clean.
    """

    def __init__(self, total: int, *, done: int = 0, label: str = "train", console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.label, self.total, self.done, self._first = label, total, done, done
        self._phase, self._detail, self._tokens_per_s = "starting", "", 0.0
        self._metrics: Mapping[str, float] = {}
        self._started = time.monotonic()
        self._live = Live(get_renderable=self._line, console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    def resumed_at(self, step: int) -> None:
        """Count time left from here: the run has done `step` steps before."""
        self.done = self._first = step
        self._started = time.monotonic()

    def phase(self, name: str, detail: str = "") -> None:
        """Say what is being done now."""
        self._phase, self._detail = name, detail

    def step_done(self, step: int, metrics: Mapping[str, float], tokens_per_s: float | None = None) -> None:
        """Take a finished step's (or evaluation's) numbers; without a terminal, print its line."""
        self.done, self._metrics = step, metrics
        self._tokens_per_s = tokens_per_s or self._tokens_per_s
        if not self.console.is_terminal:
            self.console.print(self._summary(), highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _summary(self) -> str:
        """The line of numbers."""
        parts = [f"{self.label} {self.done}/{self.total}"]
        shown = {
            "loss": "loss {:.3g}",
            "reward": "reward {:.3f}",
            "accuracy/plain": "plain accuracy {:.1%}",
            "guidance/rescued_share": "rescued {:.0%}",
            "evaluation/pass@1": "held-out pass@1 {:.1%}",
        }
        parts += [form.format(self._metrics[key]) for key, form in shown.items() if key in self._metrics]
        if self._tokens_per_s:
            parts.append(f"{self._tokens_per_s:,.0f} tokens/s")
        if self.done > self._first:
            left = (time.monotonic() - self._started) / (self.done - self._first) * (self.total - self.done)
            parts.append(f"{duration(left)} left")
        return "  ".join(parts)

    def _line(self) -> Table:
        """The live line: numbers of the last step, and the phase of this one."""
        grid = Table.grid(padding=(0, 2))
        grid.add_row(Text(self._summary(), style="bold"), Text(f"{self._phase} {self._detail}".strip(), style="dim"))
        return grid


def duration(seconds: float) -> str:
    """Seconds -> a short text."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
