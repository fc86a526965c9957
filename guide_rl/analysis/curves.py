"""Training curves of several runs beside each other, as one picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Okabe and Ito's colours: told apart by colour-blind readers; the line styles and markers tell them apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
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
    smooth: int = 1
    """Steps in the moving average that is drawn (the raw line stays behind it, faint)."""


TRAINING_PANELS = (
    Panel("accuracy/plain", "Plain rollout accuracy", "share of plain rollouts", smooth=10),
    Panel("entropy", "Entropy of plain rollouts", "nats per token", smooth=10),
    Panel("length", "Length of plain rollouts", "tokens", smooth=10),
    Panel("guidance/rescued_share", "Rescued by guidance", "share of triggered problems", smooth=10),
    Panel("evaluation/pass@1", "Held-out pass@1, greedy", "share of problems"),
    Panel("evaluation/pass@1/hard", "Held-out pass@1, hard stratum", "share of problems"),
)


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
    """Mean of each value and up to `width - 1` before it."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def draw_curves(
    runs: Mapping[str, list[dict[str, Any]]], path: Path, panels: tuple[Panel, ...] = TRAINING_PANELS
) -> None:
    """Draw the panels for runs (label -> rows of metrics.jsonl) and save the picture; the suffix says the format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.4 * -(-len(panels) // 3)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(-(-len(panels) // 3), 3)).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel, runs)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=120)


def _draw_panel(axis: Any, panel: Panel, runs: Mapping[str, list[dict[str, Any]]]) -> None:
    """One metric of every run."""
    for i, (label, rows) in enumerate(runs.items()):
        x, y = curve(rows, panel.key)
        colour = COLOURS[i % len(COLOURS)]
        look = {"color": colour, "linestyle": STYLES[i % len(STYLES)], "label": label}
        if panel.smooth > 1:
            axis.plot(x, y, color=colour, alpha=0.15, linewidth=0.8)
            axis.plot(x, moving_average(y, panel.smooth) if len(y) else y, linewidth=1.8, **look)
        else:
            axis.plot(x, y, linewidth=1.8, marker=MARKERS[i % len(MARKERS)], markersize=4, **look)
    axis.set_title(panel.title, fontsize=11, loc="left")
    axis.set_ylabel(panel.unit, fontsize=9)
    axis.set_xlabel("rollouts sampled", fontsize=9)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
