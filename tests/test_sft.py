"""The SFT stage: the right tokens carry the loss, in a seeded order, and the model that comes out loads."""

import json

import pytest

pytest.importorskip("trl")

from guide_rl.config import ModelConfig, PromptsConfig, SFTRecipe
from guide_rl.demo import world
from guide_rl.problems import save_problems
from guide_rl.prompts import Prompts
from guide_rl.trainers.sft import batch_order, run_sft, sft_rows
from guide_rl.types import Problem

PROMPTS = PromptsConfig(guided_template=world.GUIDED_TEMPLATE)
PROBLEM = Problem(id="a", question="2+3=", answer="5", guidance="count", solution="<answer>5</answer>")


def recipe_for(tmp_path, **changes):
    values = {
        "model": ModelConfig(path=str(tmp_path / "untrained"), device="cpu"),
        "problems": str(tmp_path / "warmup.jsonl"),
        "run": str(tmp_path / "run"),
        "prompts": PROMPTS,
        "context": "guided",
        "epochs": 1,
        "batch_size": 12,
        "microbatch_size": 4,
        "learning_rate": 3e-3,
        **changes,
    }
    return SFTRecipe(**values)


def prompts():
    return Prompts(world.tokenizer(), PROMPTS)


def test_a_guided_row_is_the_guided_prompt_then_the_solution_and_eos(tmp_path):
    (row,) = sft_rows([PROBLEM], prompts(), recipe_for(tmp_path))
    words = world.tokenizer()
    assert words.decode(row.prompt_ids) == "<|user|>2+3=[HINT_START]count[HINT_END]<|assistant|>"
    assert words.decode(row.solution_ids) == "<answer>5</answer><|end|>"


def test_a_plain_row_ignores_the_guidance(tmp_path):
    (row,) = sft_rows([PROBLEM], prompts(), recipe_for(tmp_path, context="plain"))
    assert row.prompt_ids == prompts().plain_ids(PROBLEM)


def test_rows_over_the_limit_are_left_out_and_none_left_is_an_error(tmp_path):
    long = Problem(id="b", question="2+3=", answer="5", solution="1" * 50)
    recipe = recipe_for(tmp_path, max_tokens=30)
    assert len(sft_rows([PROBLEM, long], prompts(), recipe)) == 1
    with pytest.raises(ValueError, match="all 1 rows are over max_tokens"):
        sft_rows([long], prompts(), recipe)


def test_a_long_prompt_stops_the_run_where_the_recipe_says_fail(tmp_path):
    strict = Prompts(world.tokenizer(), PromptsConfig(max_tokens=5, too_long="fail"))
    with pytest.raises(ValueError, match=r"problem 'a'.*over prompts.max_tokens \(5\)"):
        sft_rows([PROBLEM], strict, recipe_for(tmp_path))


def test_a_problem_without_solution_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ValueError, match="problem 'c' has no solution"):
        sft_rows([Problem(id="c", question="1+1=", answer="2")], prompts(), recipe_for(tmp_path))


def test_the_order_takes_every_row_once_an_epoch_and_sorts_each_batch_by_length():
    lengths = [7, 1, 5, 3, 9, 2, 8, 4, 6, 10]
    order = batch_order(lengths, batch_size=5, epochs=2.5, seed=0)
    assert len(order) == 25
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert order[:10] != order[10:20]
    for start in range(0, 25, 5):
        batch = [lengths[row] for row in order[start : start + 5]]
        assert batch == sorted(batch)
    assert order == batch_order(lengths, batch_size=5, epochs=2.5, seed=0)
    assert order != batch_order(lengths, batch_size=5, epochs=2.5, seed=1)


def test_a_run_learns_loads_back_and_writes_only_its_folder(tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    world.write_untrained(tmp_path / "untrained")
    save_problems(tmp_path / "warmup.jsonl", world.warmup_problems(240, 0.5, seed=0))
    before = set(tmp_path.rglob("*"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model_path = run_sft(recipe_for(tmp_path))
    assert model_path == tmp_path / "run" / "model"
    AutoModelForCausalLM.from_pretrained(model_path)
    assert AutoTokenizer.from_pretrained(model_path).get_vocab() == world.tokenizer().get_vocab()
    new = set(tmp_path.rglob("*")) - before - {tmp_path / "elsewhere"}
    assert all(path.is_relative_to(tmp_path / "run") for path in new)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 20
    assert losses[-1] < 0.8 * losses[0]
    with pytest.raises(FileExistsError, match="holds a run already"):
        run_sft(recipe_for(tmp_path))


def test_the_solution_is_learned_and_the_prompt_is_not(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    world.write_untrained(tmp_path / "untrained")
    problems = [Problem(id=str(n), question=f"{n}+{n}=", answer="0", solution="7") for n in range(10, 82)]
    save_problems(tmp_path / "warmup.jsonl", problems)
    run_sft(recipe_for(tmp_path, epochs=5, learning_rate=1e-2))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    with torch.no_grad():
        likely_TV = model(torch.tensor([prompts().plain_ids(problems[0])])).logits.softmax(-1)[0]
    seven, equals = world.tokenizer().convert_tokens_to_ids(["7", "="])
    assert likely_TV[-1, seven] > 0.9
    assert likely_TV[5, equals] < 0.5
