"""What a run shows while it works: two live lines on a terminal, else a line a phase up to the first step, then one a step."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from guide_rl.config import BudgetConfig

SHOWN = {
    "reward": "reward {:.3f}",
    "accuracy/plain": "plain accuracy {:.1%}",
    "guidance/rescued_share": "rescued {:.0%}",
    "truncated": "truncated {:.0%}",
    "evaluation/pass@1": "held-out pass@1 {:.1%}",
}
"""What is shown of a step's metrics: key -> form. The loss is not: on policy it is about 0 whatever happens."""


class Progress:
    """Phase, tokens per second, time left, and a few metrics of a run.

    Args:
        total: steps of the run.
        budget: what may end the run before its last step.
        label: what stands in front.
        shown: metrics key -> form, of what is shown.
        unit: what a step does, such as problems: then its rate is shown.
        console: where to write; standard error by default, so that standard output stays clean.
    """

    def __init__(
        self,
        total: int,
        budget: BudgetConfig | None = None,
        *,
        label: str = "train",
        shown: Mapping[str, str] = SHOWN,
        unit: str = "",
        console: Console | None = None,
    ) -> None:
        self.console = console or Console(stderr=True)
        self.label, self.total, self.done, self.shown, self._unit = label, total, 0, shown, unit
        limits = {} if budget is None else {"rollouts": budget.rollouts, "tokens": budget.tokens}
        self._limits = {name: limit for name, limit in limits.items() if limit is not None}
        self._phase, self._tokens_per_s = "preparing", 0.0
        self._detail: str | Callable[[], str] = ""
        self._metrics: Mapping[str, float] = {}
        self._started, self._start_step, self._start_share = time.monotonic(), 0, 0.0
        self._share = 0.0
        self._live = Live(get_renderable=self._lines, console=self.console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    def resumed_at(self, step: int, spent: Mapping[str, float] | None = None) -> None:
        """Count time left from here: the run has done `step` steps and spent rollouts and tokens before."""
        self.done, self._share = step, self._share_done(step, spent or {})
        self._started, self._start_step, self._start_share = time.monotonic(), step, self._share

    def phase(self, name: str, detail: str | Callable[[], str] = "") -> None:
        """Say what is being done now; a function is called whenever it is shown, also from another thread."""
        new, self._phase, self._detail = name != self._phase, name, detail
        if new and not self._metrics and not self.console.is_terminal:
            self.note(self._doing())

    def step_done(self, step: int, metrics: Mapping[str, float], tokens_per_s: float | None = None) -> None:
        """Take a finished step's (or evaluation's) numbers; without a terminal, print its line."""
        self.done, self._metrics = step, metrics
        spent = {name: metrics.get(f"total/{name}", 0.0) for name in self._limits}
        self._share = max(self._share, self._share_done(step, spent))
        self._tokens_per_s = tokens_per_s or self._tokens_per_s
        if not self.console.is_terminal:
            self.console.print(self._summary(), highlight=False, soft_wrap=True)

    def _share_done(self, step: int, spent: Mapping[str, float]) -> float:
        """How much of the run is done: by its steps or by its budget, whichever is nearer to its end."""
        return max(step / self.total, *(spent.get(name, 0.0) / limit for name, limit in self._limits.items()), 0.0)

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _summary(self) -> str:
        """The line of numbers; what matters most comes first, as a narrow terminal cuts the rest off."""
        parts = [f"{self.label} {self.done}/{self.total}"]
        if self._share > self._start_share:
            elapsed = time.monotonic() - self._started
            left = elapsed / (self._share - self._start_share) * max(0.0, 1.0 - self._share)
            parts.append(f"{duration(left)} left")
            if self._unit:
                parts.append(f"{(self.done - self._start_step) / max(elapsed, 1e-9):,.1f} {self._unit}/s")
        parts += [form.format(self._metrics[key]) for key, form in self.shown.items() if key in self._metrics]
        if self._tokens_per_s:
            parts.append(f"{self._tokens_per_s:,.0f} tokens/s")
        return "  ".join(parts)

    def _lines(self) -> Group:
        """The live lines: numbers of the last step, and the phase of this one; cut off where the terminal ends."""
        numbers = Text(self._summary(), style="bold", no_wrap=True, overflow="ellipsis")
        phase = Text(self._doing(), style="dim", no_wrap=True, overflow="ellipsis")
        return Group(numbers, phase)

    def _doing(self) -> str:
        """The phase and its detail."""
        detail = self._detail() if callable(self._detail) else self._detail
        return f"{self._phase} {detail}".strip()


def duration(seconds: float) -> str:
    """Seconds -> a short text."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
