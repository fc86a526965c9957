"""When the next request may be sent: requests and tokens a minute, pauses that the endpoint asks for, pauses after failures."""

import asyncio
import contextlib
import random

from guide_rl.config import ChatConfig


def pause_s(config: ChatConfig, tries: int) -> float:
    """The pause after so many failed tries (1 or more), in seconds: doubled each time, half of it or more by chance."""
    return min(config.backoff_s * 2.0 ** min(tries - 1, 64), config.backoff_max_s) * random.uniform(0.5, 1)


class _Pace:
    """At most so many units a minute, evenly spaced: a bucket that holds one request."""

    def __init__(self, units_per_minute: int | None) -> None:
        self._unit_s = 60 / units_per_minute if units_per_minute else 0.0
        self.free_at = 0.0

    def take(self, units: float, now: float) -> None:
        """Use units from now on."""
        self.free_at = max(self.free_at, now) + units * self._unit_s

    def correct(self, units: float, now: float) -> None:
        """So many more units (or fewer, below 0) were used than taken; after a minute without any, no limit a minute holds."""
        corrected = self.free_at + units * self._unit_s
        self.free_at = min(corrected, max(self.free_at, now + 60))


class Limits:
    """The limits of all requests together, which wait in turn. Its methods run in one event loop.

    A request sets tokens aside before it is sent: its prompt's and those of a usual reply, which is the mean of the replies
    so far (before the first, a reply of full length). `settle` puts right what this got wrong, for those that wait too.

    Args:
        config: the limits.
        longest_reply: its tokens; None where there is no limit.
    """

    def __init__(self, config: ChatConfig, longest_reply: int | None) -> None:
        self._requests, self._tokens = _Pace(config.requests_per_minute), _Pace(config.tokens_per_minute)
        self._reply_tokens, self._replies = float(longest_reply or 0), 0
        self._held_until = 0.0
        self._turn, self._settled = asyncio.Lock(), asyncio.Event()

    def hold(self, seconds: float) -> None:
        """Send nothing for so long."""
        self._held_until = max(self._held_until, _now() + seconds)

    async def wait(self, prompt_tokens: int) -> float:
        """Wait until a request with such a prompt may be sent; gives the tokens set aside for it."""
        async with self._turn:
            while (wait_s := max(self._requests.free_at, self._tokens.free_at, self._held_until) - _now()) > 0:
                self._settled.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._settled.wait()
            tokens = prompt_tokens + self._reply_tokens
            self._requests.take(1, _now())
            self._tokens.take(tokens, _now())
            return tokens

    def settle(self, taken: float, used: int, reply_tokens: int | None = None) -> None:
        """A request is over, with or without a reply: for the tokens taken for it, so many were used."""
        self._tokens.correct(used - taken, _now())
        if reply_tokens is not None:
            self._replies += 1
            self._reply_tokens += (reply_tokens - self._reply_tokens) / self._replies
        self._settled.set()


def _now() -> float:
    """The event loop's time, in seconds."""
    return asyncio.get_running_loop().time()
