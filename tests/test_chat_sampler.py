"""`guide evaluate` through an OpenAI-compatible server: every rollout a request of its own, none asked twice, none made up."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from faulty_server import Answer, FaultyServer, completion, seeded
from rich.console import Console
from served_model import served_demo_model

from guide_rl.chat.client import ChatClient
from guide_rl.config import ChatConfig, EvaluateRecipe, PromptsConfig
from guide_rl.evaluation import running
from guide_rl.evaluation.running import evaluate_models
from guide_rl.samplers.chat import ChatSampler
from guide_rl.samplers.request_seed import request_seed
from guide_rl.types import Request

PROBLEMS = [
    {"id": str(i), "question": f"{i}+{i}=", "answer": str(2 * i), "grader": "exact", "guidance": f"double {i}"}
    for i in range(6)
]


@pytest.fixture(autouse=True)
def local(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def recipe(folder: Path, base_url: str, chat: dict | None = None, **fields) -> EvaluateRecipe:
    """An evaluation of one served model, with short pauses."""
    path = folder / "sums.jsonl"
    path.write_text("".join(json.dumps(problem) + "\n" for problem in PROBLEMS))
    how = {"base_url": base_url, "api_key_env": None, "backoff_s": 0.01, "backoff_max_s": 0.02, "timeout_s": 5.0}
    usual = {
        "models": {"served": "org/model"},
        "benchmarks": {"sums": str(path)},
        "run": str(folder / "run"),
        "samples": 4,
        "max_tokens": 77,
        "sampler": "chat",
        "chat": ChatConfig(**(how | (chat or {}))),
    }
    return EvaluateRecipe(**(usual | fields))


def evaluate(made: EvaluateRecipe, **options):
    return evaluate_models(made, console=Console(quiet=True), **options)


def right(prompt: str, nth: int) -> Answer:
    """The server doubles the number, in words that are a final answer."""
    return Answer(200, completion(f"<answer>{2 * int(prompt.partition('+')[0])}</answer>", usage=(7, 9)))


def test_every_rollout_is_a_request_of_its_own_with_the_prompts_and_settings_of_the_recipe(tmp_path):
    with FaultyServer(right) as server:
        made = recipe(
            tmp_path, server.base_url, guided=True, top_p=0.9, stop=["END"], prompts=PromptsConfig(system="Be brief.")
        )
        run = evaluate(made)
    assert len(server.requests) == 6 * (5 + 4 + 4)
    seeds = Counter((r["messages"][-1]["content"], r["temperature"], r["seed"]) for r in server.requests)
    assert max(seeds.values()) == 1
    assert Counter(r["temperature"] for r in server.requests) == {0.0: 30, 1.0: 48}
    for request in server.requests:
        assert (request["model"], request["max_tokens"]) == ("org/model", 77)
        assert (request["top_p"], request["stop"]) == (0.9, ["END"])
        assert "top_k" not in request
        assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    prompts = {request["messages"][1]["content"] for request in server.requests}
    assert len(prompts) == 12
    assert sum("[HINT_START]\ndouble 3\n[HINT_END]" in prompt for prompt in prompts) == 1
    results = run.read("results.jsonl")
    assert [len(row["correct"]) for row in results if row["temperature"] == 0.0] == [5] * 6
    assert all(all(row["correct"]) for row in results)
    assert {row["tokens"] for row in run.read("rollouts.jsonl")} == {9}, "as the server counts them"


def test_faults_of_the_server_change_no_result(tmp_path):
    faults = seeded(0.3, faults=("429", "500", "garbage", "half", "nothing"))
    with FaultyServer(lambda prompt, nth: faults(prompt, nth) or right(prompt, nth)) as server:
        run = evaluate(recipe(tmp_path, server.base_url, {"tries": 20}))
    assert all(all(row["correct"]) for row in run.read("results.jsonl"))
    assert len(run.read("rollouts.jsonl")) == 6 * (5 + 4)


def test_cut_off_and_empty_answers_are_told_apart(tmp_path):
    def rule(prompt, nth):
        if nth == 0:
            return Answer(200, completion("half an ans", finish="length"))
        return Answer(200, completion("", usage=(7, 0)) if nth == 1 else completion("dunno"))

    with FaultyServer(rule) as server:
        run = evaluate(recipe(tmp_path, server.base_url, greedy_runs=0))
    outcomes = [row["outcomes"] for row in run.read("results.jsonl")]
    assert outcomes == [{"correct": 0, "wrong": 0, "truncated": 1, "ungradable": 2, "empty": 1}] * 6
    assert len(server.requests) == 24, "an empty answer is an answer, not a fault to be tried again"


def test_an_interrupted_evaluation_asks_nothing_twice(tmp_path, monkeypatch):
    real = running.sample_setting

    def interrupted(*arguments, **options):
        for number, group in enumerate(real(*arguments, **options)):
            if number == 2:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            yield group

    with FaultyServer(right, delay_s=0.02) as server:
        made = recipe(tmp_path, server.base_url, {"concurrency": 2})
        with monkeypatch.context() as patched:
            patched.setattr(running, "sample_setting", interrupted)
            with pytest.raises(KeyboardInterrupt):
                evaluate(made)
        server.wait_for(lambda server: server.active == 0)
        cut, before = server.hung_up, len(server.requests)
        assert 0 < before < 6 * 9
        run = evaluate(made)
        assert len(server.requests) <= 6 * 9 + cut + 2  # those in flight at the interrupt were not answered
        assert len(run.read("rollouts.jsonl")) == 6 * 9
        evaluate(made)
        evaluate(made, again=True)
        assert len(server.requests) >= 2 * 6 * 9


def test_a_problem_without_a_whole_set_of_answers_has_no_result_until_it_is_asked_again(tmp_path):
    broken = Answer(400, {"error": {"message": "too long"}})
    with FaultyServer(lambda prompt, nth: broken if prompt == "3+3=" else right(prompt, nth)) as server:
        made = recipe(tmp_path, server.base_url, {"stop_after_failures": None})
        with pytest.raises(
            ConnectionError, match=r"2 problems have no whole .*: served, sums, problem '3': HTTP 400: too"
        ):
            evaluate(made)
        server.rule = right
        asked = len(server.requests)
        run = evaluate(made)
        assert len(server.requests) - asked == 9
    rows = run.read("results.jsonl")
    assert len(rows) == 12
    assert {row["problem_id"] for row in rows[-2:]} == {"3"}
    assert len(run.read("rollouts.jsonl")) == 6 * 9


def test_a_server_that_refuses_everything_stops_the_evaluation_with_its_words(tmp_path):
    with FaultyServer(lambda prompt, nth: Answer(404, {"error": {"message": "no such model"}})) as server:
        with pytest.raises(ConnectionError, match=r"no such model; check chat\.model \(org/model\)"):
            evaluate(recipe(tmp_path, server.base_url))
        assert not lines_of(tmp_path / "run/results.jsonl")
        server.rule = right
        assert len(evaluate(recipe(tmp_path, server.base_url)).read("results.jsonl")) == 12


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    ("chat", "fields", "message"),
    [
        ({"api_key_env": "NO_SUCH_KEY"}, {}, "no API key: set the environment variable NO_SUCH_KEY"),
        ({"model": "x"}, {}, r"chat\.model is set, and models has the names"),
        ({"temperature": 0.7}, {}, r"chat\.temperature is set; set temperature of this recipe"),
        ({"max_tokens": 7}, {}, r"chat\.max_tokens is set; set max_tokens of this recipe"),
        ({"parameters": {"seed": 1}}, {}, r"chat\.parameters holds seed"),
        ({}, {"prompts": PromptsConfig(chat_template="think_answer")}, r"prompts\.chat_template is set"),
    ],
)
def test_settings_that_a_server_cannot_follow_are_refused(tmp_path, chat, fields, message):
    with pytest.raises(ValueError, match=message):
        evaluate(recipe(tmp_path, "http://127.0.0.1:9/v1", chat, **fields))
    assert not (tmp_path / "run").exists()


def test_what_a_server_does_not_take_is_left_out(tmp_path):
    chat = {"temperature": None, "max_tokens": None, "parameters": {"max_completion_tokens": 50}}
    with FaultyServer(right) as server:
        evaluate(recipe(tmp_path, server.base_url, chat, top_k=5))
    for request in server.requests:
        assert not {"temperature", "max_tokens"} & set(request)
        assert (request["max_completion_tokens"], request["top_k"]) == (50, 5)


def test_requests_may_come_while_others_run(tmp_path):
    def asked(*names):
        return [Request(name, 0, False, (), (1, 2)) for name in names]

    with FaultyServer() as server:
        config = ChatConfig(model="m", base_url=server.base_url, api_key_env=None)
        with ChatClient(config, cache=tmp_path / "replies.sqlite") as client:
            sampler = ChatSampler(client, lambda name, guided: ({"role": "user", "content": name},))
            assert sampler.poll() == []
            sampler.submit(asked("a", "b"))
            (first,) = sampler.poll()
            sampler.submit(asked("c"))
            rest = [rollout for _ in range(2) for rollout in sampler.poll()]
            assert sampler.poll() == []
            sampler.submit(asked("d"))
            (last,) = sampler.poll()
    rollouts = [first, *rest, last]
    assert {rollout.problem_id: rollout.text for rollout in rollouts} == {name: f"reply to {name}" for name in "abcd"}
    assert (last.tokens, last.token_ids, last.finish) == (3, (), "stop")


def test_seeds_follow_from_the_request_alone_and_differ():
    seeds = {
        request_seed(Request(name, index, guided, (), (seed,)))
        for name in "abc"
        for index in range(50)
        for guided in (False, True)
        for seed in (0, 1)
    }
    assert len(seeds) == 600
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert request_seed(Request("a", 1, False, (7,), (0,))) == request_seed(Request("a", 1, False, (8, 9), (0,)))


@pytest.mark.e2e
def test_a_served_model_answers_as_it_does_in_this_process_and_needs_no_torch_here(tmp_path):
    with served_demo_model(tmp_path) as (url, model):
        recipe(tmp_path, "http://127.0.0.1:9/v1")
        arguments = [
            f"models={{m: {model}}}",
            f"benchmarks={{sums: {tmp_path}/sums.jsonl}}",
            "samples=0",
            "greedy_runs=1",
            "max_tokens=16",
        ]
        served = [
            "sampler=chat",
            f"chat.base_url={url}",
            "chat.api_key_env=null",
            f"run={tmp_path}/a",
        ]
        code = "import sys; from guide_rl.cli import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code, "evaluate", *arguments, *served], check=True)
        here = ["model.device=cpu", f"run={tmp_path}/b"]
        subprocess.run([sys.executable, "-m", "guide_rl.cli", "evaluate", *arguments, *here], check=True)
    texts = [
        {row["problem_id"]: (row["text"], row["correct"]) for row in map(json.loads, lines_of(tmp_path / run))}
        for run in ("a/rollouts.jsonl", "b/rollouts.jsonl")
    ]
    assert len(texts[0]) == 6
    assert texts[0] == texts[1]
