"""Problem files: what loads, and that bad input names file, line and reason."""

import json

import pytest

from guide_rl.problems import load_problems, save_problems
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


def test_saved_problems_load_back_the_same(tmp_path):
    problems = [
        Problem(
            "a", "q ü \u2028", "1", guidance="g", solution="s", grader="exact", stratum="hard", metadata={"x": [1]}
        ),
        Problem("b", "q", "2"),
    ]
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
    with pytest.raises(FileNotFoundError, match="write one JSON object a line"):
        load_problems(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="holds no problem"):
        load_problems(write(tmp_path, "", " "))
