"""`guide demo`: the methods from one start, each until it has sampled as many rollouts, in one table.

Every method is a `guide train` process of its own, two at a time; called again in the same folder, the demo continues
where it was.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from guide_rl.analysis.curves import draw_curves
from guide_rl.analysis.report import ReportOptions, report
from guide_rl.config import TrainRecipe
from guide_rl.demo import world
from guide_rl.recipes import read_recipe, write_recipe
from guide_rl.run_folder import RunFolder

RECIPE = Path(__file__).parent / "recipe.yaml"
"""What all methods share."""

METHODS: dict[str, tuple[str, ...]] = {
    "grpo": ("guidance.trigger=never", "loss.filter_uniform=false"),
    "filter_grpo": ("guidance.trigger=never",),
    "guide_grpo": (),
    "guide_grpo_no_ratio": ("loss.guided_ratio=none", "loss.baseline=plain"),
}
"""What each method changes in recipe.yaml; `guide_grpo` is the paper's setting, which is the default."""

LABELS = {
    "base": "before training",
    "grpo": "GRPO",
    "filter_grpo": "Filter-GRPO",
    "guide_grpo": "Guide-GRPO (paper)",
    "guide_grpo_no_ratio": "Guide-GRPO, no ratio",
}
STRATA = ("all", "easy", "hard")
SAMPLES = 16
"""Rollouts per held-out problem for pass@16."""

Result = dict[str, Any]


def run_demo(out: Path, *, seed: int, rollouts: int, base: Path = world.BASE_MODEL) -> Result:
    """Train every method, evaluate them on held-out problems, print the tables and write figures and summary.json.

    Args:
        out: folder of everything that the demo writes.
        seed: seed of problems and training.
        rollouts: what each method samples in training at least, plain and guided together; it ends with a whole step.
        base: the model that all start from.

    Returns:
        What summary.json holds.

    Raises:
        FileExistsError: `out` holds a demo with other settings; nothing was written.
        ChildProcessError: a training process failed (its log is named).
        KeyboardInterrupt: on Ctrl-C, after the running methods have saved.
    """
    console = Console(stderr=True)
    jobs = demo_jobs(rollouts, base)
    check_settings(out, jobs, seed)
    world.write(out / "problems", seed)
    console.print(f"Training {len(METHODS)} methods, two at a time, into {out}", highlight=False, soft_wrap=True)
    train_all(out, jobs, seed=seed, console=console)
    console.print(f"Evaluating on held-out problems: pass@1 (greedy) and pass@{SAMPLES}", highlight=False)
    summary = {"methods": evaluate_all(out, seed, base, console=console), "seed": seed, "rollouts": rollouts}
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    runs = {LABELS[method]: RunFolder(out / method).read("metrics.jsonl") for method in METHODS}
    draw_curves(runs, out / "curves.png", title=f"guide demo: {len(runs)} methods from one model, seed {seed}")
    printed = Console()
    for table in (rollouts_table(summary), tokens_table(out)):
        printed.print(table)
        printed.print()
    report([f"{LABELS[method]}={out / method}" for method in METHODS], ReportOptions(out / "report"))
    shown = (
        ("curves", "curves.png"),
        ("report", "report/index.html"),
        ("numbers", "summary.json"),
        ("runs", "*/metrics.jsonl"),
    )
    for what, name in shown:
        printed.print(f"{what}: {out / name}", highlight=False, soft_wrap=True)
    return summary


def demo_jobs(rollouts: int, base: Path = world.BASE_MODEL) -> dict[str, tuple[str, ...]]:
    """What each method changes in recipe.yaml; it is evaluated every twentieth of GRPO's steps, at most every step."""
    shared = (f"model.path={base}", f"budget.rollouts={rollouts}", f"evaluation.every={max(1, rollouts // 2560)}")
    return {method: (*lines, *shared) for method, lines in METHODS.items()}


def check_settings(out: Path, jobs: Mapping[str, Sequence[str]], seed: int) -> None:
    """Raise FileExistsError when a run in `out` was started with other settings; writes nothing.

    A folder in which no run has started yet can be used with any settings.
    """
    for name, lines in jobs.items():
        run = RunFolder(out / name)
        if not (run.path / "recipe.yaml").exists():
            continue
        recipe = write_recipe(read_recipe(TrainRecipe, RECIPE, _overrides(out, name, lines, seed)))
        if changed := [f"{key}: {what}" for key, what in run.changes(recipe).items()]:
            raise FileExistsError(
                f"{run.path} has other settings ({'; '.join(changed)}); use another --out, or the same settings to continue"
            )


def train_all(out: Path, jobs: Mapping[str, Sequence[str]], *, seed: int, console: Console) -> None:
    """Run or continue every training to its end, as many at a time as there are cores (at most two).

    Args:
        out: holds problems/, and gets a run folder and a log per job.
        jobs: name of the run folder -> what it changes in recipe.yaml.
        seed: the runs' seed.
        console: where progress is shown.

    Raises:
        ChildProcessError: a training process failed (its log is named).
    """
    at_once = min(2, os.cpu_count() or 1)
    waiting = list(jobs)
    running: dict[str, subprocess.Popen[bytes]] = {}
    with Live(console=console, refresh_per_second=2, transient=True) as live:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    name = waiting.pop(0)
                    running[name] = _start(out, name, jobs[name], seed)
                time.sleep(0.2)
                live.update(_progress_table(out, jobs))
                for name, process in list(running.items()):
                    if process.poll() is not None:
                        del running[name]
                        _check(out, name, process.returncode)
        except BaseException:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()
            raise


def evaluate_all(
    out: Path, seed: int, base: Path = world.BASE_MODEL, *, console: Console | None = None
) -> dict[str, Result]:
    """Greedy pass@1 and pass@16 of the base model and of every trained one, with what training took.

    How many are evaluated shows on the console meanwhile (default: standard error).
    """
    models = {"base": base} | {method: out / method / "model" for method in METHODS}
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(min(2, os.cpu_count() or 1), spawn, _use_one_thread) as pool,
        (console or Console(stderr=True)).status(f"0 of {len(models)} models evaluated") as status,
    ):
        futures = {name: pool.submit(evaluate_model, path, out / "problems", seed) for name, path in models.items()}
        for done, _ in enumerate(as_completed(futures.values()), 1):
            status.update(f"{done} of {len(models)} models evaluated")
        results = {name: future.result() for name, future in futures.items()}
    for method in METHODS:
        run = RunFolder(out / method)
        last = next(row for row in reversed(run.read("metrics.jsonl")) if "total/rollouts" in row)
        seconds = sum(row["seconds"] for row in run.read("timings.jsonl"))
        results[method] |= {
            "rollouts": int(last["total/rollouts"]),
            "tokens": int(last["total/tokens"]),
            "steps": last["step"],
            "seconds": round(seconds, 1),
        }
    return results


def _use_one_thread() -> None:
    """Keep the processes that evaluate from competing for the cores."""
    import torch

    torch.set_num_threads(1)


def evaluate_model(model: Path, problems: Path, seed: int) -> Result:
    """pass@1 (greedy) and pass@16 of one model on the held-out problems, over all and per stratum."""
    import torch

    from guide_rl.evaluation import evaluate
    from guide_rl.graders.pool import GraderPool
    from guide_rl.policy import load_policy
    from guide_rl.problems import load_problems
    from guide_rl.prompts import Prompts
    from guide_rl.samplers.transformers import TransformersSampler

    recipe = read_recipe(TrainRecipe, RECIPE)
    policy = load_policy(replace(recipe.model, path=str(model)), device=torch.device("cpu"), seed=0)
    policy.model.eval()
    prompts = Prompts(policy.tokenizer, recipe.prompts)

    def sampler_for(temperature: float) -> TransformersSampler:
        return TransformersSampler(
            model=policy.model,
            tokenizer=policy.tokenizer,
            temperature=temperature,
            max_tokens=recipe.sampling.max_tokens,
            batch_size=recipe.sampling.batch_size,
        )

    with GraderPool.of(recipe.grading) as grader:
        metrics, _ = evaluate(
            load_problems(problems / "held_out.jsonl"),
            lambda problem, guided: prompts.plain_ids(problem),
            sampler_for,
            grader,
            replace(recipe.evaluation, samples=SAMPLES),
            seed=seed,
        )
    suffix = {"all": "", "easy": "/easy", "hard": "/hard"}
    return {
        name: {stratum: metrics[f"evaluation/{name}{suffix[stratum]}"] for stratum in STRATA}
        for name in ("pass@1", f"pass@{SAMPLES}")
    }


def at_tokens(rows: Sequence[Mapping[str, Any]], tokens: float) -> dict[str, float]:
    """The last greedy evaluation before a run had sampled more than `tokens` tokens, and where it stood."""
    found, total = {}, {"total/tokens": 0.0, "total/rollouts": 0.0}
    for row in rows:
        total |= {key: row[key] for key in total if key in row}
        if "evaluation/pass@1" in row and total["total/tokens"] <= tokens:
            found = {**row, **total}
    return found


def rollouts_table(summary: Result) -> Table:
    """Table 1: all methods at the end of the step in which they reached the demo's rollouts."""
    table = methods_table(
        f"Held-out problems after at least {summary['rollouts']:,} rollouts (seed {summary['seed']})",
        "Training ends with the step that reaches them; guided rollouts count.",
    )
    for metric in ("pass@1", f"pass@{SAMPLES}"):
        for stratum in ("easy", "hard"):
            table.add_column(f"{metric}\n{stratum}", justify="right")
    for name in ("rollouts", "tokens"):
        table.add_column(name, justify="right")
    for method, result in summary["methods"].items():
        scores = [result[metric][stratum] for metric in ("pass@1", f"pass@{SAMPLES}") for stratum in ("easy", "hard")]
        spent = [f"{result[name]:,.0f}" if name in result else "" for name in ("rollouts", "tokens")]
        table.add_row(LABELS[method], *(f"{score:.1%}" for score in scores), *spent)
    return table


def tokens_table(out: Path) -> Table:
    """Table 2: the last evaluation of each method within the fewest tokens that any of them sampled."""
    runs = {method: RunFolder(out / method).read("metrics.jsonl") for method in METHODS}
    tokens = min(max(row.get("total/tokens", 0.0) for row in rows) for rows in runs.values())
    points = {method: at_tokens(rows, tokens) for method, rows in runs.items()}
    caption = "The last evaluation of each method within the fewest\ntokens that any of them sampled."
    if not all(point["total/rollouts"] for point in points.values()):
        caption += (
            "\n0 rollouts: not evaluated within them after training began,\nso these are its numbers before training."
        )
    table = methods_table(f"Held-out problems within {tokens:,.0f} tokens", caption)
    for name in ("pass@1\neasy", "pass@1\nhard", "rollouts", "tokens"):
        table.add_column(name, justify="right")
    for method, point in points.items():
        scores = (point["evaluation/pass@1/easy"], point["evaluation/pass@1/hard"])
        spent = (f"{point['total/rollouts']:,.0f}", f"{point['total/tokens']:,.0f}")
        table.add_row(LABELS[method], *(f"{score:.1%}" for score in scores), *spent)
    return table


def methods_table(title: str | None = None, caption: str | None = None) -> Table:
    """An empty table with a column for the methods' names, narrow enough for a terminal of 80 columns."""
    table = Table(
        title=title,
        caption=caption,
        box=SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
        collapse_padding=True,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("method", no_wrap=True)
    return table


def _overrides(out: Path, name: str, lines: Sequence[str], seed: int) -> list[str]:
    """All in which one training of a demo differs from recipe.yaml."""
    return [
        f"problems.train={out / 'problems/train.jsonl'}",
        f"problems.evaluation={out / 'problems/held_out.jsonl'}",
        f"run={out / name}",
        f"seed={seed}",
        *lines,
    ]


def _start(out: Path, name: str, lines: Sequence[str], seed: int) -> "subprocess.Popen[bytes]":
    """Start or continue one training: a process of one thread, in a session of its own."""
    command = [sys.executable, "-P", "-m", "guide_rl.cli", "train", str(RECIPE), *_overrides(out, name, lines, seed)]
    if (out / name / "recipe.yaml").exists():
        command += ["--resume", str(out / name)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with (out / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


def _check(out: Path, name: str, code: int) -> None:
    """Raise ChildProcessError when a training process failed."""
    if code:
        log = out / f"{name}.log"
        end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ChildProcessError(f"training {name} stopped with code {code}; the end of {log}:\n{end}")


def _progress_table(out: Path, names: Iterable[str]) -> Table:
    """How far each training is."""
    table = methods_table()
    for column in ("step", "rollouts", "tokens", "plain\naccuracy", "\nrescued", "held-out\nhard"):
        table.add_column(column, justify="right")
    for name in names:
        latest: dict[str, Any] = {}
        for row in RunFolder(out / name).read("metrics.jsonl"):
            latest |= row
        if not latest:
            table.add_row(LABELS.get(name, name), "", "waiting" if not (out / name).exists() else "starting")
            continue
        counts = [f"{int(latest.get(key, 0)):,}" for key in ("step", "total/rollouts", "total/tokens")]
        keys = ("accuracy/plain", "guidance/rescued_share", "evaluation/pass@1/hard")
        shares = [f"{latest[key]:.1%}" if key in latest else "" for key in keys]
        table.add_row(LABELS.get(name, name), *counts, *shares)
    return table
