"""The chat client against a real server that misbehaves: each request answered once, nothing asked twice, no key leaks."""

import asyncio
import base64
import contextlib
import email.utils
import fcntl
import gzip
import html
import json
import logging
import os
import random
import re
import selectors
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from faulty_server import Answer, FaultyServer, completion, seeded
from served_model import served_demo_model

import guide_rl
from guide_rl.chat.client import ChatClient, ChatError, ChatReply, ChatStopped
from guide_rl.chat.endpoint import estimate_tokens, retry_after_s
from guide_rl.chat.limits import Limits, pause_s
from guide_rl.chat.redaction import Redaction
from guide_rl.config import ChatConfig
from guide_rl.disk_cache import DiskCache
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
    # 10 requests of 1,000 tokens at most and 10 in truth, at 30,000 a minute: 18 s as feared, 0.18 s as used.
    with FaultyServer() as server:
        started = time.monotonic()
        list(make_client(server, tokens_per_minute=30_000, max_tokens=1000, concurrency=1).ask(numbered(10)))
        took = time.monotonic() - started
    assert 0.16 <= took < 10


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose waits take no time; its clock goes on as if they did."""

    def __init__(self):
        self.now = 0.0
        selector = selectors.DefaultSelector()
        ready = selector.select

        def select(timeout):
            assert timeout is not None, "everything waits for ever"
            self.now += timeout
            return ready(0)

        selector.select = select
        super().__init__(selector)

    def time(self):
        return self.now


def in_virtual_time(make_coroutine):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(make_coroutine())


def limits(**fields):
    config = ChatConfig(model="m", max_tokens=1000, **fields)
    return Limits(config, config.max_tokens)


@pytest.mark.parametrize(("workers", "latency_s"), [(1, 0.1), (8, 1.0), (32, 5.0)])
def test_tokens_a_minute_are_reached_when_replies_are_far_shorter_than_the_longest(workers, latency_s):
    # 20 of at most 1,010 tokens a request are used: at 6,000 a minute, 5 requests a second.
    async def run():
        paced, loop, sent = limits(tokens_per_minute=6000), asyncio.get_running_loop(), []

        async def work():
            while len(sent) < 500:
                taken = await paced.wait(10)
                sent.append(loop.time())
                await asyncio.sleep(latency_s * random.Random(len(sent)).uniform(0.5, 1))
                paced.settle(taken, 20, 10)

        await asyncio.gather(*(work() for _ in range(workers)))
        return sent[499]

    assert 0.95 * 100 <= in_virtual_time(run) <= 1.1 * 100


@pytest.mark.parametrize(
    ("used", "reply_tokens", "next_at"), [(10, 10, 1.0), (5000, 4000, 50.0), (10**15, 10**15, 61.0)]
)
def test_the_next_request_waits_for_what_the_last_one_used(used, reply_tokens, next_at):
    # The first sets 1,000 tokens aside, 10 s at 6,000 a minute, and is over after 1 s. Whatever it used, a minute later
    # there is room again.
    async def run():
        paced, loop = limits(tokens_per_minute=6000), asyncio.get_running_loop()
        taken = await paced.wait(0)
        loop.call_later(1.0, paced.settle, taken, used, reply_tokens)
        await paced.wait(0)
        return loop.time()

    assert in_virtual_time(run) == pytest.approx(next_at, abs=0.2)


def test_a_failed_try_gives_back_the_tokens_of_its_reply(make_client):
    # A reply of full length would be 1,000 minutes' worth.
    with FaultyServer(lambda prompt, nth: "500" if nth == 0 else None) as server:
        client = make_client(server, tokens_per_minute=60_000, max_tokens=60_000_000, concurrency=1)
        assert all(isinstance(reply, ChatReply) for _, reply in client.ask(numbered(3)))


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


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_a_status_that_may_pass_is_tried_again(make_client, status):
    with FaultyServer(lambda prompt, nth: Answer(status, {}) if nth == 0 else None) as server:
        assert ask_one(make_client(server)).text == "reply to prompt"


@pytest.mark.parametrize("status", [400, 402, 405, 413, 422, 451])
def test_another_status_is_not_tried_again(make_client, status):
    with FaultyServer(lambda prompt, nth: Answer(status, {"error": {"message": "x"}})) as server:
        assert str(ask_one(make_client(server))) == f"HTTP {status}: x"
        assert server.asked.total() == 1


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("x" * 290, "x" * 290),
        ("x" * 291, "x" * 290 + " ..."),
        (" a\n\n b\t\x1b[31m\x07c \u202ed\u2028", "a b [31m c d"),
        (" " * 100_000 + "x", ""),
    ],
)
def test_what_the_endpoint_says_is_quoted_short_on_one_line_and_as_text_only(make_client, sent, said):
    with FaultyServer(lambda prompt, nth: Answer(400, {"error": {"message": sent}})) as server:
        assert str(ask_one(make_client(server))) == f"HTTP 400: {said}".strip()


# A hostile endpoint.


def bomb(size):
    return gzip.compress(bytes(size), 9)


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=bomb(2**25), headers={"Content-Encoding": "GZip"}),
        Answer(body=b"x" * 2**16, endless=True),
        Answer(body=bomb(10) + b"x" * 2**16, headers={"Content-Encoding": "gzip"}, endless=True),
    ],
    ids=["gzip bomb", "endless", "endless after the gzip"],
)
def test_a_body_without_bounds_is_a_fault_in_bounded_memory(make_client, monkeypatch, answer, status):
    monkeypatch.setattr("guide_rl.chat.bounded.LARGEST_BODY", 2**20)
    with FaultyServer(lambda prompt, nth: replace(answer, status=status) if prompt == "bad" else None) as server:
        client = make_client(server)
        assert ask_one(client, "good").text == "reply to good"
        tracemalloc.start()
        try:
            assert str(ask_one(client, "bad")) == "the response has more than 1 MiB"
            assert tracemalloc.get_traced_memory()[1] < 2**23
        finally:
            tracemalloc.stop()
        assert server.asked["bad"] == 1
        assert ask_one(client, "also good").text == "reply to also good"


def test_a_decoder_that_the_endpoint_names_unpacks_nothing(make_client):
    answer = Answer(400, zlib.compress(bytes(2**25)), {"Content-Type": "text/plain; charset=zlib"})
    with FaultyServer(lambda prompt, nth: answer) as server:
        client = make_client(server)
        tracemalloc.start()
        try:
            assert str(ask_one(client)).startswith("HTTP 400: x")
            assert tracemalloc.get_traced_memory()[1] < 2**23
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("packed", [True, False])
def test_a_packed_reply_is_unpacked_and_one_that_only_says_so_is_read(make_client, packed):
    body = json.dumps(completion("a" * 2000)).encode()
    answer = Answer(body=gzip.compress(body) if packed else body, headers={"Content-Encoding": "gzip"})
    with FaultyServer(lambda prompt, nth: answer) as server:
        assert ask_one(make_client(server)).text == "a" * 2000
        assert "accept-encoding: gzip\r\n" in server.headers[0].lower()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_the_key_stays(make_client, monkeypatch, status):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    with FaultyServer() as other, FaultyServer() as server:
        there = f"{other.base_url}/chat/completions"
        server.rule = lambda prompt, nth: None if prompt == "good" else Answer(status, b"", {"Location": there})
        client = make_client(server, api_key_env="TEACHER_KEY")
        with pytest.raises(
            ChatStopped, match=f"HTTP {status}: redirects to {there}, which is not followed; set chat.base_url"
        ):
            ask_one(client)
        assert ask_one(client, "good").text == "reply to good"
        assert str(ask_one(client)) == f"HTTP {status}: redirects to {there}, which is not followed"
        assert server.asked["prompt"] == 2
        assert not other.asked


def test_a_web_page_in_place_of_a_reply_stops_everything(make_client):
    page = Answer(200, b"\n<!DOCTYPE html><title>Welcome</title>", {"Content-Type": "text/html"})
    with FaultyServer(lambda prompt, nth: page) as server:
        with pytest.raises(
            ChatStopped, match=r"not a chat completion: <!DOCTYPE .*\(tried 2 times\); check chat.base_url"
        ):
            list(make_client(server, tries=2, concurrency=2).ask(numbered(500)))
        assert server.asked.total() <= 6


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=completion(), headers={"X-Large": "x" * 200_000}),
        Answer(body=completion(), headers={f"X-{i}": "x" * 100 for i in range(2000)}),
        Answer(body=completion(), headers={"Transfer-Encoding": "chunked", "X": "y"}),
        Answer(body=b"data: {}\n\n" * 3, headers={"Content-Type": "text/event-stream"}),
        Answer(body={"choices": [{"message": {"content": "no finish_reason"}}]}),
        Answer(body=completion("x", finish={"stop": 1})),
        Answer(body=completion("x", finish="tool_calls")),
        Answer(body=b'{"choices": ' + b"1" * 10_000 + b"}"),
        Answer(103, b"", {"Content-Length": "0"}),
        Answer(204, b""),
    ],
    ids=range(10),
)
def test_an_odd_response_is_asked_again(make_client, answer):
    with FaultyServer(lambda prompt, nth: answer if nth == 0 else None) as server:
        assert ask_one(make_client(server, timeout_s=0.5)).text == "reply to prompt"


def test_no_cookie_is_kept(make_client):
    with FaultyServer(lambda prompt, nth: Answer(body=completion(), headers={"Set-Cookie": "a=b"})) as server:
        list(make_client(server, concurrency=1).ask(numbered(2)))
        assert not [head for head in server.headers if "cookie" in head.lower()]


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


def test_who_opens_a_cache_waits_while_another_process_lays_it_out(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    opened = threading.Thread(target=lambda: DiskCache(tmp_path / "c.sqlite").close(), daemon=True)
    opened.start()
    opened.join(0.2)
    assert opened.is_alive()
    os.close(folder)
    opened.join(10)
    assert not opened.is_alive()


@pytest.mark.parametrize("fault", ["500", None])
def test_a_reply_that_another_process_stored_meanwhile_is_everybodys(make_client, fault):
    # A reply of full length would be 1,000 minutes' worth: the tokens of a reply that was found are given back.
    fields = {"tokens_per_minute": 60_000, "max_tokens": 60_000_000}
    with FaultyServer(lambda prompt, nth: Answer(body=completion("theirs", usage=(1, 1)))) as their_server:
        theirs = make_client(their_server, **fields)

        def rule(prompt, nth):
            if prompt != "prompt":
                return None
            ask_one(theirs)
            return fault

        with FaultyServer(rule) as server:
            client = make_client(server, **fields)
            reply = ask_one(client)
            assert (reply.text, reply.cached) == ("theirs", fault is not None)
            assert server.asked.total() == their_server.asked.total() == 1
            assert ask_one(client) == replace(reply, cached=True)
            spent = client.spent
            assert ask_one(client, "another").text == "reply to another"
    assert (spent.asked, spent.cached, spent.retried) == ((0, 2, 0) if fault else (1, 1, 0))
    assert (spent.prompt_tokens, spent.completion_tokens) == ((0, 0) if fault else (7, 3))


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


AWKWARD_KEY = "sk/plan+ted\"0123\\456%78'9&=abc=="


def spellings(key):
    """How else a key may be written."""
    yield from (quote(key, safe=""), quote(key), quote_plus(key), quote(quote(key, safe=""), safe=""))
    yield re.sub("%..", lambda code: code[0].lower(), quote(key, safe=""))
    yield from (
        json.dumps(key)[1:-1],
        json.dumps(json.dumps(key)),
        json.dumps(key).replace("/", "\\/"),
        repr(key.encode()),
    )
    yield "".join(c if c.isalnum() else f"\\u{ord(c):04X}" for c in key)
    yield html.escape(key)
    yield from (
        "".join(c if c.isalnum() else form.format(ord(c)) for c in key) for form in ("&#x{:X};", "&#x00{:x};", "&#{};")
    )
    for text in (key, f":{key}", f"m:{key}", f"me:{key}", f"{key}!", f"Bearer {key}"):
        yield from (encode(text.encode()).decode() for encode in (base64.b64encode, base64.urlsafe_b64encode))
    yield quote(base64.b64encode(key.encode()).decode(), safe="")


@pytest.mark.parametrize("key", [KEY, AWKWARD_KEY, "?>?>?>" * 6, "a1" * 700])
def test_a_key_is_found_in_every_spelling(key):
    redaction = Redaction(key)
    for text in (key, *spellings(key)):
        left = redaction.redacted(f"before {text} after")
        assert re.fullmatch(r"before .{0,12}\[API key\].{0,7} after", left), (text, left)
        assert len(text) <= redaction.longest
    other = "The quick brown fox, 50% + 50% = 100%, " + base64.b64encode(bytes(range(256))).decode()
    assert redaction.redacted(other) == other


def test_a_placeholder_is_found_only_as_it_is_and_no_key_nowhere():
    assert Redaction("a").redacted("%61 YQ== b") == "%61 YQ== b"
    assert Redaction("EMPTY").redacted("EMPTY empty") == "[API key] empty"
    assert Redaction("").redacted("text") == "text"


def test_no_spelling_of_the_key_leaves_in_replies_errors_or_logs(make_client, monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("TEACHER_KEY", AWKWARD_KEY)
    caplog.set_level(logging.DEBUG)
    forms = list(spellings(AWKWARD_KEY))

    def rule(prompt, nth):
        kind, _, number = prompt.partition(" ")
        form = forms[int(number)]
        if kind == "reply":
            return Answer(200, completion(f"<{form}>"), {"X-Echo": form})
        return Answer(400, {"error": {"message": f"<{form}>"}}, {"X-Echo": form})

    with FaultyServer(rule) as server:
        client = make_client(server, api_key_env="TEACHER_KEY", stop_after_failures=None)
        requests = [(kind, chat(f"{kind} {i}")) for kind in ("reply", "error") for i in range(len(forms))]
        said = [outcome.text if kind == "reply" else str(outcome) for kind, outcome in client.ask(requests)]
        client.close()
    assert len(said) == 2 * len(forms)
    assert all("[API key]" in text for text in said)
    everything = [*said, caplog.text, *(path.read_text(errors="replace") for path in tmp_path.rglob("*.sqlite"))]
    assert "X-Echo" in caplog.text
    assert not [form for form in (AWKWARD_KEY, *forms) for text in everything if form in text]


def test_a_key_cut_in_two_by_the_end_of_what_is_read_is_not_quoted(make_client, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    body = b" " * (2**16 - len("HTTP 400: ") - len(KEY) + 1) + KEY.encode()
    with FaultyServer(lambda prompt, nth: Answer(400, json.dumps({"message": body.decode()}).encode())) as server:
        assert str(ask_one(make_client(server, api_key_env="TEACHER_KEY"))) == "HTTP 400:"


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
    with served_demo_model(tmp_path) as (url, model):
        fields = {"model": str(model), "max_tokens": 16, "timeout_s": 60.0}
        requests = [(str(i), ({"role": "user", "content": f"{i}+4="},)) for i in range(8)]
        client = make_client(url, **fields)
        first = dict(client.ask(requests))
        assert all(isinstance(reply, ChatReply) and reply.text and not reply.cached for reply in first.values())
        assert client.spent.asked == 8
        assert client.spent.completion_tokens > 0
        refused = ask_one(make_client(url, **fields | {"model": "another"}))
        assert "HTTP 400" in str(refused)
    second = dict(make_client(url, **fields).ask(requests))
    assert second == {key: replace(reply, cached=True) for key, reply in first.items()}


@pytest.mark.parametrize("usage", [2**63, 1e30, -5, "many", [1], float("nan")])
def test_a_reply_with_an_odd_usage_is_kept_and_its_tokens_are_estimated(make_client, usage):
    answer = Answer(200, completion("x", usage=(usage, usage)))
    with FaultyServer(lambda prompt, nth: answer) as server:
        client = make_client(server)
        ((_, reply),) = client.ask([("a", ({"role": "user", "content": "prompt 1"},))])
        assert isinstance(reply, ChatReply)
        assert 0 < reply.prompt_tokens < 100
