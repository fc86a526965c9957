"""A teacher's replies become checked guidance, once a problem, whatever happens on the way."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from faulty_server import Answer, FaultyServer, completion, seeded
from rich.console import Console

from guide_rl.chat.client import ChatClient, ChatError, ChatReply, Spent
from guide_rl.cli import main, parse
from guide_rl.config import TEACHER_PROMPT, ChatConfig, GuidanceRecipe, ModelConfig
from guide_rl.guidance.asking import CUT_OFF, Outcome, teacher_messages
from guide_rl.guidance.writing import _doing, _reporter, dry_run, money, report, write_guidance
from guide_rl.problems import load_problems, save_problems
from guide_rl.problems.points import POINTS, guidance_at, numbered, parse_points
from guide_rl.progress import Progress
from guide_rl.recipes import write_recipe
from guide_rl.types import Problem

ROOT = Path(__file__).parent.parent
GOOD = "1. Think of parity.\n2. Pair the terms.\n3. Add the pairs."


def problem(number, **fields):
    return Problem(id=f"p{number}", question=f"What is question {number}?", answer=str(1000 + number), **fields)


class Teacher:
    """Answers in memory: the first reply that `reply(id, messages)` gives."""

    trouble = ""

    def __init__(self, reply=lambda key, messages: GOOD):
        self.reply, self.asked = reply, []

    def ask(self, requests):
        for key, messages in requests:
            self.asked.append((key, messages))
            text = self.reply(key, messages)
            yield key, text if isinstance(text, ChatError | ChatReply) else ChatReply(text, "stop", 7, 3, False)

    @property
    def spent(self):
        return Spent(len(self.asked), 0, 0, 0, 7 * len(self.asked), 3 * len(self.asked), None)


def recipe(folder, problems, **fields):
    save_problems(folder / "in.jsonl", problems)
    fields = {"chat": ChatConfig(model="teacher", api_key_env=None)} | fields
    return GuidanceRecipe(problems=str(folder / "in.jsonl"), out=str(folder / "out"), **fields)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def result(folder):
    """Everything that must not depend on interruptions."""
    names = ("problems.jsonl", "refused.jsonl", "failed.jsonl", "summary.json", "recipe.yaml")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize(
    ("reply", "points"),
    [
        ("1. One.\n2. Two.\n3. Three.", ["One.", "Two.", "Three."]),
        ("Here are hints:\n\n1) One.\n\n2) Two.", ["One.", "Two."]),
        ("(1) One.\n(2) Two.", ["One.", "Two."]),
        ("1\\. One.\n2\\. Two.", ["One.", "Two."]),
        ("\uff11\uff0eOne.\n\uff12\uff0eTwo.", ["One.", "Two."]),
        ("1. One.\n2. .5 x", ["One.", ".5 x"]),
        ("1.\n   One.\n2.\n   Two.", ["One.", "Two."]),
        # Emphasis: whole or not at all.
        ("**1.** One.\n**2.** Two.", ["One.", "Two."]),
        ("**1**. One.\n**2**. Two.", ["One.", "Two."]),
        ("**1. Title** One.\n__2. Title__ Two.", ["**Title** One.", "__Title__ Two."]),
        ("**1. One.\n2. Two.", ["One.", "Two."]),
        ("1. **Conceptual hint:** Think of x.", ["**Conceptual hint:** Think of x."]),
        ("1. *a* is good\n2. *b*", ["*a* is good", "*b*"]),
        # Labels.
        ("Hint 1: One.\nHint 2: Two.", ["One.", "Two."]),
        ("Hint 1 - One.\nHint 2 - Two.", ["One.", "Two."]),
        ("**Hint 1:** One.\n**Hint 2:** Two.", ["One.", "Two."]),
        ("- **Hint 1**: One.\n- **Hint 2**: Two.", ["One.", "Two."]),
        ("**Hint 1** $x$ is odd.", ["$x$ is odd."]),
        ("### Hint 1\nOne.\n### Hint 2\nTwo.", ["One.", "Two."]),
        ("### Hint 1\n\nOne.\n\n### Hint 2\n\nTwo.\n\nBye.", ["One.", "Two."]),
        # Bullets.
        ("- One.\n- Two.\n* Three.", ["One.", "Two.", "Three."]),
        ("1. One:\n   - sub a\n   - sub b\n2. Two.", ["One: sub a sub b", "Two."]),
        ("1. One:\n   1. sub a\n   2. sub b\n2. Two.", ["One: sub a sub b", "Two."]),
        # What belongs to a point.
        ("[guidance]:\n1. One\n   goes on.\n2. Two.\n\nGood luck!", ["One goes on.", "Two."]),
        (
            "1. **Understand**\n\n   Consider the parity.\n\n2. **Plan**\n\n   Use induction.",
            ["**Understand** Consider the parity.", "**Plan** Use induction."],
        ),
        (
            "1. **Understand**\n\nThe parity.\n\n2. **Plan**\n\nUse induction.\n\nGood luck!",
            ["**Understand** The parity.", "**Plan** Use induction."],
        ),
        ("1. One.\n2. Two.\n\n   More.\n\nBye.", ["One.", "Two. More."]),
        ("1. One.\n---\n2. Two.\n\n---\nBye.", ["One.", "Two."]),
        ("\n".join(f"{i}. P{i}" for i in range(1, 9)), ["P1", "P2", "P3", "P4", "P5"]),
        # Thoughts.
        ("<think>1. No.\n2. No.</think>\n1. One.", ["One."]),
        ("1. No.\n</think>\n1. One.", ["One."]),
        ("<think>\n1. No.", []),
        # No list.
        ("I cannot help with that.", []),
        ("", []),
        ("3.5 metres is the length.", []),
        ("1:30 pm\nPoint 3 is on the line.", []),
    ],
)
def test_a_reply_is_read_into_its_points(reply, points):
    assert parse_points(reply) == tuple(points)


@pytest.mark.parametrize("text", ["#" * 30_000 + "!", " " * 30_000 + "!", "*" * 30_000, "> " * 15_000, "1." * 15_000])
def test_a_hostile_reply_is_read_in_no_time(text):
    started = time.perf_counter()
    parse_points(text)
    assert time.perf_counter() - started < 1


def test_the_prompt_is_the_papers():
    paper = ROOT.parent / "shared/paper/adaptive-guidance-full-text.txt"
    squeezed = re.sub(r"\s", "", TEACHER_PROMPT)
    assert squeezed.startswith("Youareanexpertmathtutor")
    assert squeezed.endswith("[Finalhintthatguidestowardthesolutionmethodwithoutprovidingit]")
    if paper.exists():
        assert squeezed in re.sub(r"\s", "", paper.read_text())


def test_the_teacher_sees_the_solution_or_else_the_answer_and_braces_stay_as_they_are():
    row = replace(problem(1), question="Set {reference_answer} in {question}", solution="By \\frac{1}{2}.")
    (message,) = teacher_messages(row, TEACHER_PROMPT)
    assert (
        "[question]: Set {reference_answer} in {question}\n[reference_answer]: By \\frac{1}{2}.\n" in message["content"]
    )
    assert "[reference_answer]: 1001\n" in teacher_messages(problem(1), TEACHER_PROMPT)[0]["content"]


def test_points_are_written_with_their_levels(tmp_path):
    write_guidance(recipe(tmp_path, [problem(1, metadata={"a": 1})], level=2), Teacher())
    (row,) = load_problems(tmp_path / "out/problems.jsonl")
    assert row.guidance == "1. Think of parity.\n2. Pair the terms."
    assert row.metadata == {"a": 1, POINTS: ["Think of parity.", "Pair the terms.", "Add the pairs."]}
    assert guidance_at(row, 1).guidance == "1. Think of parity."
    assert guidance_at(row, None).guidance == GOOD == numbered(row.metadata[POINTS])
    assert guidance_at(problem(1), 1) == problem(1)


def test_a_leak_is_asked_for_once_more_with_the_reason_and_then_refused(tmp_path):
    replies = {"p1": iter([f"1. It is {1001}.", GOOD]), "p2": iter(["1. It is 1,002.", "1. Say 1002.", GOOD])}
    teacher = Teacher(lambda key, messages: next(replies[key]))
    summary = write_guidance(recipe(tmp_path, [problem(1), problem(2)]), teacher)
    assert [key for key, _ in teacher.asked] == ["p1", "p2", "p1", "p2"]
    again = teacher.asked[2][1]
    assert [message["role"] for message in again] == ["user", "assistant", "user"]
    assert "1001" in again[2]["content"]
    rows = load_problems(tmp_path / "out/problems.jsonl")
    assert [row.guidance for row in rows] == [GOOD, None]
    (refused,) = lines(tmp_path / "out/refused.jsonl")
    assert refused == {"id": "p2", "reason": "it gives the final answer away: 1002", "reply": "1. Say 1002."}
    assert (summary["written"], summary["refused"], summary["failed"]) == (1, 1, 0)
    assert (summary["prompt_tokens"], summary["completion_tokens"]) == (28, 12)


def test_what_a_teacher_thinks_besides_its_points_is_no_leak(tmp_path):
    reply = f"<think>The answer is 1001.</think>\nIt is 1001, but I do not say so:\n{GOOD}"
    assert write_guidance(recipe(tmp_path, [problem(1)]), Teacher(lambda key, messages: reply))["written"] == 1


def test_no_list_and_failures_are_told_with_their_reason(tmp_path):
    replies = {"p1": "I cannot.", "p2": ChatError("HTTP 500 (tried 6 times)"), "p3": GOOD}
    rows = [problem(number) for number in (1, 2, 3)]
    summary = write_guidance(recipe(tmp_path, rows), Teacher(lambda key, messages: replies[key]))
    assert lines(tmp_path / "out/failed.jsonl") == [{"id": "p2", "reason": "HTTP 500 (tried 6 times)"}]
    assert lines(tmp_path / "out/refused.jsonl")[0]["reason"] == "it holds no list of hints"
    assert [row.id for row in load_problems(tmp_path / "out/problems.jsonl")] == ["p1", "p2", "p3"]
    assert (summary["written"], summary["refused"], summary["failed"]) == (1, 1, 1)


def test_guidance_that_is_there_is_kept_unless_it_is_to_be_overwritten(tmp_path):
    rows = [problem(1, guidance="Mine."), problem(2)]
    teacher = Teacher()
    assert write_guidance(recipe(tmp_path, rows), teacher)["kept"] == 1
    assert [key for key, _ in teacher.asked] == ["p2"]
    assert load_problems(tmp_path / "out/problems.jsonl")[0] == rows[0]
    write_guidance(recipe(tmp_path, rows, overwrite=True), Teacher())
    assert load_problems(tmp_path / "out/problems.jsonl")[0].guidance == GOOD


def test_other_files_are_not_overwritten(tmp_path):
    made = recipe(tmp_path, [problem(1)])
    (tmp_path / "out").mkdir()
    shutil.copy(tmp_path / "in.jsonl", tmp_path / "out/problems.jsonl")
    with pytest.raises(FileExistsError, match="use another out"):
        write_guidance(made, Teacher())


@pytest.mark.parametrize("name", ["recipe.yaml", "summary.json"])
def test_files_of_another_command_are_not_overwritten(tmp_path, name):
    made = recipe(tmp_path, [problem(1)])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(FileExistsError, match=rf"holds a {name} that .* did not write; use another out"):
        write_guidance(made, Teacher())
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_a_result_is_not_written_over_the_problems_that_it_is_made_of(tmp_path):
    made = recipe(tmp_path, [problem(1)])
    write_guidance(made, Teacher())
    before = result(tmp_path / "out")
    with pytest.raises(FileExistsError, match=r"out/problems\.jsonl would be overwritten; use another out"):
        write_guidance(replace(made, problems=str(tmp_path / "out/../out/problems.jsonl")), Teacher())
    assert result(tmp_path / "out") == before


def test_a_result_of_something_else_is_not_overwritten(tmp_path):
    rows = [problem(1), problem(2)]
    made = recipe(tmp_path, rows)
    write_guidance(made, Teacher())
    before = result(tmp_path / "out")
    for field, other in {
        "prompt": replace(made, prompt="Hints! {question}{reference_answer}"),
        "level": replace(made, level=1),
        "chat.model": replace(made, chat=ChatConfig(model="other", api_key_env=None)),
        "writer": replace(made, writer="policy", model=ModelConfig(path="x")),
    }.items():
        with pytest.raises(FileExistsError, match=rf"{re.escape(field)} .*use another out"):
            write_guidance(other, Teacher())
    for other in ([problem(1)], [problem(1), replace(problem(2), answer="7")]):
        with pytest.raises(FileExistsError, match=r"'p2'.*use another out"):
            write_guidance(recipe(tmp_path, other), Teacher())
    assert result(tmp_path / "out") == before


def test_problems_may_be_added_and_how_the_teacher_is_reached_may_change(tmp_path):
    write_guidance(recipe(tmp_path, [problem(1)]), Teacher())
    elsewhere = ChatConfig(
        model="teacher", api_key_env=None, base_url="http://127.0.0.1:9/v1", concurrency=1, max_tokens=9
    )
    summary = write_guidance(recipe(tmp_path, [problem(0), problem(1)], chat=elsewhere), Teacher())
    assert summary["written"] == 2


def test_two_runs_do_not_work_on_one_folder(tmp_path):
    made = recipe(tmp_path, [problem(1)])

    def second(key, messages):
        with pytest.raises(BlockingIOError, match="another process"):
            write_guidance(made, Teacher())
        return GOOD

    assert write_guidance(made, Teacher(second))["written"] == 1


def test_a_run_that_wrote_nothing_is_an_error_that_says_why_and_leaves_no_result(tmp_path):
    replies = {"p1": ChatError("HTTP 400: no model x"), "p2": "I cannot.", "p3": ChatError("HTTP 400: no model x")}
    made = recipe(tmp_path, [problem(number) for number in (1, 2, 3)])
    with pytest.raises(ValueError, match=r"any of 3 problems.*refused\.jsonl.*failed\.jsonl\): HTTP 400 2.*no model x"):
        write_guidance(made, Teacher(lambda key, messages: replies[key]))
    assert len(lines(tmp_path / "out/failed.jsonl")) == 2
    assert not (tmp_path / "out/problems.jsonl").exists()
    assert not (tmp_path / "out/recipe.yaml").exists()
    other = replace(made, chat=ChatConfig(model="right", api_key_env=None))
    assert write_guidance(other, Teacher())["written"] == 3


def test_the_command_fails_where_nothing_was_written(tmp_path, capsys):
    with FaultyServer(lambda prompt, nth: Answer(400, {"error": {"message": "no such model"}})) as server:
        made = recipe(tmp_path, [problem(1)], chat=chat(server))
        (tmp_path / "recipe.yaml").write_text(write_recipe(made))
        with pytest.raises(SystemExit) as ended:
            main(["guidance", str(tmp_path / "recipe.yaml")])
    assert ended.value.code == 1
    assert "no such model" in capsys.readouterr().err


def test_a_report_counts_by_reason(tmp_path):
    replies = {"p1": GOOD, "p2": "I cannot.", "p3": "1. It is 1003.", "p4": ChatError("HTTP 500: oh")}
    rows = [problem(number) for number in (1, 2, 3, 4)]
    summary = write_guidance(recipe(tmp_path, rows), Teacher(lambda key, messages: replies[key]))
    text = report(summary, "OUT")
    assert "1 written, 2 refused, 1 failed, 0 had guidance already: OUT/problems.jsonl" in text
    assert "refused (OUT/refused.jsonl): it holds no list of hints 1, it gives the final answer away 1" in text
    assert "failed (OUT/failed.jsonl): HTTP 500 1" in text


def test_a_reply_that_was_cut_off_is_not_asked_for_again(tmp_path):
    teacher = Teacher(lambda key, messages: ChatReply("1. One", "length", 7, 3, False) if key == "p1" else GOOD)
    summary = write_guidance(recipe(tmp_path, [problem(1), problem(2)]), teacher)
    assert [key for key, _ in teacher.asked] == ["p1", "p2"]
    assert summary["refused"] == 1
    assert lines(tmp_path / "out/refused.jsonl")[0]["reason"] == CUT_OFF
    assert "raise max_tokens" in CUT_OFF


def test_guidance_that_problems_come_with_is_asked_for_anew_where_it_leaks(tmp_path):
    rows = [problem(1, guidance="It is 1001."), problem(2, guidance="Think.")]
    teacher = Teacher()
    summary = write_guidance(recipe(tmp_path, rows), teacher)
    assert [key for key, _ in teacher.asked] == ["p1"]
    assert [row.guidance for row in load_problems(tmp_path / "out/problems.jsonl")] == [GOOD, "Think."]
    (refused,) = lines(tmp_path / "out/refused.jsonl")
    assert (refused["id"], refused["reply"]) == ("p1", "It is 1001.")
    assert refused["reason"] == "the guidance that it came with gives the final answer away: 1001"
    assert (summary["leaking"], summary["kept"], summary["written"]) == (1, 1, 1)
    assert "1 came with guidance" in report(summary, "OUT")


def test_points_that_problems_come_with_are_checked_too_and_the_check_can_be_left_out(tmp_path):
    row = problem(1, guidance="1. Think.", metadata={POINTS: ["Think.", "It is 1001."]})
    assert write_guidance(recipe(tmp_path, [row]), Teacher())["leaking"] == 1
    unchecked = replace(recipe(tmp_path, [row], check_kept=False), out=str(tmp_path / "out2"))
    assert write_guidance(unchecked, Teacher())["kept"] == 1


def test_leaking_guidance_is_dropped_where_no_other_comes(tmp_path):
    rows = [problem(1, guidance="It is 1001.", metadata={"a": 1, POINTS: ["It is 1001."]}), problem(2)]
    write_guidance(recipe(tmp_path, rows), Teacher(lambda key, _: ChatError("HTTP 500") if key == "p1" else GOOD))
    first = load_problems(tmp_path / "out/problems.jsonl")[0]
    assert (first.guidance, first.metadata) == (None, {"a": 1})


@pytest.mark.parametrize(("level", "expected"), [(None, "Own."), (1, "1. A."), (2, "1. A.\n2. B.")])
def test_the_level_applies_to_points_that_problems_come_with(tmp_path, level, expected):
    row = problem(1, guidance="Own.", metadata={POINTS: ["A.", "B.", "C."]})
    write_guidance(recipe(tmp_path, [row, problem(2, guidance="No points.")], level=level), Teacher())
    rows = load_problems(tmp_path / "out/problems.jsonl")
    assert [row.guidance for row in rows] == [expected, "No points."]


def test_an_interrupted_run_says_what_was_done_and_how_to_go_on(tmp_path):
    def reply(key, messages):
        if key == "p3":
            raise KeyboardInterrupt
        return GOOD

    console = Console(file=StringIO())
    with pytest.raises(KeyboardInterrupt):
        write_guidance(recipe(tmp_path, [problem(i) for i in (1, 2, 3)]), Teacher(reply), console)
    said = console.file.getvalue()
    assert "stopped: 2 written, 0 refused, 0 failed of 3; asked 3" in said
    assert "start the same command again" in said


def test_progress_shows_within_seconds_without_a_terminal(tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("guide_rl.guidance.writing.time.monotonic", lambda: float(next(clock)))
    console = Console(file=StringIO())
    write_guidance(recipe(tmp_path, [problem(i) for i in range(10)]), Teacher(), console)
    shown = re.findall(r"guidance (\d+)/10", console.file.getvalue())
    assert 1 <= int(shown[0]) <= 3
    assert len(shown) <= 3


def test_rate_and_time_left_leave_out_what_was_stored(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("guide_rl.progress.time.monotonic", lambda: clock[0])
    console = Console(file=StringIO(), force_terminal=True, width=100)
    progress, teacher, written = Progress(100, unit="problems", console=console), Teacher(), Outcome(points=("A.",))
    done = _reporter(progress, Counter(), teacher)
    for number in range(60):
        done(f"p{number}", written)
    teacher.asked = [None] * 10
    clock[0] = 20.0
    for number in range(60, 70):
        done(f"p{number}", written)
    assert "70/100  1 min 00 s left  0.5 problems/s" in progress._summary()


def test_what_keeps_replies_from_coming_is_told_until_one_comes(tmp_path):
    told = []

    def rule(prompt, nth):
        told.append(_doing(client))
        return None if nth else "500"

    with FaultyServer(rule) as server:
        chat = ChatConfig(model="m", base_url=server.base_url, api_key_env=None, backoff_s=0.01)
        with ChatClient(chat, cache=tmp_path / "replies.sqlite") as client:
            list(client.ask([("a", ({"role": "user", "content": "A"},))]))
            told.append(_doing(client))
    assert [line.strip() for line in told] == [
        "0 answered, 0 stored before, 0 retried",
        "0 answered, 0 stored before, 1 retried  HTTP 500: Internal Server Error",
        "1 answered, 0 stored before, 1 retried",
    ]


def test_a_server_that_never_answered_is_no_run_to_go_on_with(tmp_path):
    console = Console(file=StringIO())
    chat = ChatConfig(model="m", base_url="http://127.0.0.1:9/v1", api_key_env=None, tries=1)
    with pytest.raises(ConnectionError, match=r"check chat\.base_url"):
        write_guidance(recipe(tmp_path, [problem(1)], chat=chat), console=console)
    assert "stopped" not in console.file.getvalue()


def test_a_recipe_without_its_writer_is_refused():
    with pytest.raises(ValueError, match=r"chat\.model"):
        GuidanceRecipe(problems="x")
    with pytest.raises(ValueError, match=r"model\.path"):
        GuidanceRecipe(problems="x", writer="policy")
    with pytest.raises(ValueError, match="out is empty"):
        GuidanceRecipe(problems="x", chat=ChatConfig(model="m"), out=" ")
    with pytest.raises(ValueError, match="reference_answer"):
        GuidanceRecipe(problems="x", chat=ChatConfig(model="m"), prompt="{question}")


def test_a_dry_run_asks_nothing_and_shows_cost_and_prompt(tmp_path):
    chat = ChatConfig(model="m", prompt_price=2.5, completion_price=10.0, base_url="http://127.0.0.1:9/v1")
    text = dry_run(recipe(tmp_path, [problem(1), problem(2)], chat=chat))
    assert "2 of 2 problems" in text
    assert "at most 2,048 reply tokens" in text
    assert "cost: about 0.022 with replies of full length, and about 0.049 if every reply" in text
    assert "in the unit of chat.prompt_price" in text
    assert "[question]: What is question 1?" in text
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_the_policy_shows_its_tokens_and_writes_nothing(tmp_path, demo_model):
    fields = {"chat": None, "writer": "policy", "model": ModelConfig(path=str(demo_model)), "max_tokens": 40}
    text = dry_run(recipe(tmp_path, [problem(1), problem(2)], prompt="{question}{reference_answer}", **fields))
    assert "first replies: 0 are stored, 2 to be asked for" in text
    assert "at most 80 reply tokens" in text
    assert "cost" not in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("cost", "text"), [(None, "unknown"), (0.0, "0"), (0.001234, "0.0012"), (1234.5, "1,234.50")])
def test_a_cost_has_digits_enough(cost, text):
    assert money(cost) == text


# ------------------------------------------------------------------ a real connection


def teacher_rule(faults):
    """Hints for every problem (a leak first for every tenth), and faults."""

    def rule(prompt, nth):
        fault = faults(prompt, nth)
        if fault is not None:
            return fault
        number = re.search(r"question (\d+)\?", prompt)
        leak = number is not None and int(number[1]) % 10 == 0
        return Answer(200, completion(f"1. It is {1000 + int(number[1])}." if leak else GOOD))

    return rule


def chat(server, **fields):
    return ChatConfig(
        model="m",
        base_url=server.base_url,
        api_key_env=None,
        backoff_s=0.01,
        backoff_max_s=0.05,
        timeout_s=1.0,
        **fields,
    )


@pytest.mark.e2e
def test_500_problems_at_10_percent_faults_are_each_written_once_and_asked_once(tmp_path):
    rows = [problem(number) for number in range(500)]
    with FaultyServer(teacher_rule(seeded(0.1)), slow_s=3.0) as server:
        made = recipe(tmp_path, rows, chat=chat(server))
        summary = write_guidance(made)
        first = result(tmp_path / "out")
        asked = sum(server.asked.values())
        assert (summary["written"], summary["refused"], summary["failed"]) == (500, 0, 0)
        assert [row.id for row in load_problems(tmp_path / "out/problems.jsonl")] == [row.id for row in rows]
        again = write_guidance(made)
        assert sum(server.asked.values()) == asked
        assert again["last_run"]["asked"] == 0
        assert again["last_run"]["cached"] == 550
        assert result(tmp_path / "out") == first


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_started_again_asks_nothing_twice_and_ends_alike(tmp_path, number):
    rows = [problem(i) for i in range(200)]
    with FaultyServer(teacher_rule(lambda prompt, nth: None), delay_s=0.05) as server:
        whole = recipe(tmp_path, rows, chat=chat(server, concurrency=8))
        write_guidance(whole)
        expected, total = result(tmp_path / "out"), sum(server.asked.values())
        shutil.rmtree(tmp_path / "out")
        server.asked.clear()
        command = [sys.executable, "-m", "guide_rl.cli", "guidance", str(tmp_path / "recipe.yaml")]
        (tmp_path / "recipe.yaml").write_bytes(expected["recipe.yaml"])
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
        server.wait_for(lambda server: sum(server.asked.values()) > 80, timeout=60)
        process.send_signal(number)
        assert process.wait(timeout=30) in (-9, 130)
        assert not (tmp_path / "out/summary.json").exists()
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60)
        assert result(tmp_path / "out") == expected
        assert total <= sum(server.asked.values()) <= total + 8


# ------------------------------------------------------------------ real models


@pytest.fixture(scope="module")
def demo_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "demo"
    shutil.copytree(ROOT / "guide_rl/demo/base_model", folder)
    return folder


def test_the_policy_writes_its_own_guidance(tmp_path, demo_model):
    prompt = "{question}{reference_answer}"
    rows = [replace(problem(i), question=f"{i}4*23=", answer=str((10 * i + 4) * 23)) for i in range(1, 4)]
    made = recipe(
        tmp_path,
        rows,
        chat=None,
        writer="policy",
        model=ModelConfig(path=str(demo_model)),
        prompt=prompt,
        max_tokens=40,
    )
    replies = []
    for asked in (True, False):  # it answers sums, so its replies are refused, each with its reason
        with pytest.raises(ValueError, match="for any of 3 problems"):
            write_guidance(made)
        replies.append((tmp_path / "out/refused.jsonl").read_bytes())
        assert (json.loads((tmp_path / "out/last_run.json").read_text())["asked"] >= 3) == asked
    assert len(replies[0].splitlines()) == 3
    assert replies[0] == replies[1]


def test_the_policy_fails_where_prompt_and_reply_do_not_fit_and_goes_on(tmp_path, demo_model):
    positions = json.loads((demo_model / "config.json").read_text())["max_position_embeddings"]
    rows = [replace(problem(1), question="1" * positions), replace(problem(2), question="24*23=")]
    fields = {"chat": None, "writer": "policy", "model": ModelConfig(path=str(demo_model)), "max_tokens": 40}
    with pytest.raises(ValueError, match="for any of 2 problems"):
        write_guidance(recipe(tmp_path, rows, prompt="{question}{reference_answer}", **fields))
    (failed,) = lines(tmp_path / "out/failed.jsonl")
    assert failed["id"] == "p1"
    assert "cannot take its prompt and a reply of max_tokens: a prompt of" in failed["reason"]
    assert failed["reason"].endswith(f" of {positions}")
    assert [row["id"] for row in lines(tmp_path / "out/refused.jsonl")] == ["p2"]


@pytest.mark.e2e
def test_guidance_from_a_real_server(tmp_path, demo_model):
    """`transformers serve` with the demo's model: it answers sums, so its replies are refused, each with its reason."""
    pytest.importorskip("fastapi")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(demo_model), "--device", "cpu"]
    command += ["--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.5)
        base_url = f"http://127.0.0.1:{port}/v1"
        teacher = ChatConfig(model=str(demo_model), base_url=base_url, api_key_env=None, max_tokens=24, concurrency=4)
        rows = [replace(problem(i), question=f"{i}+4=") for i in range(10, 14)]
        made = recipe(tmp_path, rows, chat=teacher, prompt="{question}{reference_answer}")
        replies = []
        for asked in (True, False):
            with pytest.raises(ValueError, match="for any of 4 problems"):
                write_guidance(made)
            replies.append((tmp_path / "out/refused.jsonl").read_bytes())
            assert (json.loads((tmp_path / "out/last_run.json").read_text())["asked"] >= 4) == asked
        assert len(replies[0].splitlines()) == 4
        assert replies[0] == replies[1]
    finally:
        server.terminate()
        server.wait(timeout=20)


# ------------------------------------------------------------------ what the docs say


def test_the_commands_of_the_docs_parse(tmp_path, monkeypatch):
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/guidance.md").read_text()
    commands = [line.split("#")[0].split() for line in text.splitlines() if re.match(r"guide \w", line)]
    assert len(commands) >= 4
    for _, name, *arguments in commands:
        parse(name, arguments)
    for script in re.findall(r"python (benchmarks/\w+\.py)", text):
        assert (ROOT / script).exists()
