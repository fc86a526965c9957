"""Problem files: what loads, and that bad input names file, line and reason."""

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
from sandboxed import close_sandboxes, needs_sandbox

from guide_rl import graders
from guide_rl.cli import main
from guide_rl.problems import load_problems, save_problems
from guide_rl.problems.rules import RULES
from guide_rl.types import Problem


def write(tmp_path, *lines):
    path = tmp_path / "problems.jsonl"
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return path


def test_fields_default_and_numbers_become_text(tmp_path):
    path = write(
        tmp_path, '{"question": "1+1?", "answer": 2}', "", '{"id": 7, "question": "q", "answer": "x", "guidance": " "}'
    )
    first, second = load_problems(path)
    assert first == Problem(id="1", question="1+1?", answer="2")
    assert (second.id, second.guidance) == ("7", None)


def test_a_byte_order_mark_and_line_ends_of_windows_are_no_part_of_a_problem(tmp_path):
    path = write(tmp_path, b'\xef\xbb\xbf{"question": "1+1?", "answer": 2}\r', b'{"question": "q", "answer": "x"}\r')
    assert load_problems(path) == [Problem("1", "1+1?", "2"), Problem("2", "q", "x")]


def test_saved_problems_load_back_the_same(tmp_path):
    problems = [
        Problem(
            "a", "q ü \u2028", "1", guidance="g", solution="s", grader="exact", stratum="hard", metadata={"x": [1]}
        ),
        Problem("b", "q", "2"),
    ]
    save_problems(tmp_path / "p.jsonl", problems)
    assert load_problems(tmp_path / "p.jsonl") == problems


def test_half_a_surrogate_pair_in_metadata_is_saved_and_loads_back(tmp_path):
    problems = load_problems(write(tmp_path, r'{"question": "q", "answer": "1", "metadata": {"\udc00": "\\\ud800"}}'))
    assert problems[0].metadata == {"\udc00": "\\\ud800"}
    save_problems(tmp_path / "p.jsonl", problems)
    assert load_problems(tmp_path / "p.jsonl") == problems


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2: not valid JSON"),
        ("[" * 100_000, "line 2: not valid JSON"),
        ('["a"]', "line 2: a list, but each line must be a JSON object"),
        ('{"answer": "1"}', "line 2: field 'question' is missing or empty"),
        ('{"question": "q", "answer": ""}', "line 2: field 'answer' is missing or empty"),
        ('{"question": "q", "answer": "1", "hints": 1}', "line 2: unknown field 'hints'"),
        ('{"question": "q", "answer": ["1"]}', "line 2: field 'answer' must be text, not list"),
        ('{"question": "q", "answer": true}', "line 2: field 'answer' must be text, not bool"),
        *(
            (
                f'{{"question": "q", "answer": "1", "metadata": {{"guidance_points": {points}}}}}',
                f"line 2: field 'metadata.guidance_points' {said}",
            )
            for points, said in {
                '"Think."': "must be a list of texts, not str",
                "null": "must be a list of texts, not NoneType",
                '["a", null]': "must be text, not null",
                '["a", {}]': "must be text, not dict",
                r'["\ud800"]': "holds half a surrogate pair",
            }.items()
        ),
        ('{"question": "q", "answer": "1", "grader": null}', "line 2: field 'grader' must be text, not null"),
        ('{"question": "q", "answer": "1", "metadata": 3}', "line 2: field 'metadata' must be an object"),
        ('{"id": "1", "question": "q", "answer": "1"}', "line 2: id '1' stands on an earlier line"),
        (b'{"question": "\xff", "answer": "1"}', "line 2: not UTF-8"),
    ],
)
def test_a_malformed_line_names_file_line_and_reason(tmp_path, line, reason):
    path = write(tmp_path, json.dumps({"question": "q", "answer": "1"}), line)
    with pytest.raises(ValueError, match=r"problems\.jsonl") as error:
        load_problems(path)
    assert reason in str(error.value)


def test_a_missing_or_empty_file_says_what_to_write(tmp_path):
    write(tmp_path, '{"question": "q", "answer": "a"}')
    with pytest.raises(FileNotFoundError, match=r"is a folder; name a problem file in it \(problems\.jsonl\)"):
        load_problems(tmp_path)
    with pytest.raises(FileNotFoundError, match="write one JSON object a line"):
        load_problems(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="holds no problem"):
        load_problems(write(tmp_path, "", " "))


DOCS = (Path(__file__).parent.parent / "docs/problems.md").read_text()
FILES, _, PREPARATION = DOCS.partition("## `guide problems`")
EXAMPLES = dict(
    zip(("problems", "reasoning_gym", "prime", "grading"), re.findall(r"```\w+\n(.*?)```", FILES, re.S), strict=True)
)


@pytest.fixture
def documented(tmp_path, monkeypatch):
    """The documented problems, in a folder that holds the documented grader."""
    (tmp_path / "problems.jsonl").write_text(EXAMPLES["problems"])
    (tmp_path / "my_graders.py").write_text(EXAMPLES["prime"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return load_problems("problems.jsonl")


@needs_sandbox
@pytest.mark.e2e
def test_the_documented_code_grades_texts(capsys):
    exec(EXAMPLES["grading"], {})
    assert re.findall(r"verdict='(\w+)'", capsys.readouterr().out) == ["passed", "wrong"]


@needs_sandbox
def test_the_documented_problems_load_and_their_graders_accept_their_answers(documented):
    pytest.importorskip("reasoning_gym")
    for problem in documented:
        graders.check(problem)
        bare = ":" in problem.grader or problem.grader == "unit_tests"
        text = problem.answer if bare else f"<answer>{problem.answer}</answer>"
        assert graders.thorough_grader(problem.grader)(problem, text).correct
        assert not graders.thorough_grader(problem.grader)(problem, "<answer>no</answer>").correct
    assert {problem.grader for problem in documented} == {*graders.GRADERS, "my_graders:prime"}
    assert graders.resolve("my_graders:prime")(documented[-1], "it is 100").reward == 0.1
    close_sandboxes()


def test_the_documented_fields_are_the_fields():
    table = DOCS.partition("## Graders")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == {field.name for field in fields(Problem)}


def test_the_documented_way_to_reasoning_gym_makes_problems_that_it_grades(tmp_path, monkeypatch):
    pytest.importorskip("reasoning_gym")
    monkeypatch.chdir(tmp_path)
    exec(EXAMPLES["reasoning_gym"].replace("size=100", "size=3"), {})
    for problem in load_problems("countdown.jsonl"):
        graders.check(problem)
        assert graders.thorough_grader(problem.grader)(problem, f"<answer>{problem.answer}</answer>").correct


@pytest.mark.parametrize("row", [{"grader": "maths"}, {"grader": "reasoning_gym"}, {"grader": "no_module:grade"}])
def test_a_problem_that_cannot_be_graded_is_named_with_its_file(tmp_path, row):
    problem_sets = pytest.importorskip("guide_rl.trainers.problem_sets")
    path = tmp_path / "p.jsonl"
    path.write_text(
        "".join(json.dumps({"id": i, "question": "q", "answer": "1"} | (row if i else {})) + "\n" for i in (0, 1))
    )
    all_fit = SimpleNamespace(fit=lambda problems: (problems, None))
    with pytest.raises(graders.GraderSetupError, match=f"{path}, problem '1': .*{row['grader'].split(':')[0]}"):
        problem_sets._fitting(str(path), all_fit, lambda _: None, guided=True)


FILES_LEFT = ("problems.jsonl", "rejected.jsonl", "summary.json", "recipe.yaml")


SAID = dict(re.findall(r"<!-- (\S+) -->\n```\w*\n(.*?)```", PREPARATION, re.S))
MODEL = Path(graders.__file__).parent.parent / "demo/base_model"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The documented files, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, text in SAID.items():
        if "." in name:
            (tmp_path / name).write_text(text)


@pytest.mark.usefixtures("files")
def test_the_documented_recipe_does_what_the_page_says(capsys):
    said = SAID
    first, second, third = (shlex.split(line)[1:] for line in said["commands"].splitlines())
    main(first)
    assert capsys.readouterr().out == said["output"]
    assert {path.name for path in Path("data/shop").iterdir()} == set(FILES_LEFT)
    with pytest.raises(SystemExit):
        main(second)
    main(third)
    assert "1240" in capsys.readouterr().out


@pytest.mark.usefixtures("files")
def test_the_other_documented_commands_do_what_the_page_says(capsys):
    pytest.importorskip("transformers")
    quiz, more, short, show, fields_help = (
        shlex.split(re.sub(r"model=\S+", f"model={MODEL}", line))[1:] for line in SAID["more_commands"].splitlines()
    )
    for command in (quiz, more, short):
        main(command)
    for folder in ("quiz", "more", "short"):
        (problem,) = load_problems(f"data/{folder}/problems.jsonl")
        assert problem.id == "quiz/18"
        assert f"{problem.answer}) 2" in problem.question
    capsys.readouterr()
    main(show)
    assert "Think first." in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(fields_help)
    assert not stop.value.code
    assert "--sources.where" in capsys.readouterr().out


def test_every_documented_command_is_run():
    shown = re.findall(r"^guide .*", PREPARATION, re.M)
    assert shown == (SAID["commands"] + SAID["more_commands"]).splitlines()


def test_the_documented_rules_are_the_rules():
    table = PREPARATION.partition("| rule | takes |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == set(RULES)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"question": "\\ud800+1=", "answer": "1"}', "'question' holds half a surrogate pair"),
        ('{"question": "q", "answer": 1e999}', "'answer' is inf"),
        ('{"question": "q", "answer": "  "}', "'answer' is missing or empty"),
        ('{"question": "q", "answer": ' + "9" * 5000 + "}", "not valid JSON"),
    ],
)
def test_values_that_are_no_text_are_named_with_their_line(tmp_path, line, what):
    (tmp_path / "p.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=rf"p.jsonl, line 1: .*{what}"):
        load_problems(tmp_path / "p.jsonl")
