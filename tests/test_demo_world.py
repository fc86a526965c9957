"""The demo's world: disjoint splits, guidance that gives nothing away, a tokenizer and a model that ship small."""

import itertools
import re
from pathlib import Path

import pytest

from guide_rl.config import PromptsConfig
from guide_rl.demo import world
from guide_rl.problems import load_problems
from guide_rl.prompts import Prompts


def operand_sets(problems):
    return {(problem.stratum, world.operands_of(problem)) for problem in problems}


def test_no_operand_pair_is_in_two_splits_whatever_the_seeds():
    warmup = operand_sets(world.warmup_problems(3000, 0.1, seed=0))
    train = operand_sets(world.problems("train", easy=700, hard=700, seed=1))
    held_out = operand_sets(world.problems("held_out", easy=300, hard=300, seed=2))
    assert len(train) == 1400
    assert len(held_out) == 600
    assert not warmup & train
    assert not warmup & held_out
    assert not train & held_out


def test_swapped_operands_are_the_same_pair():
    assert all(world.split_of((a, b)) == world.split_of((b, a)) for a, b in itertools.product(range(10, 60), repeat=2))


def test_problems_follow_from_the_seed_alone():
    assert world.problems("train", easy=5, hard=5, seed=3) == world.problems("train", easy=5, hard=5, seed=3)
    assert world.problems("train", easy=5, hard=5, seed=3) != world.problems("train", easy=5, hard=5, seed=4)


def test_asking_for_more_problems_than_a_split_holds_is_an_error():
    with pytest.raises(ValueError, match=r"held_out split holds only \d+ hard problems"):
        world.problems("held_out", easy=0, hard=700, seed=0)


def test_answers_are_what_the_questions_say_and_reasoning_gym_agrees():
    import reasoning_gym

    for problem in world.problems("held_out", easy=50, hard=50, seed=0):
        assert int(problem.answer) == eval(problem.question.removesuffix("="))
        entry = problem.metadata["entry"]
        assert reasoning_gym.get_score_answer_fn(problem.metadata["source_dataset"])(problem.answer, entry) == 1.0


def test_hard_problems_have_guidance_that_does_not_leak_and_easy_ones_have_none():
    for problem in world.problems("train", easy=100, hard=900, seed=0):
        assert (problem.guidance is None) == (problem.stratum == "easy")
        if problem.guidance is not None:
            assert not world.leaks(problem.guidance, problem.answer)


@pytest.mark.parametrize(
    ("guidance", "answer", "leaks"),
    [
        ("it is 1692", "1692", True),
        ("it is 1692.", " -1692", True),
        ("split 92", "1692", False),
        ("x16920", "1692", False),
    ],
)
def test_a_leak_is_the_answer_as_a_number_of_its_own(guidance, answer, leaks):
    assert world.leaks(guidance, answer) is leaks


def test_worked_solutions_are_right_in_every_step():
    rows = [row for row in world.warmup_problems(600, 0.0, seed=0) if row.guidance]
    assert len(rows) == 200
    for row in rows:
        *steps, last = row.solution.split(";")
        for left, right in (step.split("=") for step in steps):
            assert eval(left) == int(right)
        total, answer = re.fullmatch(r"(.*)=<answer>(\d+)</answer>", last).groups()
        assert eval(total) == int(answer) == int(row.answer)


def test_plain_products_are_answered_at_random_but_for_the_worked_share():
    def plain(worked_share):
        rows = world.warmup_problems(6000, worked_share, seed=0)
        return [row for row in rows if row.stratum == "hard" and row.guidance is None]

    direct = plain(0.0)
    assert all(re.fullmatch(r"<answer>\d{3,4}</answer>", row.solution) for row in direct)
    assert sum(row.solution == world.direct(row.answer) for row in direct) <= 5
    assert 150 < sum("*" in row.solution for row in plain(0.1)) < 250


def test_warmup_sums_are_answered_right():
    assert all(row.solution == world.direct(row.answer) for row in world.warmup_problems(300, 0.5, seed=0)[::3])


def test_the_written_files_load_and_hold_both_strata(tmp_path):
    world.write(tmp_path, seed=0)
    train, held_out = load_problems(tmp_path / "train.jsonl"), load_problems(tmp_path / "held_out.jsonl")
    assert [sum(p.stratum == s for p in train) for s in ("easy", "hard")] == [900, 900]
    assert [sum(p.stratum == s for p in held_out) for s in ("easy", "hard")] == [200, 200]


def test_the_tokenizer_is_one_token_a_character_and_keeps_the_tags():
    words = world.tokenizer()
    text = "47*30=1410;\n Az~ <answer>-12</answer>"
    ids = words(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == len(text) - len("<answer>") - len("</answer>") + 2
    assert words.decode(ids, skip_special_tokens=False) == words.decode(ids, skip_special_tokens=True) == text


def test_the_tokenizer_is_the_same_after_a_round_trip_through_a_model_folder(tmp_path):
    from transformers import AutoTokenizer

    world.write_untrained(tmp_path)
    made = world.tokenizer()
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    chat = [{"role": "user", "content": "4*2=[HINT_START]split 2, a\n  b\u20ac[HINT_END]"}]
    text = made.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert loaded.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) == text
    assert loaded(text, add_special_tokens=False)["input_ids"] == made(text, add_special_tokens=False)["input_ids"]
    assert loaded.decode(loaded(text, add_special_tokens=False)["input_ids"]) == text
    assert (loaded.eos_token, loaded.pad_token) == (made.eos_token, made.pad_token)


def test_prompts_are_short_and_differ_by_the_guidance_only():
    prompts = Prompts(world.tokenizer(), PromptsConfig(guided_template=world.GUIDED_TEMPLATE))
    problem = world.problems("train", easy=0, hard=1, seed=0)[0]
    prompts.check(problem)
    assert len(prompts.plain_ids(problem)) == 8
    assert len(prompts.guided_ids(problem)) < 40


def test_the_model_has_under_2_9_megabytes_and_follows_from_the_seed():
    def weights(seed):
        return dict(world.new_model(seed).named_parameters())

    first, again, other = weights(0), weights(0), weights(1)
    assert sum(4 * weight.numel() for weight in first.values()) < 2_900_000
    assert all((first[name] == again[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_the_shipped_model_knows_the_shipped_tokenizer():
    from transformers import AutoTokenizer

    shipped = AutoTokenizer.from_pretrained(world.BASE_MODEL)
    assert shipped.get_vocab() == world.tokenizer().get_vocab()
    assert shipped.chat_template == world.tokenizer().chat_template
    assert sum(path.stat().st_size for path in Path(world.BASE_MODEL).rglob("*")) < 3_000_000
