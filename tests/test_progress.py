"""What a run shows: the numbers are right and fit the terminal."""

import io

import pytest
from rich.console import Console

from guide_rl import progress as progress_module
from guide_rl.config import BudgetConfig
from guide_rl.progress import Progress, duration


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test turns."""
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def shown(total: int, budget: BudgetConfig | None = None, **options) -> tuple[Progress, io.StringIO]:
    text = io.StringIO()
    return Progress(total, budget, console=Console(file=text, width=80, **options)), text


def test_time_left_follows_the_steps(clock):
    progress, text = shown(10)
    clock[0] = 20.0
    progress.step_done(2, {})
    assert "2/10  1 min 20 s left" in text.getvalue()


def test_time_left_follows_the_budget_where_it_ends_first(clock):
    progress, text = shown(1000, BudgetConfig(rollouts=100))
    clock[0] = 30.0
    progress.step_done(1, {"total/rollouts": 25.0})
    progress.step_done(1, {"evaluation/pass@1": 0.5})  # an evaluation has no totals
    assert text.getvalue().count("1 min 30 s left") == 2


def test_time_left_after_a_resume_counts_only_what_this_process_did(clock):
    progress, text = shown(100, BudgetConfig(tokens=1000))
    clock[0] = 50.0
    progress.resumed_at(40, {"rollouts": 7, "tokens": 500})
    clock[0] = 60.0
    progress.step_done(50, {"total/tokens": 750.0})
    assert "10 s left" in text.getvalue()


def test_a_log_says_what_is_being_done_until_the_first_step_is(clock):
    progress, text = shown(2)
    progress.phase("starting", "engine verl")
    for name in ("sampling", "sampling", "updating"):
        progress.phase(name, "step 1")
    assert text.getvalue().splitlines() == ["starting engine verl", "sampling step 1", "updating step 1"]
    progress.step_done(1, {"reward": 0.5})
    progress.phase("sampling", "step 2")
    assert len(text.getvalue().splitlines()) == 4


def test_live_lines_never_wrap(clock):
    progress, text = shown(100000, force_terminal=True)
    metrics = dict.fromkeys(progress.shown, 123456.789)
    progress.step_done(99999, metrics, 123456.0)
    progress.phase("sampling", "step 99999, " + "9" * 100)
    progress.console.print(progress._lines())
    lines = text.getvalue().splitlines()
    assert len(lines) == 2
    assert all("…" in line for line in lines)


@pytest.mark.parametrize(("seconds", "text"), [(59.4, "59 s"), (61, "1 min 01 s"), (3725, "1 h 02 min")])
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text
