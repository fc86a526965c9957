"""Training curves of several runs beside each other, as one picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart by colour-blind readers; widths, dashes and markers tell the lines apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", (0, (3, 1.5)))
MARKERS = "osD^vPX"


@dataclass(frozen=True)
class Panel:
    """One plot of the picture."""

    key: str
    """The metric's key in metrics.jsonl."""
    title: str
    """What stands above it."""
    unit: str
    """The label of its axis."""
    top: float | None = None
    """Where its axis ends, from 0; None: a little above the highest line."""
    smooth: bool = True
    """Whether to draw the mean of the last `WINDOW` steps (the raw line stays behind it, faint)."""


TRAINING_PANELS = (
    Panel("evaluation/pass@1", "Held-out greedy pass@1: all", "share of problems", top=1, smooth=False),
    Panel("evaluation/pass@1/easy", "Held-out greedy pass@1: easy stratum", "share of problems", top=1, smooth=False),
    Panel("evaluation/pass@1/hard", "Held-out greedy pass@1: hard stratum", "share of problems", top=1, smooth=False),
    Panel("groups/uniform_after", "Groups of equal rewards", "share of groups", top=1),
    Panel("accuracy/guided", "Guided rollouts: accuracy", "share of guided rollouts", top=1),
    Panel("guidance/rescued_share", "Rescued by guidance", "share of triggered problems", top=1),
    Panel("accuracy/plain", "Plain rollouts: accuracy", "share of plain rollouts", top=1),
    Panel("entropy", "Plain rollouts: entropy", "nats per token"),
    Panel("length", "Plain rollouts: length", "tokens"),
)
"""Three rows: what was learned, what guidance did, what the policy did without it."""
WINDOW = 10
"""Steps in a moving average."""


def curve(rows: list[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """A metric over the rollouts sampled so far: x and y, for the lines that hold it.

    An evaluation line carries no total: it stands at the total of the step before it.
    """
    xs, ys, total = [], [], 0.0
    for row in rows:
        total = row.get("total/rollouts", total)
        if key in row:
            xs.append(total)
            ys.append(row[key])
    return np.array(xs), np.array(ys)


def moving_average(values: np.ndarray, width: int) -> np.ndarray:
    """Mean of each value and up to `width - 1` before it; what is not finite spoils its own windows only."""
    return np.array([window.mean() for window in windows(values, width)])


def windows(values: np.ndarray, width: int) -> list[np.ndarray]:
    """Each value with up to `width - 1` before it."""
    return [values[max(0, end - width) : end] for end in range(1, len(values) + 1)]


def draw_curves(
    runs: Mapping[str, list[dict[str, Any]]],
    path: Path,
    panels: tuple[Panel, ...] = TRAINING_PANELS,
    *,
    title: str = "Training curves",
) -> None:
    """Draw the panels for runs (label -> rows of metrics.jsonl) and save the picture; the suffix says the format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = curves_figure(runs, panels, title=title)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=120)


def curves_figure(
    runs: Mapping[str, list[dict[str, Any]]], panels: tuple[Panel, ...] = TRAINING_PANELS, *, title: str
) -> "Figure":
    """The picture of `draw_curves`: three panels a row, one legend."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = -(-len(panels) // 3)
    figure = Figure(figsize=(12, 1.2 + 2.9 * rows), layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1))
    axes = figure.subplots(rows, 3, sharex=True, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel, runs)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis in axes[: len(panels)][-3:]:
        axis.set_xlabel("rollouts sampled", fontsize=9)
    axes[0].set_xlim(left=0)
    figure.suptitle(title, fontsize=14)
    handles, labels = axes[0].get_legend_handles_labels()
    note = f"Faint lines: single steps. Strong lines: evaluations, or the mean of the last {WINDOW} steps."
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=len(labels),
        frameon=False,
        handlelength=3,
        title=note,
        title_fontsize=9,
    )
    return figure


def _draw_panel(axis: Any, panel: Panel, runs: Mapping[str, list[dict[str, Any]]]) -> None:
    """One metric of every run; each line is thinner than the one under it, so that lines that coincide all show."""
    for i, (label, rows) in enumerate(runs.items()):
        x, y = curve(rows, panel.key)
        colour, below = COLOURS[i % len(COLOURS)], len(runs) - 1 - i
        drawn = {"color": colour, "clip_on": False, "in_layout": False}  # whole at the limits; no room is kept for that
        if panel.smooth:
            axis.plot(x, y, alpha=0.3, linewidth=0.8, **drawn)
        axis.plot(
            x,
            moving_average(y, WINDOW) if panel.smooth else y,
            linestyle=STYLES[i % len(STYLES)],
            linewidth=1.8 + 0.9 * below,
            marker=None if panel.smooth else MARKERS[i % len(MARKERS)],
            markersize=4 + 1.2 * below,
            label=label,
            zorder=3,
            **drawn,
        )
    axis.set_title(panel.title, fontsize=11, loc="left")
    axis.set_ylabel(panel.unit, fontsize=9)
    axis.set_ylim(0, panel.top)
    axis.tick_params(labelbottom=True)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
