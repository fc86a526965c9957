"""What the ablations do in the demo's world: greedy pass@1 on held-out problems after the same number of rollouts.

    python benchmarks/ablations.py --out runs/ablations --seed 0

Trains the demo's model by guide_rl/demo/recipe.yaml under every recipe of recipes/ablations that the world has what it
takes for (its guidance is one text: no ladder, and none that the policy wrote), two at a time. Called again, it continues.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from guide_rl.demo import world
from guide_rl.demo.compare import METHODS, train_all
from guide_rl.run_folder import RunFolder

RECIPES = Path(__file__).parent.parent / "recipes/ablations"
LEFT_OUT = {"ladder", "self_guidance"}
OWN = {"annealing": ("guidance.anneal_steps=20",)}
"""What a run of some 30 steps needs instead of the recipe's own number."""


def overrides(path: Path) -> tuple[str, ...]:
    """A recipe of a few lines as `field=value` texts."""

    def flat(values: Mapping[str, Any], prefix: str = "") -> list[str]:
        lines = []
        for key, value in values.items():
            name = f"{prefix}{key}"
            lines += (
                flat(value, f"{name}.") if isinstance(value, dict) else [f"{name}={yaml.safe_dump(value).split()[0]}"]
            )
        return lines

    values = {key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "run"}
    critic = ("critic.learning_rate=5.0e-5",) if values.get("loss", {}).get("advantages") == "gae" else ()
    return (*flat(values), *OWN.get(path.stem, ()), *critic)


def main() -> None:
    """Train and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rollouts", type=int, default=5120)
    options = parser.parse_args()
    shared = (f"model.path={world.BASE_MODEL}", f"budget.rollouts={options.rollouts}", "evaluation.every=10")
    jobs = {f"_{method}": (*lines, *shared) for method, lines in METHODS.items()}
    for path in sorted(RECIPES.glob("*.yaml")):
        if path.stem not in LEFT_OUT:
            jobs[path.stem] = (*overrides(path), *shared)
    world.write(options.out / "problems", options.seed)
    train_all(options.out, jobs, seed=options.seed, console=Console(stderr=True))
    print(
        "| recipe | hard | easy | plain accuracy | guided accuracy | rollouts | tokens |\n|---|---|---|---|---|---|---|"
    )
    for name in jobs:
        last: dict[str, float] = {}
        for row in RunFolder(options.out / name).read("metrics.jsonl"):
            last |= row
        shown = [last[f"evaluation/pass@1/{stratum}"] for stratum in ("hard", "easy")]
        shown += [last["accuracy/plain"], last.get("accuracy/guided", float("nan"))]
        counts = f"{int(last['total/rollouts']):,} | {int(last['total/tokens']):,}"
        print(
            f"| {name.removeprefix('_')} | " + " | ".join(f"{100 * value:.1f} %" for value in shown) + f" | {counts} |"
        )


if __name__ == "__main__":
    main()
