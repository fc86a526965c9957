"""The demo's comparison over several seeds, by rollouts and by tokens.

    python benchmarks/demo_seeds.py --out runs/seeds --seeds 1 2 3

For each seed: the demo (every method until the end of the step in which it reaches the number of rollouts), and then GRPO
and Filter-GRPO once more until they have sampled at least as many tokens as the Guide setting that sampled most. Called
again with the same settings, it continues where it was.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from guide_rl.demo.compare import LABELS, METHODS, check_settings, demo_jobs, methods_table, run_demo, train_all
from guide_rl.demo.world import BASE_MODEL
from guide_rl.run_folder import RunFolder

GUIDED = ("guide_grpo", "guide_grpo_no_ratio")
PLAIN = ("grpo", "filter_grpo")


def compare_seeds(out: Path, seeds: Sequence[int], rollouts: int, base: Path = BASE_MODEL) -> dict[str, Any]:
    """Run everything and return {"rollouts": {seed: {method: ...}}, "tokens": {seed: {method: ...}}}."""
    results: dict[str, Any] = {"rollouts": {}, "tokens": {}}
    for seed in seeds:
        folder = out / f"seed-{seed}"
        check_settings(folder, demo_jobs(rollouts, base), seed)
        done = folder / "summary.json"
        summary = (
            json.loads(done.read_text()) if done.exists() else run_demo(folder, seed=seed, rollouts=rollouts, base=base)
        )
        results["rollouts"][seed] = summary["methods"]
        tokens = max(summary["methods"][method]["tokens"] for method in GUIDED)
        jobs = {
            f"{method}_tokens": (*METHODS[method], f"model.path={base}", f"budget.tokens={tokens}") for method in PLAIN
        }
        train_all(folder, jobs, seed=seed, console=Console(stderr=True))
        finals = {method: _final(folder / method) for method in GUIDED}
        finals |= {method: _final(folder / f"{method}_tokens") for method in PLAIN}
        results["tokens"][seed] = finals
        (out / "seeds.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


def margin(results: dict[str, Any], seed: int) -> float:
    """Hard-stratum held-out pass@1 of the better Guide setting minus GRPO's, each after its rollouts, in points."""
    methods = results["rollouts"][seed]
    best = max(methods[method]["pass@1"]["hard"] for method in GUIDED)
    return 100 * (best - methods["grpo"]["pass@1"]["hard"])


def _final(run: Path) -> dict[str, float]:
    """The last greedy evaluation of a run and what it had sampled by then."""
    point: dict[str, float] = {}
    for row in RunFolder(run).read("metrics.jsonl"):
        point |= row
    keys = {"all": "evaluation/pass@1", "easy": "evaluation/pass@1/easy", "hard": "evaluation/pass@1/hard"}
    spent = {"rollouts": point["total/rollouts"], "tokens": point["total/tokens"]}
    return {name: point[key] for name, key in keys.items()} | spent


def tables(results: dict[str, Any]) -> list[Table]:
    """Hard-stratum pass@1 per seed, by rollouts and by tokens."""
    seeds = list(results["rollouts"])
    made = []
    for budget, said in (
        ("rollouts", "each with at least the same rollouts"),
        ("tokens", "GRPO with at least Guide's tokens"),
    ):
        table = methods_table(f"Held-out hard stratum, greedy pass@1 ({said})")
        for column in (*(f"seed\n{seed}" for seed in seeds), "\nmean", "easy\nmean", "\nrollouts", "\ntokens"):
            table.add_column(column, justify="right")
        for method in results[budget][seeds[0]]:
            rows = [results[budget][seed][method] for seed in seeds]
            scores = [row["pass@1"] if budget == "rollouts" else row for row in rows]
            hard, easy = ([score[stratum] for score in scores] for stratum in ("hard", "easy"))
            spent = [fmean(row.get(name, 0) for row in rows) for name in ("rollouts", "tokens")]
            cells = [f"{value:.1%}" for value in (*hard, fmean(hard), fmean(easy))]
            table.add_row(LABELS[method], *cells, *(f"{value:,.0f}" for value in spent))
        made.append(table)
    return made


def main() -> None:
    """Parse the command line, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rollouts", type=int, default=5120)
    parser.add_argument("--base", type=Path, default=BASE_MODEL, help="the model that all start from")
    arguments = parser.parse_args()
    results = compare_seeds(arguments.out, arguments.seeds, arguments.rollouts, arguments.base)
    for table in tables(results):
        Console().print(table)
    for seed in results["rollouts"]:
        print(f"seed {seed}: the better Guide setting is {margin(results, seed):+.1f} points above GRPO")


if __name__ == "__main__":
    main()
