"""Every ablation recipe is a few lines over another recipe, changes what it says, and trains."""

from math import isfinite
from pathlib import Path

import pytest
from toy_run import LEVELS, toy_recipe_file, trainer_of, write_inputs

from guide_rl.cli import parse
from guide_rl.config import TrainRecipe
from guide_rl.interrupts import Interrupts
from guide_rl.recipes import read_recipe, write_recipe

ROOT = Path(__file__).parent.parent
ABLATIONS = sorted((ROOT / "recipes/ablations").glob("*.yaml"))
BASE = ROOT / "recipes/guide_grpo.yaml"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder, metadata=LEVELS)
    return folder


def lines_of(recipe: TrainRecipe) -> set[str]:
    return set(write_recipe(recipe).splitlines())


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_changes_only_the_lines_that_it_holds(path):
    base, changed = read_recipe(TrainRecipe, BASE), read_recipe(TrainRecipe, [BASE, path])
    named = {word for line in path.read_text().splitlines() if not line.startswith("#") for word in line.split()}
    fields = {line.split(":")[0].strip() for line in lines_of(base) ^ lines_of(changed)}
    assert {f"{field}:" for field in fields} <= {word.lstrip("{") for word in named}
    assert changed.run == f"runs/ablations/{path.stem}"


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_says_in_its_head_what_it_is_for(path):
    head = path.read_text().splitlines()[0]
    assert head.startswith("# ")
    assert head.endswith((".", "First:")) or path.read_text().splitlines()[1].startswith("#")


@pytest.mark.e2e
@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_trains_for_two_steps(path, inputs, tmp_path):
    overrides = (f"run={tmp_path}/run", f"problems.train={inputs}/train.jsonl", "steps=2")
    recipe = read_recipe(TrainRecipe, [toy_recipe_file(inputs, tmp_path), path], overrides)
    trained = trainer_of(recipe)
    with Interrupts() as interrupts:
        trained.step(interrupts)
        trained.step(interrupts)
    steps = trained.run.read("metrics.jsonl")
    assert [row["step"] for row in steps] == [1, 2]
    assert steps[0]["grad_norm"] > 0
    assert all(isfinite(row["grad_norm"]) for row in steps if row["optimizer_steps"]), "psr may have nothing to count"


def test_the_command_takes_a_recipe_and_an_ablation_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    parse("train", ["recipes/guide_grpo.yaml", "recipes/ablations/guide_ppo.yaml", "model.path=x"])
