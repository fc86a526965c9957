"""Recipes: every shipped one parses, unknown keys fail, contradictions name the field and the remedy."""

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml

from guide_rl import algorithm
from guide_rl.cli import main
from guide_rl.config import (
    EvaluateRecipe,
    GuidanceConfig,
    GuidanceRecipe,
    LossConfig,
    OptimizerConfig,
    ProblemsRecipe,
    SFTRecipe,
    TrainRecipe,
)
from guide_rl.equations import advantages, losses, ratios
from guide_rl.recipes import read_recipe, write_recipe
from guide_rl.trainers import minibatches
from guide_rl.trainers.schedule import SCHEDULES, learning_rate

ROOT = Path(__file__).parent.parent
RECIPES = [
    *(path for path in sorted((ROOT / "recipes").rglob("*.yaml")) if path.parent.name != "ablations"),
    ROOT / "guide_rl/demo/recipe.yaml",
]
SMALL = ("model.path=m", "problems.train=p.jsonl")


def kind_of(path: Path) -> type:
    if path.parent.name == "problems":
        return ProblemsRecipe
    if path.stem in ("guidance", "evaluate"):
        return {"guidance": GuidanceRecipe, "evaluate": EvaluateRecipe}[path.stem]
    return SFTRecipe if path.stem.startswith(("sft", "warmup")) else TrainRecipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_parses_and_comes_back_from_its_own_yaml(path, tmp_path):
    recipe = read_recipe(kind_of(path), path)
    (tmp_path / "again.yaml").write_text(write_recipe(recipe))
    assert read_recipe(kind_of(path), tmp_path / "again.yaml") == recipe


@pytest.mark.parametrize(
    ("record", "field", "variants"),
    [
        (GuidanceConfig, "trigger", algorithm.TRIGGERS),
        (GuidanceConfig, "keep_guided", algorithm.KEEPERS),
        (LossConfig, "baseline", advantages.BASELINES),
        (LossConfig, "guided_ratio", ratios.GUIDED_RATIOS),
        (LossConfig, "guided_ratio", ratios.NEEDS),
        (LossConfig, "ratio_level", ratios.LEVELS),
        (LossConfig, "advantages", minibatches.ADVANTAGES),
        (LossConfig, "reshape", ratios.RESHAPINGS),
        (LossConfig, "reshape_as", ratios.RESHAPED_AS),
        (LossConfig, "aggregation", losses.AGGREGATIONS),
        (LossConfig, "kl_rows", losses.KL_ROWS),
        (OptimizerConfig, "schedule", SCHEDULES),
    ],
)
def test_what_a_field_can_be_is_what_its_dictionary_holds(record, field, variants):
    assert set(get_args(get_type_hints(record)[field])) == set(variants)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_an_unknown_key_in_a_recipe_fails_and_is_named(path, tmp_path):
    (tmp_path / "bad.yaml").write_text(path.read_text() + "\nsurprise: 1\n")
    with pytest.raises(ValueError, match="surprise"):
        read_recipe(kind_of(path), tmp_path / "bad.yaml")


def test_recipes_of_the_three_methods_differ_in_the_lines_of_the_method_only():
    recipes = {
        name: read_recipe(TrainRecipe, ROOT / f"recipes/{name}.yaml", ["run=x"])
        for name in ("grpo", "filter_grpo", "guide_grpo")
    }
    lines = {name: set(write_recipe(recipe).splitlines()) for name, recipe in recipes.items()}
    assert lines["guide_grpo"] ^ lines["filter_grpo"] == {"  trigger: all_incorrect", "  trigger: never"}
    assert lines["filter_grpo"] ^ lines["grpo"] == {"  filter_uniform: true", "  filter_uniform: false"}


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text("model: {path: m}\nproblems: {train: p.jsonl}\n")
    return path


def test_the_papers_settings_are_the_defaults(small):
    recipe = read_recipe(TrainRecipe, small)
    assert (recipe.guidance.trigger, recipe.loss.guided_ratio, recipe.loss.clip_guided) == (
        "all_incorrect",
        "sampling",
        False,
    )
    assert (recipe.loss.baseline, recipe.loss.filter_uniform, recipe.loss.aggregation) == (
        "joint",
        True,
        "sequence_mean",
    )
    assert (recipe.loss.beta, recipe.loss.clip_low, recipe.loss.clip_high, recipe.loss.group_scale) == (
        0,
        0.2,
        0.2,
        "k",
    )
    assert (recipe.optimizer.learning_rate, recipe.sampling.k, recipe.sampling.temperature) == (1e-6, 8, 1)


def test_overrides_win_over_the_file(small):
    recipe = read_recipe(TrainRecipe, small, ["loss.beta=0.01", "model.lora.rank=4"])
    assert (recipe.loss.beta, recipe.model.lora.rank, recipe.model.path) == (0.01, 4, "m")


@pytest.mark.parametrize(
    ("override", "field", "remedy"),
    [
        ("loss.guided_ratio=none loss.reshape=static", "loss.reshape", "set loss.reshape to none"),
        ("loss.clip_guided=true loss.guided_ratio=none", "loss.clip_guided", "set it to false"),
        ("loss.clip_guided=true loss.reshape=adaptive", "loss.clip_guided", "turn one off"),
        (
            "loss.old_logprobs=sampler loss.guided_ratio=plain",
            "loss.guided_ratio",
            "set loss.old_logprobs to recomputed",
        ),
        ("loss.reference_every=3", "loss.reference_every", "loss.beta > 0"),
        ("guidance.trigger=only_guided loss.baseline=plain", "loss.baseline", "set loss.baseline to joint"),
        (
            "guidance.trigger=only_guided guidance.keep_guided=successful",
            "guidance.keep_guided",
            "set guidance.keep_guided to all",
        ),
        ("guidance.trigger=never sampling.k=1", "sampling.k", "raise sampling.k"),
        ("guidance.trigger=never problems.require_guidance=true", "problems.require_guidance", "drop one"),
        ("evaluation.every=5", "problems.evaluation", "set evaluation.every to 0"),
        ("optimizer.problems_per_minibatch=5", "optimizer.problems_per_minibatch", "must divide problems_per_step"),
        ("sampling.temperature=0", "sampling.temperature", "must be at least 0.001"),
        ("loss.clip_low=1.5", "loss.clip_low", "below 1"),
        ("budget.rollouts=0", "budget.rollouts", "at least 1"),
        ("prompts.guided_template={question}", "prompts.guided_template", "{guidance} exactly once"),
        ("prompts.system=thought_soluton", "prompts.system", "none, thought_solution"),
        ("model.lora.rank=0", "model.lora.rank", "at least 1"),
        ("verl.trainer.nnodes=2", "verl", "set engine to verl"),
    ],
)
def test_contradictions_fail_while_parsing_with_the_field_and_the_remedy(small, capsys, override, field, remedy):
    with pytest.raises(SystemExit) as stop:
        main(["train", str(small), *override.split()])
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert field in message
    assert remedy in message


def test_learning_rates_rise_and_fall_as_the_schedule_says(small):
    settings = ["steps=12", "optimizer.learning_rate=1.0", "optimizer.warmup_steps=2"]
    linear = read_recipe(TrainRecipe, small, [*settings, "optimizer.schedule=linear"])
    assert [learning_rate(linear, step) for step in (1, 2, 3, 8, 12)] == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.1])
    cosine = read_recipe(TrainRecipe, small, [*settings, "optimizer.schedule=cosine"])
    assert [learning_rate(cosine, step) for step in (3, 8)] == pytest.approx([1.0, 0.5])
    constant = read_recipe(TrainRecipe, small, settings)
    assert [learning_rate(constant, step) for step in (1, 2, 12)] == [0.5, 1.0, 1.0]


def test_keys_of_free_mappings_are_set_one_by_one_and_keep_what_the_files_say(small, tmp_path):
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(
        "engine: verl\nverl: {trainer.nnodes: 2, trainer: {n_gpus_per_node: 4}, actor: {lr: 1e-6, +new: {a: b}}}\n"
    )
    recipe = read_recipe(
        TrainRecipe,
        [small, cluster],
        ["verl.trainer.nnodes=3", "verl.actor.lr=2e-6", "verl.+actor.tags=[x, 1]", "verl.rollout={stop: null}"],
    )
    assert recipe.verl == {
        "trainer": {"nnodes": 3, "n_gpus_per_node": 4},
        "actor": {"lr": 2e-6, "+new": {"a": "b"}},
        "+actor": {"tags": ["x", 1]},
        "rollout": {"stop": None},
    }
    assert read_recipe(TrainRecipe, [small, cluster]).verl["actor"]["lr"] == 1e-6
    assert read_recipe(TrainRecipe, [small, cluster], ["verl={}", "engine=local"]).verl == {}


def test_a_later_file_replaces_the_keys_that_it_names_in_a_free_mapping(small, tmp_path):
    for name, text in (("a", "{trainer: {nnodes: 1, device: cuda}}"), ("b", "{trainer: {nnodes: 2}}")):
        (tmp_path / name).write_text(f"engine: verl\nverl: {text}\n")
    recipe = read_recipe(TrainRecipe, [small, tmp_path / "a", tmp_path / "b"])
    assert recipe.verl == {"trainer": {"nnodes": 2, "device": "cuda"}}


def test_free_mappings_of_other_stages_take_single_keys_too(tmp_path):
    path = tmp_path / "evaluate.yaml"
    path.write_text("models: {a: m}\nbenchmarks: {b: c.jsonl}\nsampler: vllm\nvllm: {seed: 1}\n")
    recipe = read_recipe(EvaluateRecipe, path, ["vllm.tensor_parallel_size=2"])
    assert recipe.vllm == {"seed": 1, "tensor_parallel_size": 2}


@pytest.mark.parametrize("override", ["verl=3", "verl=[a]", "verl=null", "verl"])
def test_what_is_no_mapping_of_settings_is_refused(small, capsys, override):
    with pytest.raises(SystemExit):
        main(["train", str(small), "engine=verl", override])
    assert "verl" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["1e-5", "-1E5", "1_0.5e+3", "1.", "0x1f", "true", "null", "12:30", "on", "~", "1e5x"])
def test_a_text_that_looks_like_a_number_comes_back_as_text(tmp_path, text):
    source = {
        "name": {"path": "rows.jsonl", "columns": {"question": "q", "answer": "a"}, "constants": {"stratum": text}}
    }
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump({"sources": source, "out": "data"}).replace(f": {text}\n", f": '{text}'\n")
    )
    recipe = read_recipe(ProblemsRecipe, tmp_path / "recipe.yaml")
    (tmp_path / "again.yaml").write_text(write_recipe(recipe))
    assert read_recipe(ProblemsRecipe, tmp_path / "again.yaml") == recipe
    assert recipe.sources["name"].constants == {"stratum": text}
