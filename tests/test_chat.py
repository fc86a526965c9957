"""The chat client against a real server that misbehaves: each request answered once, nothing asked twice, no key leaks."""

import contextlib
import email.utils
import json
import logging
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import traceback
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from faulty_server import Answer, FaultyServer, completion, seeded

import guide_rl
from guide_rl.chat.client import ChatClient, ChatError, ChatReply, ChatStopped, pause_s
from guide_rl.chat.endpoint import estimate_tokens, retry_after_s
from guide_rl.config import ChatConfig
from guide_rl.recipes import parse_recipe, recipe_parser

KEY = "sk-planted-0123456789-abcdef"


def chat(text):
    return ({"role": "system", "content": "You are a tutor."}, {"role": "user", "content": text})


def numbered(count):
    return [(str(i), chat(f"prompt {i}")) for i in range(count)]


@pytest.fixture
def make_client(tmp_path, monkeypatch):
    """A client of a server, with short pauses; closed at the end."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with contextlib.ExitStack() as stack:

        def make(server, **fields):
            fields = {
                "model": "teacher", "base_url": getattr(server, "base_url", server), "api_key_env": None,
                "backoff_s": 0.01, "backoff_max_s": 0.02, "timeout_s": 5.0,
            } | fields  # fmt: skip
            return stack.enter_context(ChatClient(ChatConfig(**fields), cache=tmp_path / "cache" / "replies.sqlite"))

        yield make


def ask_one(client, text="prompt"):
    ((key, outcome),) = client.ask([("k", chat(text))])
    assert key == "k"
    return outcome


@pytest.mark.e2e
def test_500_requests_at_10_percent_faults_are_each_answered_once_and_never_asked_again(make_client):
    rule = seeded(0.1)
    with FaultyServer(rule) as server:
        client = make_client(server, timeout_s=1.0)
        answers = list(client.ask(numbered(500)))
        assert sorted(key for key, _ in answers) == sorted(str(i) for i in range(500))
        assert all(reply.text == f"reply to prompt {key}" and not reply.cached for key, reply in answers)
        assert set(server.answered.values()) == {1}
        faults = {p: next(n for n in range(9) if rule(p, n) is None) for p in server.asked}
        assert {p: n - 1 for p, n in server.asked.items()} == faults, "a fault is tried again, an answer is not"
        assert client.spent.retried == sum(faults.values()) > 30
        again = list(make_client(server).ask(numbered(500)))
        assert server.asked.total() == 500 + sum(faults.values())
    assert dict(again) == {key: replace(reply, cached=True) for key, reply in answers}


CHILD = """
import sys
from guide_rl.chat.client import ChatClient
from guide_rl.config import ChatConfig
base_url, cache, count = sys.argv[1:]
requests = ((str(i), ({"role": "user", "content": f"prompt {i}"},)) for i in range(int(count)))
config = ChatConfig(model="teacher", base_url=base_url, api_key_env=None, concurrency=8, backoff_s=0.01)
with ChatClient(config, cache=cache) as client:
    for key, reply in client.ask(requests):
        print(key, reply.text, reply.cached, sep="|", flush=True)
print("end", client.spent.asked)
"""


def start_child(server, tmp_path, count):
    command = [sys.executable, "-c", CHILD, server.base_url, str(tmp_path / "replies.sqlite"), str(count)]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(Path(guide_rl.__file__).parent.parent)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.e2e
def test_after_a_kill_at_most_the_requests_in_flight_are_asked_again(tmp_path):
    with FaultyServer(seeded(0.1, faults=("500", "half", "nothing")), delay_s=0.01) as server:
        child = start_child(server, tmp_path, 200)
        server.wait_for(lambda s: s.answered.total() >= 80)
        child.kill()
        yielded = [line.split("|")[0] for line in child.communicate()[0].splitlines() if line.count("|") == 2]
        first = server.answered.total()
        assert 40 < len(yielded) < 200
        out, err = start_child(server, tmp_path, 200).communicate(timeout=60)
        assert not err
    second = dict(line.split("|", 1) for line in out.splitlines() if "|" in line)
    assert len(second) == 200
    assert all(second[key] == f"reply to prompt {key}|True" for key in yielded), "what was yielded was stored"
    repeats = {p: n - 1 for p, n in server.answered.items() if n > 1}
    assert set(repeats.values()) <= {1}
    assert len(repeats) <= 8
    assert server.answered.total() - first == 200 - first + len(repeats)


def test_ctrl_c_ends_it_at_once_and_keeps_the_replies(tmp_path):
    def rule(prompt, nth):
        return "slow" if int(prompt.split()[1]) >= 20 else None

    with FaultyServer(rule, slow_s=60) as server:
        child = start_child(server, tmp_path, 100)
        lines = [child.stdout.readline() for _ in range(20)]
        server.wait_for(lambda s: s.active == 8)
        started = time.monotonic()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
        assert time.monotonic() - started < 10
        assert err.rstrip().endswith("KeyboardInterrupt")
        server.wait_for(lambda s: s.hung_up == 8)
        assert all("|reply to" in line for line in lines)
        assert not out
        assert server.asked.total() == 28
    with sqlite3.connect(tmp_path / "replies.sqlite") as db:
        assert db.execute("SELECT count(*) FROM entries").fetchone() == (20,)
    db.close()


def slow_but_for_the_first(prompt, nth):
    return "slow" if prompt != "prompt 0" else None


def test_closing_the_generator_cancels_what_is_in_flight_and_the_client_goes_on(make_client):
    with FaultyServer(slow_but_for_the_first, slow_s=60) as server:
        client = make_client(server, concurrency=4, timeout_s=60.0)
        answers = client.ask(numbered(50))
        assert next(answers)[1].text == "reply to prompt 0"
        server.wait_for(lambda s: s.active >= 3)
        answers.close()
        server.wait_for(lambda s: s.hung_up == s.asked.total() - 1)
        assert server.asked.total() <= 5
        assert ask_one(client, "prompt 0").cached


def test_closing_the_client_cancels_what_is_in_flight(make_client):
    with FaultyServer(slow_but_for_the_first, slow_s=60) as server:
        client = make_client(server, concurrency=4, timeout_s=60.0)
        answers = client.ask(numbered(50))
        next(answers)
        server.wait_for(lambda s: s.active >= 3)
        started = time.monotonic()
        client.close()
        assert time.monotonic() - started < 5
        server.wait_for(lambda s: s.hung_up == s.asked.total() - 1)


def test_requests_are_read_when_there_is_room_and_never_more_in_flight_than_allowed(make_client):
    read = []

    def requests():
        for key, messages in numbered(60):
            read.append(key)
            yield key, messages

    with FaultyServer(delay_s=0.005) as server:
        for done, _ in enumerate(make_client(server, concurrency=6).ask(requests())):
            assert len(read) <= done + 1 + 6
        assert server.most_active == 6


def test_equal_requests_are_asked_once(make_client):
    with FaultyServer(delay_s=0.05) as server:
        client = make_client(server)
        answers = dict(client.ask((key, chat("the same")) for key in "abc"))
        assert server.asked.total() == 1
    assert sorted(reply.cached for reply in answers.values()) == [False, True, True]
    assert (client.spent.asked, client.spent.cached) == (1, 2)


def test_requests_a_minute_are_spaced_evenly(make_client):
    with FaultyServer() as server:
        list(make_client(server, requests_per_minute=3000).ask(numbered(20)))
        gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert sum(gaps) >= 19 * 0.02 * 0.9
    assert sum(gaps) < 10, "and not slower than that"


def test_tokens_a_minute_count_what_was_used_rather_than_what_was_feared(make_client):
    # 10 requests of 1,000 tokens at most and 10 in truth, at 6,000 a minute: 90 s as feared, 0.9 s as used.
    with FaultyServer() as server:
        started = time.monotonic()
        list(make_client(server, tokens_per_minute=6000, max_tokens=1000, concurrency=1).ask(numbered(10)))
        took = time.monotonic() - started
    assert 0.8 <= took < 20


def test_retry_after_holds_all_requests_back(make_client):
    def rule(prompt, nth):
        return "429" if prompt == "prompt 3" and nth == 0 else None

    with FaultyServer(rule, retry_after="0.4", delay_s=0.01) as server:
        answers = list(make_client(server, concurrency=2).ask(numbered(10)))
        gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert all(isinstance(reply, ChatReply) for _, reply in answers)
    assert max(gaps) > 0.35


def test_pauses_double_up_to_the_longest_with_jitter():
    config = ChatConfig(model="m", backoff_s=1.0, backoff_max_s=5.0)
    for tries, longest in ((1, 1), (2, 2), (3, 4), (4, 5), (5000, 5)):
        pauses = [pause_s(config, tries) for _ in range(200)]
        assert longest / 2 <= min(pauses) < 0.6 * longest
        assert 0.9 * longest < max(pauses) <= longest


def test_a_request_is_given_up_after_its_tries_with_pauses_between(make_client):
    with FaultyServer(lambda prompt, nth: "500") as server:
        outcome = ask_one(make_client(server, tries=4, backoff_s=0.1, backoff_max_s=0.1))
        gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert isinstance(outcome, ChatError)
    assert str(outcome) == "HTTP 500: Internal Server Error (tried 4 times)"
    assert len(gaps) == 3
    assert min(gaps) >= 0.045


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "2"}, 2),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "-1"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "inf"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": email.utils.formatdate(1030, usegmt=True)}, 30),
        ({"retry-after": email.utils.formatdate(10, usegmt=True)}, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers, seconds):
    assert retry_after_s(headers, now=1000.0) == seconds


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"\xff\xfe",
        b"[" * 100_000,
        {},
        {"choices": []},
        {"choices": None, "error": {"message": "overloaded"}},
        {"choices": [{"message": {"content": ["a"]}, "finish_reason": "stop"}]},
        completion(""),
        completion("half a rep", finish=None),
    ],
    ids=str,
)
def test_a_broken_reply_is_asked_again_and_never_stored(make_client, body):
    with FaultyServer(lambda prompt, nth: Answer(200, body) if nth == 0 else None) as server:
        client = make_client(server)
        assert ask_one(client).text == "reply to prompt"
        assert (client.spent.retried, client.spent.asked) == (1, 1)


def test_a_body_that_comes_byte_by_byte_does_not_outlast_the_deadline(make_client):
    rule = lambda prompt, nth: Answer(200, completion("x" * 500), dribble_s=0.02) if nth == 0 else None  # noqa: E731
    with FaultyServer(rule) as server:
        started = time.monotonic()
        assert ask_one(make_client(server, timeout_s=0.3)).text == "reply to prompt"
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(400, {"error": {"message": "too long"}}), "HTTP 400: too long"),
        (Answer(200, completion(None, "stop", refusal="I will not")), "refused (stop): I will not"),
        (Answer(200, completion("so far", "content_filter")), "refused (content_filter): so far"),
    ],
)
def test_a_refused_request_fails_alone_untried_and_unstored(make_client, answer, reason):
    with FaultyServer(lambda prompt, nth: answer if prompt == "prompt 1" else None) as server:
        client = make_client(server)
        for asked in (1, 2):
            outcomes = dict(client.ask(numbered(5)))
            assert reason in str(outcomes.pop("1"))
            assert all(isinstance(outcome, ChatReply) for outcome in outcomes.values())
            assert server.asked["prompt 1"] == asked
        assert (client.spent.failed, client.spent.asked, client.spent.retried) == (2, 4, 0)


def test_a_reply_cut_off_by_its_length_is_a_reply(make_client):
    with FaultyServer(lambda prompt, nth: Answer(200, completion("so f", "length"))) as server:
        assert ask_one(make_client(server)) == ChatReply("so f", "length", 7, 3, cached=False)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(401, {"error": {"message": "bad key"}}), "HTTP 401: bad key; name the key's variable in chat.api_key_env"),
        (Answer(403, {"error": {"message": "not yours"}}), "HTTP 403: not yours"),
        (Answer(404, {"error": {"message": "no model"}}), "HTTP 404: no model; check chat.model (teacher) and chat.base_url"),
        (Answer(429, {"error": {"message": "pay", "code": "insufficient_quota"}}), "HTTP 429: pay; the account's quota"),
        (Answer(429, {"error": {"message": "tomorrow"}}, {"Retry-After": "36000"}), "come back after 600 minutes"),
    ],
)  # fmt: skip
def test_a_wrong_key_model_or_quota_stops_everything_at_once(make_client, answer, said):
    with FaultyServer(lambda prompt, nth: answer) as server:
        client = make_client(server, concurrency=4)
        with pytest.raises(ChatStopped) as error:
            list(client.ask(numbered(500)))
        assert said in str(error.value)
        assert server.asked.total() <= 8


def test_a_forbidden_request_fails_alone_once_others_were_answered(make_client):
    with FaultyServer(lambda prompt, nth: Answer(403, {}) if prompt == "prompt 30" else None) as server:
        outcomes = dict(make_client(server, concurrency=1).ask(numbered(40)))
    assert [key for key, outcome in outcomes.items() if isinstance(outcome, ChatError)] == ["30"]


def test_failure_after_failure_stops_everything(make_client):
    with FaultyServer(lambda prompt, nth: Answer(400, {"message": "no such parameter"})) as server:
        with pytest.raises(ChatStopped, match=r"7 requests in a row failed, the last: HTTP 400: no such parameter"):
            list(make_client(server, stop_after_failures=7, concurrency=2).ask(numbered(500)))
        assert server.asked.total() <= 10
        assert len(list(make_client(server, stop_after_failures=None).ask(numbered(50)))) == 50


def test_failures_between_answers_do_not_stop_the_others(make_client):
    def rule(prompt, nth):
        return Answer(400, {}) if int(prompt.split()[1]) % 3 else None

    with FaultyServer(rule) as server:
        outcomes = dict(make_client(server, stop_after_failures=3, concurrency=1).ask(numbered(30)))
    assert sum(isinstance(outcome, ChatReply) for outcome in outcomes.values()) == 10


def test_a_server_that_is_not_there_stops_everything(make_client):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = make_client(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", tries=2)
        with pytest.raises(ChatStopped, match=r"connection failed: .*\(tried 2 times\); check chat.base_url"):
            list(client.ask(numbered(500)))


def test_text_that_is_no_text_fails_alone(make_client):
    with FaultyServer() as server:
        outcomes = dict(make_client(server).ask([("a", chat("\ud800")), ("b", chat("b"))]))
    assert "surrogates not allowed" in str(outcomes["a"])
    assert outcomes["b"].text == "reply to b"


def test_a_lone_surrogate_in_a_reply_is_replaced(make_client):
    body = json.dumps(completion("a \ud800 \U0001f600 b")).encode()
    with FaultyServer(lambda prompt, nth: Answer(200, body)) as server:
        client = make_client(server)
        assert ask_one(client).text == ask_one(client).text == "a ? \U0001f600 b"


def test_an_error_of_the_caller_reaches_the_caller(make_client):
    def requests():
        yield "a", chat("a")
        raise LookupError("no more")

    with FaultyServer(delay_s=0.05) as server, pytest.raises(LookupError):
        list(make_client(server).ask(requests()))


# The cache.


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ({}, 1),
        ({"model": "other"}, 2),
        ({"temperature": 0.5}, 2),
        ({"temperature": None}, 2),
        ({"max_tokens": 5}, 2),
        ({"parameters": {"seed": 1}}, 2),
        ({"concurrency": 3, "timeout_s": 9.0, "prompt_price": 1.0}, 1),
    ],
    ids=str,
)
def test_a_reply_belongs_to_model_messages_and_parameters(make_client, field, asked):
    with FaultyServer() as server:
        ask_one(make_client(server))
        ask_one(make_client(server, **field))
        assert server.asked.total() == asked
        sent = server.requests[-1]
    assert sent["model"] == (field.get("model", "teacher") if asked > 1 else "teacher")
    if asked > 1:
        expected = {"temperature": 0.0, "max_tokens": 1024} | field.get("parameters", {})
        expected |= {k: v for k, v in field.items() if k in expected}
        rest = {k: v for k, v in sent.items() if k not in ("model", "messages")}
        assert rest == {k: v for k, v in expected.items() if v is not None}


def test_a_reply_does_not_depend_on_where_the_model_is_served(make_client):
    with FaultyServer() as server:
        ask_one(make_client(server))
    assert ask_one(make_client("http://127.0.0.1:9/v1")).cached


def test_a_full_cache_needs_neither_key_nor_server(make_client, monkeypatch):
    with FaultyServer() as server:
        ask_one(make_client(server))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert ask_one(make_client("http://127.0.0.1:9/v1", api_key_env="OPENAI_API_KEY")).cached


@pytest.mark.e2e
def test_processes_share_a_cache(tmp_path):
    with FaultyServer(delay_s=0.002) as server:
        children = [start_child(server, tmp_path, 80) for _ in range(2)]
        outputs = [child.communicate(timeout=60) for child in children]
        assert [err for _, err in outputs] == ["", ""]
        assert [out.count("reply to") for out, _ in outputs] == [80, 80]
        before = server.asked.total()
        out, _ = start_child(server, tmp_path, 80).communicate(timeout=60)
        assert out.endswith("end 0\n")
        assert server.asked.total() == before


def filled_cache(make_client, tmp_path):
    with FaultyServer(lambda prompt, nth: Answer(200, completion("long reply " * 100))) as server:
        client = make_client(server)
        assert len(list(client.ask(numbered(60)))) == 60
        client.close()
    path = tmp_path / "cache" / "replies.sqlite"
    assert [p.name for p in path.parent.iterdir()] == [path.name], "closed, the cache is one file"
    return path


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-4096],
        lambda data: data[:50],
        lambda data: b"x" * len(data),
        lambda data: data[:4096] + bytes(len(data) - 4096),
    ],
)
def test_a_damaged_cache_is_named_with_what_to_do(make_client, tmp_path, damage):
    path = filled_cache(make_client, tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"replies\.sqlite is damaged .*move it away"):
        make_client("http://127.0.0.1:9/v1")


def test_a_reply_that_was_changed_on_the_disk_is_not_used(make_client, tmp_path):
    path = filled_cache(make_client, tmp_path)
    data = path.read_bytes()
    at = data.index(b"long reply")
    path.write_bytes(data[:at] + b"l0ng" + data[at + 4 :])
    with pytest.raises(ValueError, match=r"replies\.sqlite is damaged \(an entry is not what was stored\)"):
        list(make_client("http://127.0.0.1:9/v1").ask(numbered(60)))


def test_another_database_is_not_taken_for_a_cache(make_client, tmp_path):
    (tmp_path / "cache").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "cache" / "replies.sqlite")) as db:
        db.execute("CREATE TABLE users (name)")
    with pytest.raises(ValueError, match=r"replies\.sqlite is no cache"):
        make_client("http://127.0.0.1:9/v1")


# The key.


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "set the environment variable MY_KEY"),
        (" ", "set the environment"),
        (f"{KEY}\n{KEY}", "holds no API key"),
    ],
)
def test_a_missing_or_impossible_key_is_named_by_its_variable(make_client, monkeypatch, value, said):
    monkeypatch.delenv("MY_KEY", raising=False)
    if value:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ValueError, match="MY_KEY") as error:
        ask_one(make_client("http://127.0.0.1:9/v1", api_key_env="MY_KEY"))
    assert said in str(error.value)
    assert "planted" not in str(error.value)


def test_the_key_goes_to_the_server_and_nowhere_else(make_client, monkeypatch, tmp_path, caplog, capfd):
    echoes = {
        "ok": Answer(200, completion(f"your key is {KEY}"), {"X-Request-Id": KEY, "Set-Cookie": f"k={KEY}"}),
        "400": Answer(400, {"error": {"message": f"got Authorization: Bearer {KEY}", "code": KEY}}, {"X-Echo": KEY}),
        "500": Answer(500, f"Bearer {KEY} failed".encode(), {"X-Echo": KEY}),
        "429": Answer(429, {"error": KEY}, {"Retry-After": KEY}),
        "long": Answer(400, {"error": {"message": "x" * (300 - len("HTTP 400: ") - len(KEY) // 2 - 2) + KEY}}),
        "blank": Answer(200, b" " * 20_000 + KEY.encode()),
        "garbage": Answer(200, f'{{"key": "{KEY}"'.encode()),
        "refused": Answer(200, completion(KEY, "content_filter", refusal=f"no {KEY}")),
        "redirect": Answer(307, b"", {"Location": f"http://127.0.0.1:9/{KEY}"}),
    }
    monkeypatch.setenv("TEACHER_KEY", KEY)
    monkeypatch.setenv("OPENAI_LOG", "debug")
    caplog.set_level(logging.DEBUG)
    logfile = tmp_path / "debug.log"
    handler = logging.FileHandler(logfile)
    logging.getLogger().addHandler(handler)
    said = []
    with FaultyServer(lambda prompt, nth: echoes.get(prompt, Answer(401, {"error": {"message": KEY}}))) as server:
        client = make_client(server, api_key_env="TEACHER_KEY", tries=2)
        for name in echoes:
            outcome = ask_one(client, name)
            said += [repr(outcome), str(outcome), repr(client), repr(vars(outcome)), repr(client.spent)]
            if isinstance(outcome, ChatError):
                said += traceback.format_exception(outcome)
                assert outcome.__context__ is None is outcome.__cause__
            else:
                assert outcome.text == "your key is [API key]"
        with pytest.raises(ChatStopped, match=r"check the key in TEACHER_KEY") as error:
            ask_one(client, "stop")
        said += [repr(error.value), *traceback.format_exception(error.value)]
        assert error.value.__context__ is None is error.value.__cause__
        assert all(f"authorization: bearer {KEY}" in head.lower() for head in server.headers)
        client.close()
    logging.getLogger().removeHandler(handler)
    handler.close()
    assert "httpcore2" in logfile.read_text(), "the log is as detailed as it gets"
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 2
    everything = [*written, *(text.encode() for text in (*said, caplog.text, *capfd.readouterr()))]
    for part in (KEY, KEY[: len(KEY) // 2], KEY[len(KEY) // 2 :]):
        assert not [text for text in everything if part.encode() in text]


def test_no_key_is_taken_from_the_environment_for_a_server_that_needs_none(make_client, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FaultyServer() as server:
        ask_one(make_client(server, api_key_env=None))
        assert KEY not in server.headers[0]


@pytest.mark.parametrize(
    "field", [f"api_key_env={KEY}", f"base_url=http://me:{KEY}@host/v1", f"base_url=http://host/v1?key={KEY}"]
)
def test_a_key_in_the_recipe_is_refused_and_not_repeated(tmp_path, field):
    file = tmp_path / "chat.yaml"
    file.write_text("model: teacher\n")
    parser = recipe_parser(ChatConfig, prog="x", usage="x", description="x")
    with pytest.raises(ValueError, match=r"chat\.(api_key_env|base_url)") as error:
        parse_recipe(ChatConfig, parser, [str(file)], [field], [])
    assert KEY not in str(error.value)


# The cost.


def test_the_estimate_is_made_before_and_the_cost_counted_after(make_client):
    with FaultyServer() as server:
        client = make_client(server, max_tokens=100, prompt_price=2.0, completion_price=10.0)
        list(client.ask(numbered(3)))
        assert client.spent.cost == pytest.approx((21 * 2 + 9 * 10) / 1e6)
        assert (client.spent.asked, client.spent.prompt_tokens, client.spent.completion_tokens) == (3, 21, 9)
        estimate = client.estimate([*numbered(5), *numbered(5)])
        assert server.asked.total() == 3, "nothing is asked for an estimate"
    tokens = 2 * estimate_tokens(chat("prompt 3"))
    assert (estimate.requests, estimate.cached) == (10, 8)
    assert (estimate.prompt_tokens, estimate.completion_tokens) == (tokens, 200)
    assert estimate.cost == pytest.approx((tokens * 2 + 200 * 10) / 1e6)
    list(client.ask(numbered(3)))
    assert client.spent.prompt_tokens == 21, "what is cached costs nothing"


def test_an_unknown_price_or_limit_gives_no_cost(make_client):
    client = make_client("http://127.0.0.1:9/v1", prompt_price=1.0)
    assert client.estimate(numbered(2)).cost is None is client.spent.cost
    client = make_client("http://127.0.0.1:9/v1", prompt_price=1.0, completion_price=1.0, max_tokens=None)
    assert client.estimate(numbered(2)).completion_tokens is None is client.estimate(numbered(2)).cost


def test_tokens_are_estimated_where_the_endpoint_does_not_say(make_client):
    with FaultyServer(lambda prompt, nth: Answer(200, completion("12345678", usage=None))) as server:
        reply = ask_one(make_client(server))
    assert (reply.prompt_tokens, reply.completion_tokens) == (estimate_tokens(chat("prompt")), 2)


# A real server.


@pytest.mark.e2e
def test_a_served_model_answers_and_a_second_run_asks_nothing(make_client, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(Path(guide_rl.__file__).parent / "demo" / "base_model", model)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "transformers", "serve", model, "--device", "cpu", "--dtype", "float32"]
    with open(tmp_path / "serve.log", "wb") as log:
        server = subprocess.Popen(
            [*map(str, command), "--host", "127.0.0.1", "--port", str(port)],
            stdout=log, stderr=log, env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            assert server.poll() is None, (tmp_path / "serve.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        fields = {"model": str(model), "max_tokens": 16, "timeout_s": 60.0}
        requests = [(str(i), ({"role": "user", "content": f"{i}+4="},)) for i in range(8)]
        client = make_client(f"http://127.0.0.1:{port}/v1", **fields)
        first = dict(client.ask(requests))
        assert all(isinstance(reply, ChatReply) and reply.text and not reply.cached for reply in first.values())
        assert client.spent.asked == 8
        assert client.spent.completion_tokens > 0
        refused = ask_one(make_client(f"http://127.0.0.1:{port}/v1", **fields | {"model": "another"}))
        assert "HTTP 400" in str(refused)
    finally:
        server.terminate()
        server.wait(20)
    second = dict(make_client(f"http://127.0.0.1:{port}/v1", **fields).ask(requests))
    assert second == {key: replace(reply, cached=True) for key, reply in first.items()}


@pytest.mark.parametrize("usage", [2**63, 1e30, -5, "many", [1], float("nan")])
def test_a_reply_with_an_odd_usage_is_kept_and_its_tokens_are_estimated(make_client, usage):
    answer = Answer(200, completion("x", usage=(usage, usage)))
    with FaultyServer(lambda prompt, nth: answer) as server:
        client = make_client(server)
        ((_, reply),) = client.ask([("a", ({"role": "user", "content": "prompt 1"},))])
        assert isinstance(reply, ChatReply)
        assert 0 < reply.prompt_tokens < 100
