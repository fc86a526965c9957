"""`python -m verl_cpu.training FOLDER field=value ...`: `guide train` by FOLDER/recipe.yaml, with a report of the first update.

The real loop, engine, Ray, FSDP2, rollout servers and grading. FOLDER/report.json gets log-probs and metrics, what the local
engine says of the same groups, and what the old log-probs would be without the guidance (a negative control).
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from guide_rl.config import TrainRecipe
from guide_rl.recipes import read_recipe
from guide_rl.run_folder import RunFolder
from guide_rl.trainers import trainer
from guide_rl.trainers.engine import Updated
from guide_rl.trainers.local import LocalEngine
from guide_rl.trainers.minibatches import build_minibatches
from guide_rl.trainers.verl.engine import VerlEngine
from guide_rl.types import Group


def local_metrics(recipe: TrainRecipe, groups: Sequence[Group]) -> dict[str, float]:
    """What the local engine's first update says of the groups, by the model that the run starts from."""
    model = replace(recipe.model, device="cpu")
    with LocalEngine(replace(recipe, engine="local", verl={}, model=model), RunFolder(recipe.run), None) as engine:
        engine.start()
        return engine.update(groups, 1).metrics


def log_probs(engine: VerlEngine, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Of every row that is trained: the log-probs of the sampler, and of the workers under both prompts."""
    batches = build_minibatches(groups, engine.recipe, engine.prompt_ids)
    rows = [row for batch in batches for row in batch.rows]
    workers = engine.workers
    under = zip(workers.log_probs([r.sampled for r in rows]), workers.log_probs([r.plain for r in rows]), strict=True)
    return [
        {
            "guided": row.guided,
            "sampler": row.rollout.logprobs,
            "sampled_prompt": sampled.tolist(),
            "plain_prompt": plain.tolist(),
        }
        for row, (sampled, plain) in zip(rows, under, strict=True)
    ]


class Observed(VerlEngine):
    """The engine, and a report of its first update."""

    def update(self, groups: Sequence[Group], step: int) -> Updated:
        """As the engine's."""
        rows = log_probs(self, groups) if step == 1 else []
        updated = super().update(groups, step)
        if step == 1:
            ratios = {" ".join(map(str, key)): values for key, values in updated.ratios.items()}
            report = {"rows": rows, "metrics": updated.metrics, "ratios": ratios}
            report["local"] = local_metrics(self.recipe, groups)
            (self.run.path.parent / "report.json").write_text(json.dumps(report))
        return updated


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    trainer.engine_of = Observed
    trainer.train(read_recipe(TrainRecipe, folder / "recipe.yaml", sys.argv[2:]))
