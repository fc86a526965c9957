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
from dataclasses import replace
from pathlib import Path

import pytest
from faulty_server import Answer, FaultyServer, completion, seeded

from guide_rl.chat_api import ChatError, ChatReply, Spent
from guide_rl.cli import parse
from guide_rl.config import TEACHER_PROMPT, ChatConfig, GuidanceRecipe, ModelConfig
from guide_rl.guidance import (
    POINTS,
    dry_run,
    guidance_at,
    numbered,
    parse_points,
    teacher_messages,
    write_guidance,
)
from guide_rl.problems import load_problems, save_problems
from guide_rl.types import Problem

ROOT = Path(__file__).parent.parent
GOOD = "1. Think of parity.\n2. Pair the terms.\n3. Add the pairs."


def problem(number, **fields):
    return Problem(id=f"p{number}", question=f"What is question {number}?", answer=str(1000 + number), **fields)


class Teacher:
    """Answers in memory: the first reply that `reply(id, messages)` gives."""

    def __init__(self, reply=lambda key, messages: GOOD):
        self.reply, self.asked = reply, []

    def ask(self, requests):
        for key, messages in requests:
            self.asked.append((key, messages))
            text = self.reply(key, messages)
            yield key, text if isinstance(text, ChatError) else ChatReply(text, "stop", 7, 3, False)

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
        ("**1.** One.\n**2.** Two.", ["One.", "Two."]),
        ("1. **One:** look.\n2. **Two**", ["One:** look.", "Two"]),
        ("Hint 1: One.\nHint 2: Two.", ["One.", "Two."]),
        ("**Hint 1:** One.\n**Hint 2:** Two.", ["One.", "Two."]),
        ("### Hint 1\nOne.\n### Hint 2\nTwo.", ["One.", "Two."]),
        ("- One.\n- Two.\n* Three.", ["One.", "Two.", "Three."]),
        ("[guidance]:\n1. One\n   goes on.\n2. Two.\n\nGood luck!", ["One goes on.", "Two."]),
        ("1. One:\n   - sub a\n   - sub b\n2. Two.", ["One: sub a sub b", "Two."]),
        ("\n".join(f"{i}. P{i}" for i in range(1, 9)), ["P1", "P2", "P3", "P4", "P5"]),
        ("I cannot help with that.", []),
        ("", []),
        ("3.5 metres is the length.", []),
    ],
)
def test_a_reply_is_read_into_its_points(reply, points):
    assert [point.replace("**", "") for point in parse_points(reply)] == [point.replace("**", "") for point in points]


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
    with pytest.raises(FileExistsError, match="choose another folder"):
        write_guidance(made, Teacher())


def test_a_recipe_without_its_writer_is_refused():
    with pytest.raises(ValueError, match=r"chat\.model"):
        GuidanceRecipe(problems="x")
    with pytest.raises(ValueError, match=r"model\.path"):
        GuidanceRecipe(problems="x", writer="policy")
    with pytest.raises(ValueError, match="reference_answer"):
        GuidanceRecipe(problems="x", chat=ChatConfig(model="m"), prompt="{question}")


def test_a_dry_run_asks_nothing_and_shows_cost_and_prompt(tmp_path):
    chat = ChatConfig(model="m", prompt_price=2.5, completion_price=10.0, base_url="http://127.0.0.1:9/v1")
    text = dry_run(recipe(tmp_path, [problem(1), problem(2)], chat=chat))
    assert "2 of 2 problems" in text
    assert "at most 2,048 reply tokens" in text
    assert "cost at most: 0.02" in text
    assert "[question]: What is question 1?" in text


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
    first = write_guidance(made)
    assert first["last_run"]["asked"] >= 3
    assert first["written"] + first["refused"] == 3
    before = result(tmp_path / "out")
    second = write_guidance(made)
    assert second["last_run"]["asked"] == 0
    assert result(tmp_path / "out") == before


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
        summary = write_guidance(made)
        assert summary["failed"] == 0
        assert summary["written"] + summary["refused"] == 4
        assert summary["last_run"]["asked"] >= 4
        before = result(tmp_path / "out")
        assert write_guidance(made)["last_run"]["asked"] == 0
        assert result(tmp_path / "out") == before
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
