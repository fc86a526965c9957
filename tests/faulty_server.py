"""A small real HTTP server that speaks /v1/chat/completions and misbehaves as it is told."""

import asyncio
import hashlib
import json
import random
import threading
from collections import Counter
from dataclasses import dataclass, field

FAULTS = ("429", "500", "garbage", "half", "nothing", "slow")
"""429 with Retry-After; 500; a body that is no JSON; half a body, then the connection is cut; cut without a byte; too late."""


@dataclass(frozen=True)
class Answer:
    """A response other than the usual one."""

    status: int = 200
    body: object = ""
    """Sent as it is (bytes) or as JSON."""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    dribble_s: float = 0.0
    """The pause between the body's bytes."""
    endless: bool = False
    """Whether the body is sent again and again, until the client hangs up."""


def completion(text="a reply", finish="stop", usage=(7, 3), **message):
    """The body of a chat completion."""
    body = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text} | message, "finish_reason": finish}]
    }
    return body | ({"usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}} if usage else {})


def seeded(share, seed=0, faults=FAULTS):
    """A rule: this share of requests meets a fault, chosen by (seed, prompt, how often it was asked)."""

    def rule(prompt, nth):
        chance = random.Random(hashlib.sha256(f"{seed} {nth} {prompt}".encode()).digest())
        return chance.choice(faults) if chance.random() < share else None

    return rule


class FaultyServer:
    """Answers "reply to PROMPT" unless `rule(prompt, nth)` names a fault or gives an Answer; counts by prompt.

    Args:
        rule: (the last message's text, 0 for the first time it is asked) -> a fault, an Answer or None.
        delay_s: how long every answer takes.
        slow_s: how long a slow one takes.
        retry_after: the header of a 429.
    """

    def __init__(self, rule=lambda prompt, nth: None, *, delay_s=0.0, slow_s=10.0, retry_after="0.05"):
        self.rule, self.delay_s, self.slow_s, self.retry_after = rule, delay_s, slow_s, retry_after
        self.asked, self.answered = Counter(), Counter()
        self.times, self.requests, self.headers = [], [], []
        self.active = self.most_active = 0
        self.hung_up = 0
        self.changed = threading.Condition()

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait_for(self, condition, timeout=30):
        """Wait until `condition(self)` holds."""
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self), timeout), "the server waited in vain"

    async def _shut(self):
        self._server.close()
        await asyncio.sleep(0.02)  # a connection just accepted begins to be served: then its end closes it
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _serve(self, reader, writer):
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:  # the server ends
            pass
        finally:
            writer.close()

    async def _one(self, reader, writer):
        """Serve one request of a connection; False ends it."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        request = json.loads(await reader.readexactly(int(headers["content-length"])))
        prompt = request["messages"][-1]["content"]
        now = asyncio.get_running_loop().time()
        with self.changed:
            fault = self.rule(prompt, self.asked[prompt])
            self.asked[prompt] += 1
            self.times.append(now)
            self.requests.append(request)
            self.headers.append(head)
            self.active += 1
            self.most_active = max(self.most_active, self.active)
            self.changed.notify_all()
        try:
            return await self._respond(fault, prompt, reader, writer)
        finally:
            with self.changed:
                self.active -= 1
                self.changed.notify_all()

    async def _respond(self, fault, prompt, reader, writer):
        if isinstance(fault, Answer):
            answer = fault
        elif fault == "429":
            answer = Answer(429, {"error": {"message": "slow down"}}, {"Retry-After": self.retry_after})
        elif fault == "500":
            answer = Answer(500, b"Internal Server Error", {"Content-Type": "text/plain"})
        elif fault == "garbage":
            answer = Answer(200, b'{"choices": [{"mess')
        else:
            answer = Answer(200, completion(f"reply to {prompt}"))
        delay_s = answer.delay_s or (self.slow_s if fault == "slow" else self.delay_s)
        if delay_s and await self._gone(reader, delay_s):
            return False
        if fault == "nothing":
            return False
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        length = 10**15 if answer.endless else len(body)
        lines = {"Content-Type": "application/json", "Content-Length": str(length)} | answer.headers
        writer.write(f"HTTP/1.1 {answer.status} X\r\n".encode())
        writer.write("".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode() + b"\r\n")
        if fault == "half":
            body = body[: len(body) // 2]
        for i in range(len(body)) if answer.dribble_s else ():
            writer.write(body[i : i + 1])
            await writer.drain()
            await asyncio.sleep(answer.dribble_s)
        while not answer.dribble_s:
            writer.write(body)
            await writer.drain()
            if not answer.endless:
                break
        if fault is None:
            with self.changed:
                self.answered[prompt] += 1
                self.changed.notify_all()
        return fault != "half"

    async def _gone(self, reader, seconds):
        """Wait; True when the client hung up meanwhile."""
        try:
            await asyncio.wait_for(reader.read(1), seconds)
        except TimeoutError:
            return False
        with self.changed:
            self.hung_up += 1
            self.changed.notify_all()
        return True
