"""Prompts: the paper's layout, and refusal of contexts that differ by more than the guidance."""

from dataclasses import replace

import pytest
from tiny_models import tiny_tokenizer

from guide_rl.config import PromptsConfig
from guide_rl.prompts import ContextError, Prompts
from guide_rl.types import Problem

PROBLEM = Problem("p", "What is {question} 1+1?", "2", guidance="Count {guidance} on.")


def prompts(**settings) -> Prompts:
    return Prompts(tiny_tokenizer(), PromptsConfig(**settings))


def test_the_guided_prompt_has_the_papers_layout():
    assert prompts().text(PROBLEM, guided=False) == "<|user|>What is {question} 1+1?<|assistant|>"
    assert prompts().text(PROBLEM, guided=True) == (
        "<|user|>What is {question} 1+1?\nA hint to the problem is provided below:\n[HINT_START]\nCount {guidance} on.\n"
        "[HINT_END]\nConsider the hint but start your solution from scratch and do not directly reference the hint "
        '(e.g. avoid phrases like "using the hint").<|assistant|>'
    )


def test_ids_are_those_of_the_rendered_text():
    rendered = prompts()
    assert tiny_tokenizer().decode(rendered.plain_ids(PROBLEM)) == rendered.text(PROBLEM, guided=False)
    assert tiny_tokenizer().decode(rendered.guided_ids(PROBLEM)) == rendered.text(PROBLEM, guided=True)


def test_named_and_literal_system_prompts_come_first():
    template = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }};{% endfor %}"
    named = prompts(system="thought_solution", chat_template=template).text(PROBLEM, guided=False)
    assert named.startswith("system:Your task is to follow a systematic, thorough reasoning process")
    assert (
        prompts(system="Be brief.", chat_template=template).text(PROBLEM, guided=False).startswith("system:Be brief.;")
    )


def test_base_models_get_the_papers_template_by_name():
    text = prompts(chat_template="think_answer").text(PROBLEM, guided=False)
    assert text.startswith("A conversation between user and assistant. The user asks")
    assert text.endswith("User: What is {question} 1+1? Assistant:")


def test_a_tokenizer_without_chat_template_or_eos_says_what_to_set(tmp_path):
    bare = tiny_tokenizer()
    bare.chat_template = None
    with pytest.raises(ValueError, match=r"no chat template; set prompts.chat_template to a name \(think_answer\)"):
        Prompts(bare, PromptsConfig())
    with pytest.raises(ValueError, match="neither a name"):
        Prompts(bare, PromptsConfig(chat_template="missing.jinja"))
    (tmp_path / "t.jinja").write_text("{{ messages[0]['content'] }}!")
    assert Prompts(bare, PromptsConfig(chat_template=str(tmp_path / "t.jinja"))).text(PROBLEM, guided=False)[-1] == "!"
    no_eos = tiny_tokenizer()
    no_eos.eos_token = None
    with pytest.raises(ValueError, match="no EOS token"):
        Prompts(no_eos, PromptsConfig())


@pytest.mark.parametrize(
    "chat_template",
    [
        "{% if 'HINT' in messages[0]['content'] %}Be careful. {% endif %}{{ messages[0]['content'] }}",
        "{{ messages[0]['content'] | length }}: {{ messages[0]['content'] }}",
        "{{ messages[0]['content'] | upper }}",
        "{{ messages[0]['content'][:12] }}",
    ],
)
def test_contexts_that_differ_by_more_than_the_guidance_are_refused(chat_template):
    with pytest.raises(ContextError, match="chat template"):
        prompts(chat_template=chat_template).check(PROBLEM)


def test_text_around_the_question_that_only_the_guided_prompt_has_is_one_addition():
    prompts(guided_template="{question} Hint: {guidance}").check(PROBLEM)
    with pytest.raises(ContextError, match="wrong"):
        prompts(guided_template="Solve: {question} Hint: {guidance}").check(PROBLEM)


def test_long_prompts_are_skipped_and_counted_or_fail_by_the_recipe():
    problems = [
        PROBLEM,
        replace(PROBLEM, id="long", question="x" * 300),
        replace(PROBLEM, id="long guidance", guidance="y" * 300),
        replace(PROBLEM, id="none", guidance=None),
    ]
    kept, counts = prompts(max_tokens=290).fit(problems)
    assert [problem.id for problem in kept] == ["p", "long guidance", "none"]
    assert [problem.guidance is None for problem in kept] == [False, True, True]
    assert (counts.kept, counts.too_long, counts.guidance_too_long, counts.without_guidance) == (3, 1, 1, 1)
    with pytest.raises(
        ValueError, match=r"problem 'long': its plain prompt has 302 tokens, over prompts.max_tokens \(290\)"
    ):
        prompts(max_tokens=290, too_long="fail").fit(problems)
    with pytest.raises(ValueError, match="all 4 problems"):
        prompts(max_tokens=3).fit(problems)
