"""One client of OpenAI-compatible chat endpoints: concurrent, paced, retried, cached on disk, its cost counted.

`ChatClient.ask` runs in the caller's thread: it looks replies up and hands them out. Requests run in an event loop
in a thread beside it, where a reply is stored as soon as it is whole.
"""

import asyncio
import hashlib
import json
import queue
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from guide_rl.chat.endpoint import Endpoint, Fault, Messages, Row, estimate_tokens
from guide_rl.chat.limits import Limits, pause_s
from guide_rl.config import ChatConfig
from guide_rl.disk_cache import DiskCache


@dataclass(frozen=True)
class ChatReply:
    """A whole reply."""

    text: str
    """What the model wrote."""
    finish: str
    """Why it ended: stop, or length (cut off by max_tokens)."""
    prompt_tokens: int
    """Tokens of the request, as the endpoint counts them (estimated where it does not say)."""
    completion_tokens: int
    """Tokens of the reply, likewise."""
    cached: bool
    """True when nothing was asked for it now."""


class ChatError(RuntimeError):
    """One request that failed for good; says why, never the key."""


class ChatStopped(ConnectionError):
    """The endpoint cannot be used as the recipe says: wrong key, model or address, used-up quota, or failure after failure."""


@dataclass(frozen=True)
class Spent:
    """What a client has used so far."""

    asked: int
    """Requests that the endpoint answered with a whole reply."""
    cached: int
    """Requests answered without asking: from the cache, or with an equal request's reply."""
    retried: int
    """Tries after the first."""
    failed: int
    """Requests that failed for good."""
    prompt_tokens: int
    """Tokens of the requests asked; tries that failed are not counted, though an endpoint may charge for them."""
    completion_tokens: int
    """Tokens of their replies."""
    cost: float | None
    """Their price; None where a price is unknown."""


@dataclass(frozen=True)
class Estimate:
    """What requests would use, before they are asked."""

    requests: int
    """How many there are."""
    cached: int
    """How many of them would be answered without asking."""
    prompt_tokens: int
    """About the tokens of the others: `estimate_tokens`."""
    completion_tokens: int | None
    """At most the tokens of their replies; None without a limit."""
    cost: float | None
    """About their price, with replies of full length; None where a price or the limit is unknown."""


ChatRequest = tuple[str, Messages] | tuple[str, Messages, Mapping[str, Any]]
"""A key, which is any name that comes out again with the answer; messages; and, maybe, parameters of this request alone."""

_Answer = tuple[bytes, ChatReply | ChatError | ChatStopped]
"""The digest of a request, and what became of it."""


class ChatClient:
    """Asks an OpenAI-compatible endpoint, each request once: what was answered before comes from the cache.

    The official client sends the requests. Its own retries stay off: they leave out broken replies, know no limits a
    minute, and their pauses cannot be set.

    Args:
        config: the endpoint and how to ask it.
        cache: the file of replies; processes may share it.
        empty: whether an empty reply is one; else it is tried again.

    Raises:
        ValueError: the cache file is damaged or something else.
    """

    def __init__(self, config: ChatConfig, *, cache: str | Path, empty: bool = False) -> None:
        self.config, self._empty = config, empty
        self._parameters: dict[str, Any] = {"temperature": config.temperature, "max_tokens": config.max_tokens}
        self._parameters = {k: v for k, v in self._parameters.items() if v is not None} | config.parameters
        self._longest_reply = self._parameters.get("max_tokens") or config.parameters.get("max_completion_tokens")
        self._hash = hashlib.sha256(_canonical([config.model, self._parameters]))
        self._counts: Counter[str] = Counter()
        self._failed_in_a_row = 0
        self.trouble = ""
        """Why the last try failed; empty after a reply."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cache = DiskCache(cache)

    def __enter__(self) -> "ChatClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is in flight and close connections and cache."""
        if self._loop is not None:
            loop, self._loop = self._loop, None
            asyncio.run_coroutine_threadsafe(self._shut(), loop).result(timeout=10)
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()
        self._cache.close()

    def ask(self, requests: Iterable[ChatRequest]) -> Iterator[tuple[str, ChatReply | ChatError]]:
        """Answer requests, in the order in which the answers come.

        A request is read when there is room for it, at most `config.concurrency` in flight; equal ones in flight at once are
        asked once. A reply is in the cache before it is yielded. Closing the generator cancels what is in flight.

        Args:
            requests: those that differ in their parameters only are not equal.

        Raises:
            ChatStopped: no further request can be answered; replies until then are in the cache.
            ValueError: there is no API key, or the cache is damaged.
        """
        done: queue.SimpleQueue[Future[_Answer]] = queue.SimpleQueue()
        in_flight: dict[bytes, tuple[Future[_Answer], list[str]]] = {}
        unread, more = iter(requests), True
        try:
            while more or in_flight:
                if in_flight and (not more or len(in_flight) >= self.config.concurrency or not done.empty()):
                    digest, outcome = done.get().result()
                    yield from self._handed_out(in_flight.pop(digest)[1], outcome)
                elif (request := next(unread, None)) is None:
                    more = False
                elif (digest := self._digest(*request[1:])) in in_flight:
                    in_flight[digest][1].append(request[0])
                elif row := self._stored(digest):
                    self._counts["cached"] += 1
                    yield request[0], ChatReply(*row, cached=True)
                else:
                    loop = self._started()
                    future = asyncio.run_coroutine_threadsafe(self._answer(digest, *request[1:]), loop)
                    in_flight[digest] = future, [request[0]]
                    future.add_done_callback(done.put)
        finally:
            for future, _ in in_flight.values():
                future.cancel()

    def _handed_out(
        self, keys: Iterable[str], outcome: ChatReply | ChatError | ChatStopped
    ) -> Iterator[tuple[str, ChatReply | ChatError]]:
        """One outcome for equal requests: the first of them paid for it."""
        if isinstance(outcome, ChatStopped):
            raise outcome
        for key in keys:
            yield key, outcome
            if isinstance(outcome, ChatReply):
                self._counts["cached"] += outcome.cached
                outcome = replace(outcome, cached=True)

    def estimate(self, requests: Iterable[ChatRequest]) -> Estimate:
        """What `ask` would use for these requests, without asking; needs no API key."""
        seen: set[bytes] = set()
        total = prompt_tokens = 0
        for _, messages, *parameters in requests:
            total += 1
            digest = self._digest(messages, *parameters)
            if digest not in seen and self._cache.get(digest) is None:
                seen.add(digest)
                prompt_tokens += estimate_tokens(messages)
        completion_tokens = None if self._longest_reply is None else len(seen) * self._longest_reply
        cost = self.config.cost(prompt_tokens, completion_tokens)
        return Estimate(total, total - len(seen), prompt_tokens, completion_tokens, cost)

    @property
    def spent(self) -> Spent:
        """What was used until now."""
        names = ("asked", "cached", "retried", "failed", "prompt_tokens", "completion_tokens")
        counts = {name: self._counts[name] for name in names}
        return Spent(**counts, cost=self.config.cost(counts["prompt_tokens"], counts["completion_tokens"]))

    def _digest(self, messages: Messages, parameters: Mapping[str, Any] | None = None) -> bytes:
        """What a reply depends on (not where the model is served), hashed."""
        digest = self._hash.copy()
        digest.update(_canonical([dict(message) for message in messages]))
        if parameters:
            digest.update(_canonical(dict(parameters)))
        return digest.digest()

    def _stored(self, digest: bytes) -> Row | None:
        """The stored reply."""
        row: Row | None = self._cache.get(digest)
        return row

    def _started(self) -> asyncio.AbstractEventLoop:
        """The event loop, in a thread of its own; started with the first request that the cache cannot answer."""
        if self._loop is None:
            self._endpoint = Endpoint(self.config, self._parameters, empty=self._empty)
            self._limits = Limits(self.config, self._longest_reply)
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="chat", daemon=True)
            self._thread.start()
        return self._loop

    async def _shut(self) -> None:
        """Cancel every task and close the connections."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._endpoint.close()
        await asyncio.get_running_loop().shutdown_asyncgens()
        for _ in range(3):  # transports end a turn or two of the loop after their close
            await asyncio.sleep(0)

    async def _answer(self, digest: bytes, messages: Messages, parameters: Mapping[str, Any] | None = None) -> _Answer:
        """Try a request until it is answered and its reply stored, or until it has failed for good."""
        prompt_tokens = estimate_tokens(messages)
        tries = 0
        while True:
            taken = await self._limits.wait(prompt_tokens)
            if row := self._stored(digest):  # by another process, meanwhile
                self._limits.settle(taken, 0)
                return digest, ChatReply(*row, cached=True)
            self._counts["retried"] += tries > 0
            tries += 1
            outcome = await self._endpoint.send(messages, parameters)
            if not isinstance(outcome, Fault):
                return digest, self._replied(digest, outcome, taken)
            self.trouble = outcome.reason
            self._limits.settle(taken, prompt_tokens)
            self._limits.hold(outcome.wait_s)
            if not outcome.retry or tries == self.config.tries:
                return digest, self._failed(outcome, tries)
            await asyncio.sleep(pause_s(self.config, tries))

    def _replied(self, digest: bytes, row: Row, taken: float) -> ChatReply:
        """Store and count a reply; where another process stored one first, that one is given."""
        self._cache.put(digest, row)
        _, _, prompt_tokens, completion_tokens = row
        self._limits.settle(taken, prompt_tokens + completion_tokens, completion_tokens)
        self._counts.update(asked=1, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        self._failed_in_a_row, self.trouble = 0, ""
        return ChatReply(*(self._stored(digest) or row), cached=False)

    def _failed(self, fault: Fault, tries: int) -> ChatError | ChatStopped:
        """What a request's last fault means, for it or for all."""
        self._counts["failed"] += 1
        self._failed_in_a_row += 1
        reason = fault.reason + (f" (tried {tries} times)" if tries > 1 else "")
        if fault.stop:
            return ChatStopped(f"{self.config.base_url}: {reason}; {fault.stop}")
        if self.config.stop_after_failures and self._failed_in_a_row >= self.config.stop_after_failures:
            return ChatStopped(
                f"{self.config.base_url}: {self._failed_in_a_row} requests in a row failed, the last: {reason}; replies so "
                "far are stored, so start again when this is mended (chat.stop_after_failures is the limit)"
            )
        return ChatError(reason)


def _canonical(value: object) -> bytes:
    """Equal values, equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
