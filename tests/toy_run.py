"""A tiny model, problems and graders on which the real trainer runs in a second or two."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from tiny_models import tiny_model, tiny_tokenizer

from guide_rl.config import TrainRecipe
from guide_rl.progress import Progress
from guide_rl.recipes import read_recipe, write_recipe
from guide_rl.run_folder import RunFolder
from guide_rl.trainers.engine import engine_of
from guide_rl.trainers.trainer import Trainer
from guide_rl.types import Grade, Problem, Rollout

RECIPE = """
model: {{path: {folder}/model, device: cpu}}
problems: {{train: {folder}/train.jsonl}}
run: {folder}/run
steps: 3
problems_per_step: 4
prompts: {{guided_template: "{{question}} [{{guidance}}]"}}
sampling: {{k: 4, max_tokens: 12}}
guidance: {{k_guided: 3}}
optimizer: {{learning_rate: 0.01}}
checkpoints: {{every: 2}}
"""


class ToyGrader:
    """Grades by a function of problem and rollout, at once."""

    def __init__(self, correct: Callable[[Problem, Rollout], bool]) -> None:
        self.correct = correct

    def submit(self, problem: Problem, rollout: Rollout):
        correct = self.correct(problem, rollout)

        class Done:
            def result(self) -> Grade:
                return Grade(float(correct), correct, "correct" if correct else "wrong")

        return Done()


def coin(problem: Problem, rollout: Rollout) -> bool:
    """Right or wrong by the tokens, about one in four."""
    return hashlib.blake2b(str(rollout.token_ids).encode(), digest_size=1).digest()[0] < 64


def some_fail(problem: Problem, rollout: Rollout) -> bool:
    """Plain rollouts of every other problem all fail; the first guided one of them succeeds."""
    if int(problem.id) % 2:
        return rollout.guided and rollout.index == 0
    return coin(problem, rollout)


LEVELS = {"guidance_points": ["a", "b", "c"]}
"""Metadata of a problem whose guidance has three points."""


def write_inputs(
    folder: Path, *, name: str = "qwen2", problems: int = 8, metadata: Mapping[str, object] | None = None
) -> None:
    """Model, tokenizer and problem file of the recipe above."""
    tiny_model(name).save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    rows = [
        {"id": str(i), "question": f"{i}+{i}=", "answer": str(2 * i), "guidance": f"double {i}", "stratum": "ab"[i % 2]}
        | ({"metadata": metadata} if metadata else {})
        for i in range(problems)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def linked(inputs: Path, folder: Path) -> Path:
    """A folder of its own, with the inputs of all."""
    folder.mkdir(exist_ok=True)
    for path in inputs.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def toy_recipe_file(inputs: Path, folder: Path) -> Path:
    """The recipe above as a file in a folder."""
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(folder=inputs))
    return path


def recipe(folder: Path, *overrides: str) -> TrainRecipe:
    """The recipe above, with overrides."""
    return read_recipe(TrainRecipe, toy_recipe_file(folder, folder), overrides)


def trainer(folder: Path, *overrides: str, correct=some_fail, resume: bool = False) -> Trainer:
    """The real trainer, set up in `folder`."""
    return trainer_of(recipe(folder, *overrides), correct=correct, resume=resume)


def trainer_of(settings: TrainRecipe, *, correct=some_fail, resume: bool = False) -> Trainer:
    """The real trainer of a recipe."""
    run = RunFolder.open(settings.run) if resume else RunFolder.create(settings.run, write_recipe(settings))
    checkpoint = run.rewind() if resume else None
    progress = Progress(settings.steps, console=Console(quiet=True))
    return Trainer(settings, run, checkpoint, progress, ToyGrader(correct), engine_of(settings, run, checkpoint))
