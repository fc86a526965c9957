"""The paper's figures 1 to 4 for one's own runs. Imports matplotlib where a figure is drawn."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guide_rl.analysis.curves import COLOURS, MARKERS, WINDOW, moving_average, windows
from guide_rl.analysis.gains import ALL, GainRow
from guide_rl.analysis.run_data import Measured, Run
from guide_rl.atomic_files import put_file
from guide_rl.equations.gains import GuidedGains, guided_gains
from guide_rl.equations.pass_at_k import pass_at_k_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)), (0, (8, 2)))
QUANTILE = 1.96


@dataclass(frozen=True)
class Drawn:
    """A figure and what stands under it."""

    name: str
    """Its files' name."""
    title: str
    caption: str
    figure: "Figure"


@dataclass(frozen=True)
class Line:
    """One line of a panel."""

    label: str
    x: np.ndarray
    y: np.ndarray
    error: np.ndarray | None = None
    """Half of the shaded interval."""


@dataclass(frozen=True)
class Panel:
    """One plot of a figure."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    percent: bool = False
    """Whether the y axis is a share, from 0 to 1, shown in per cent."""
    log2: bool = False
    """Whether the x axis has powers of two."""


def draw(panels: Sequence[Panel]) -> "Figure":
    """Panels side by side with one legend; lines differ in colour, dashes and marker, so they are told apart in grey."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * len(panels) + 0.4, 3.6), layout="constrained")
    labels = list(dict.fromkeys(line.label for panel in panels for line in panel.lines))
    handles: dict[str, Any] = {}
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for line in panel.lines:
            handles.setdefault(line.label, _draw_line(axis, line, labels.index(line.label), len(labels)))
        _dress(axis, panel)
    figure.legend(
        handles.values(),
        map(_verbatim, handles),
        loc="outside lower center",
        ncols=min(len(labels), 4),
        frameon=False,
        handlelength=3,
    )
    return figure


def _verbatim(name: str) -> str:
    """A name as matplotlib shows it: no mathematics between dollars, no characters without a shape."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name).replace("$", r"\$")


def _draw_line(axis: "Axes", line: Line, place: int, lines: int) -> Any:
    """A line, thinner than the ones under it, so that lines that coincide all show."""
    below = lines - 1 - place
    colour = COLOURS[place % len(COLOURS)]
    if line.error is not None:
        axis.fill_between(line.x, line.y - line.error, line.y + line.error, color=colour, alpha=0.18, linewidth=0)
    marked = len(line.x) <= 20
    return axis.plot(
        line.x,
        line.y,
        color=colour,
        linestyle=DASHES[place % len(DASHES)],
        marker=MARKERS[place % len(MARKERS)] if marked else None,
        markersize=4 + 1.2 * below,
        linewidth=1.5 + 0.9 * below,
        clip_on=False,
    )[0]


def _dress(axis: "Axes", panel: Panel) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

    axis.set_title(panel.title, fontsize=11, loc="left")
    axis.set_xlabel(panel.x_label, fontsize=9)
    axis.set_ylabel(panel.y_label, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if panel.log2:
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted({float(x) for line in panel.lines for x in line.x}))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.minorticks_off()
    if panel.percent:
        axis.set_ylim(0, 1)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        low, high = axis.dataLim.intervaly
        low, high = min(low, 0.0), max(high, 0.0)
        room = 0.05 * (high - low) or 1.0
        axis.set_ylim(low - room * (low < 0), high + room)


def save(drawn: Drawn, folder: Path) -> list[str]:
    """Write a figure as PNG and SVG; returns the file names. The same figure gives the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(drawn.figure)
    names = [f"{drawn.name}.png", f"{drawn.name}.svg"]
    with matplotlib.rc_context({"svg.hashsalt": drawn.name, "svg.fonttype": "none"}):
        put_file(folder / names[0], lambda file: drawn.figure.savefig(file, format="png", dpi=150))
        put_file(folder / names[1], lambda file: drawn.figure.savefig(file, format="svg", metadata={"Date": None}))
    return names


# ---------------------------------------------------------------------- the four figures


def gains_figure(rows: Sequence[GainRow], k: int, problems: str) -> Drawn | None:
    """Figure 1: capability gain, self-distillation and their sum over training steps; None without two steps of a model."""
    wholes = [row for row in rows if row.step is not None and "/" not in row.benchmark and row.trials.k == k]
    several = {row.benchmark for row in wholes} - {ALL}
    shown = [row for row in wholes if (row.benchmark == ALL) == (len(several) > 1)]
    by_model: dict[str, list[GainRow]] = {}
    for row in sorted(shown, key=lambda row: row.step or 0):
        by_model.setdefault(row.model, []).append(row)
    if not any(len(found) >= 2 for found in by_model.values()):
        return None
    sizes = {row.problems for row in shown}
    unit = f"problems of {sizes.pop():,}" if len(sizes) == 1 else "problems"
    panels = []
    for name, title in (
        ("capability", "Capability gain"),
        ("distillation", "Self-distillation"),
        ("progress", "Progress (sum of both)"),
    ):
        lines = []
        for model, found in by_model.items():
            estimates = [getattr(row.trials, name) for row in found]
            lines.append(
                Line(
                    model,
                    np.array([row.step for row in found]),
                    np.array([e.mean for e in estimates]),
                    np.array([e.standard_error for e in estimates]),
                )
            )
        panels.append(Panel(title, "training step", unit, tuple(lines)))
    caption = (
        f"As the paper's figure 1, on {problems}: problems that the untrained policy gets wrong at pass@1 and the trained one "
        f"solves, out of reach of {k} samples of the untrained policy (capability gain) or within it (self-distillation). "
        "Mean of 10 trials; shaded: standard error of the draws."
    )
    return Drawn("figure_1_gains", "Gains over training", caption, draw(panels))


def guided_figure(measured: Measured, model: str, k: int) -> Drawn | None:
    """Figure 2: pass@k with and without guidance: all problems, those out of reach, those within; None unless measured."""
    pools = _guided_pools(measured, model)
    if pools is None:
        return None
    plain, guided, greedy = pools
    ks = [2**i for i in range(12) if 2**i <= min(plain.shape[1], guided.shape[1])]
    panels = [_pass_at_k_panel("All", pass_at_k_curves(plain, ks), pass_at_k_curves(guided, ks), ks)]
    k = min(k, plain.shape[1] // 2)  # some rollouts classify a problem, the others measure it
    inner = [j for j in ks if j <= plain.shape[1] - k - (greedy is None)] if k else []
    note = f"the classes need more plain samples a problem than {plain.shape[1]}"
    if inner:
        found: GuidedGains = guided_gains(plain, guided, greedy, k, inner)
        for subset, title in ((found.capability, "Out of reach (C)"), (found.distillation, "Within reach (D)")):
            panels.append(_pass_at_k_panel(title, subset.plain_SK, subset.guided_SK, inner))
        note = (
            f"C: problems that {model} misses at pass@1 and in {k} plain samples; D: missed at pass@1, solved within {k}. "
            "The curves are of the rollouts that did not classify the problem"
        )
    caption = (
        f"As the paper's figure 2: pass@k of {model} with and without guidance in the prompt, {len(plain):,} problems. "
        f"{note[0].upper()}{note[1:]}. Shaded: 1.96 standard errors over problems."
    )
    name = re.sub(r"[^\w.-]+", "_", f"figure_2_guidance_{model}")
    return Drawn(name, f"Guidance and pass@k: {model}", caption, draw(panels))


def _pass_at_k_panel(title: str, plain_PK: np.ndarray, guided_PK: np.ndarray, ks: list[int]) -> Panel:
    """Mean pass@k of plain and guided rollouts over problems, with 1.96 standard errors."""
    lines = []
    for name, curves in (("plain", plain_PK), ("guided", guided_PK)):
        mean = curves.mean(0) if len(curves) else np.full(len(ks), np.nan)
        error = QUANTILE * curves.std(0, ddof=1) / np.sqrt(len(curves)) if len(curves) > 1 else None
        lines.append(Line(name, np.array(ks), mean, error))
    return Panel(f"{title}: {len(plain_PK):,} problems", "k", "pass@k", tuple(lines), True, True)


def _guided_pools(measured: Measured, model: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
    """Plain, guided and greedy rollouts of a model on the problems that have guidance, all benchmarks together."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []
    for benchmark in measured.benchmarks:
        step = measured.last(model, benchmark)
        guided = measured.matrix(model, benchmark, greedy=False, guided=True, step=step)
        plain = measured.matrix(model, benchmark, greedy=False, step=step)
        if guided is None or plain is None or "/" in benchmark:
            continue
        place = {p: i for i, p in enumerate(measured.problem_ids(model, benchmark, greedy=False, step=step))}
        ids = measured.problem_ids(model, benchmark, greedy=False, guided=True, step=step)
        both = [(i, place[p]) for i, p in enumerate(ids) if p in place]
        greedy = measured.matrix(model, benchmark, greedy=True, step=step)
        greedy_ids = measured.problem_ids(model, benchmark, greedy=True, step=step)
        chosen = None
        if greedy is not None:
            at = {p: i for i, p in enumerate(greedy_ids)}
            both = [(i, j) for i, j in both if ids[i] in at]
            chosen = greedy[[at[ids[i]] for i, _ in both]]
        if both:
            found.append((plain[[j for _, j in both]], guided[[i for i, _ in both]], chosen))
    if not found:
        return None
    cut = [min(arrays[i].shape[1] for arrays in found) for i in range(2)]  # type: ignore[union-attr]
    plain, guided = (np.concatenate([arrays[i][:, : cut[i]] for arrays in found]) for i in range(2))  # type: ignore[index]
    greedies = [arrays[2] for arrays in found if arrays[2] is not None]
    width = min((g.shape[1] for g in greedies), default=0)
    greedy = np.concatenate([g[:, :width] for g in greedies]) if len(greedies) == len(found) else None
    return plain, guided, greedy


TRAINING = (
    ("accuracy/plain", "Plain rollout accuracy", "share of plain rollouts", True),
    ("entropy", "Entropy of plain rollouts", "nats per token", False),
    ("length", "Length of plain rollouts", "tokens", False),
)


def training_figure(runs: Mapping[str, Sequence[Run]]) -> Drawn | None:
    """Figure 3: accuracy, entropy and length of plain rollouts over training; runs of one name are seeds of one method."""
    panels = [
        Panel(title, "training step", unit, _curves(runs, key), percent) for key, title, unit, percent in TRAINING
    ]
    if not any(panel.lines for panel in panels):
        return None
    return Drawn("figure_3_training", "Training", "As the paper's figure 3. " + _shading(runs), draw(panels))


def reward_figure(runs: Mapping[str, Sequence[Run]]) -> Drawn | None:
    """Figure 4: reward of all rollouts over training steps."""
    lines = _curves(runs, "reward")
    if not lines:
        return None
    panel = Panel("Reward in training", "training step", "mean reward of all rollouts", lines)
    caption = "As the paper's figure 4, which compares objectives. " + _shading(runs)
    return Drawn("figure_4_rewards", "Rewards in training", caption, draw([panel]))


def _shading(runs: Mapping[str, Sequence[Run]]) -> str:
    """What the shaded areas are."""
    alone = f"mean of the last {WINDOW} steps; shaded: 1.96 standard errors of these {WINDOW} values"
    seeds = (
        f"mean over the seeds of a method, each over its last {WINDOW} steps; shaded: 1.96 standard errors over seeds"
    )
    kinds = {len(found) > 1 for found in runs.values()}
    texts = [text for many, text in ((False, alone), (True, seeds)) if many in kinds]
    return " and ".join(texts).capitalize() + "."


def _curves(runs: Mapping[str, Sequence[Run]], key: str) -> tuple[Line, ...]:
    """A metric of every method over its steps."""
    lines = []
    for name, seeds in runs.items():
        found = [
            {row["step"]: row[key] for row in run.metrics if isinstance(row.get(key), int | float)} for run in seeds
        ]
        steps = sorted(set.intersection(*map(set, found))) if found else []
        if not steps:
            continue
        values = np.array([[of_seed[step] for step in steps] for of_seed in found], dtype=float)
        values[~np.isfinite(values)] = np.nan
        smooth = np.array([moving_average(row, WINDOW) for row in values])
        if len(seeds) > 1:
            error = QUANTILE * smooth.std(0, ddof=1) / np.sqrt(len(seeds))
        else:
            error = QUANTILE * np.array([_standard_error(window) for window in windows(values[0], WINDOW)])
        lines.append(Line(name, np.array(steps), smooth.mean(0), error))
    return tuple(lines)


def _standard_error(values: np.ndarray) -> float:
    """Of the mean of some values; 0 of one."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
