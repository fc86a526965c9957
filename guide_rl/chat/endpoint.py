"""One request to an OpenAI-compatible endpoint, through the official client: what comes back is a whole reply or a fault.

The API key stays here: it is in no message, log record or reply that leaves this module.
"""

import asyncio
import json
import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from guide_rl.chat.redaction import SHORTEST_SECRET, Redaction
from guide_rl.config import ChatConfig

if TYPE_CHECKING:
    from openai import APIStatusError

Messages = tuple[Mapping[str, str], ...]
"""A chat: {"role": ..., "content": ...} each."""
Row = tuple[str, str, int, int]
"""A reply as it is stored: text, finish reason, prompt tokens, reply tokens."""

_LONGEST_RETRY_AFTER_S = 600.0
_LONGEST_QUOTE = 300  # characters of the endpoint's in a message
_READ_FOR_QUOTE = 2**16


@dataclass(frozen=True)
class Fault:
    """Why a try failed."""

    reason: str
    """In words."""
    retry: bool = False
    """Whether another try may do better."""
    wait_s: float = 0.0
    """How long the endpoint asks to wait, in seconds."""
    stop: str = ""
    """What to do, where no other request can do better."""


def estimate_tokens(messages: Messages) -> int:
    """About how many tokens a chat has: a quarter of its UTF-8 bytes, and four a message. No tokenizer is asked."""
    return sum(4 + math.ceil(len(m["content"].encode(errors="replace")) / 4) for m in messages)


def retry_after_s(headers: Mapping[str, str], now: float) -> float:
    """Seconds that a response asks to wait (`Retry-After`: seconds or a date; `retry-after-ms`); 0 where it does not."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * scale
        except ValueError:
            continue
        return seconds if 0 < seconds < math.inf else 0.0
    try:
        return max(0.0, parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return 0.0


class Endpoint:
    """Sends requests, each once.

    Its methods run in one event loop.

    Args:
        config: the endpoint.
        parameters: fields of each request besides model and messages.
        empty: whether an empty reply is one.

    Raises:
        ValueError: there is no API key.
    """

    def __init__(self, config: ChatConfig, parameters: Mapping[str, Any], *, empty: bool = False) -> None:
        import openai

        from guide_rl.chat.bounded import BoundedClient

        self._config, self._parameters, self._empty = config, parameters, empty
        self._key = api_key(config.api_key_env)
        self._redaction = Redaction(self._key)
        self._answered = False
        # The deadline of a try is ours: the client's timeout starts anew with every piece of a reply.
        self._api = openai.AsyncOpenAI(
            base_url=config.base_url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=None,
            http_client=BoundedClient(),
        )
        if self._key:
            for name in list(logging.root.manager.loggerDict):
                if name.partition(".")[0] in ("openai", "httpx", "httpx2", "httpcore", "httpcore2"):
                    logging.getLogger(name).addFilter(self._redaction)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def send(self, messages: Messages, parameters: Mapping[str, Any] | None = None) -> Row | Fault:
        """Send a request once, maybe with parameters of its own.

        Errors end here, as words: theirs hold the request, which holds the key.
        """
        import openai

        from guide_rl.chat.bounded import TooLarge

        try:
            async with asyncio.timeout(self._config.timeout_s):
                response = await self._api.chat.completions.with_raw_response.create(
                    model=self._config.model,
                    messages=[dict(message) for message in messages],  # type: ignore[misc]
                    extra_body={**self._parameters, **(parameters or {})},
                )
            return self._read(response.content, messages)
        except TimeoutError:
            return Fault(f"no whole reply within {self._config.timeout_s:g} s", retry=True)
        except TooLarge as error:
            return Fault(str(error))
        except openai.APIStatusError as error:
            return self._status_fault(error)
        except openai.APIConnectionError as error:
            cause = error.__cause__
            unreachable = type(cause).__name__ == "ConnectError" and not self._answered
            return Fault(
                self._words(f"connection failed: {type(cause).__name__}: {cause}"),
                retry=True,
                stop="check chat.base_url and that the server runs" if unreachable else "",
            )
        except Exception as error:  # whatever the client raises on a request that it cannot send
            return Fault(self._words(f"{type(error).__name__}: {error}"))

    def _status_fault(self, error: "APIStatusError") -> Fault:
        """What an HTTP status other than success means."""
        status, body = error.status_code, error.body
        said = body.get("message") if isinstance(body, dict) else None
        reason = self._words(f"HTTP {status}: {said or error.response.text}")
        if 300 <= status < 400 and (target := error.response.headers.get("location")):
            reason = self._words(f"HTTP {status}: redirects to {target}, which is not followed")
            move = "set chat.base_url to it, without /chat/completions, if the key may go there"
            return Fault(reason, stop="" if self._answered else move)
        wait_s = retry_after_s(error.response.headers, time.time())
        if error.code == "insufficient_quota":
            return Fault(reason, stop="the account's quota is used up")
        if wait_s > _LONGEST_RETRY_AFTER_S:
            return Fault(reason, stop=f"the endpoint asks to come back after {wait_s / 60:.0f} minutes")
        if status in (408, 409, 425, 429) or status >= 500:
            return Fault(reason, retry=True, wait_s=wait_s)
        variable = self._config.api_key_env
        check_key = f"check the key in {variable}" if variable else "name the key's variable in chat.api_key_env"
        if status == 401:
            return Fault(reason, stop=check_key)
        if status in (403, 404) and not self._answered:
            check = f"check chat.model ({self._config.model}) and chat.base_url" if status == 404 else check_key
            return Fault(reason, stop=check)
        return Fault(reason)

    def _read(self, content: bytes, messages: Messages) -> Row | Fault:
        """A response's body as a reply; what is not a whole one is a fault."""
        try:
            body = json.loads(content)
            choice = body["choices"][0]
            message, finish = choice["message"], choice["finish_reason"]
            text = message["content"] or ""
            refusal = message.get("refusal")
            usage = body.get("usage")
            prompt_tokens = _tokens(usage, "prompt_tokens") or estimate_tokens(messages)
            completion_tokens = _tokens(usage, "completion_tokens") or math.ceil(len(text) / 4)
            text = text.encode(errors="replace").decode()  # lone surrogates, which nothing could store
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
            said = self._words(content.decode(errors="replace")) or "nothing"
            page = content.lstrip().startswith(b"<") and not self._answered
            return Fault(f"not a chat completion: {said}", retry=True, stop="check chat.base_url" if page else "")
        if refusal or finish == "content_filter":
            return Fault(self._words(f"the endpoint refused ({finish}): {refusal or text}"))
        if finish not in ("stop", "length") or (finish == "stop" and not text.strip() and not self._empty):
            return Fault(self._words(f"not a whole reply (finish_reason {finish}): {text or 'empty'}"), retry=True)
        if len(self._key) >= SHORTEST_SECRET:
            text = self._redaction.redacted(text)
        self._answered = True
        return text, finish, prompt_tokens, completion_tokens

    def _words(self, text: str) -> str:
        """Text of the endpoint's as part of a message: without the key, on one line, short, nothing that steers a terminal."""
        quote = self._redaction.redacted(text[:_READ_FOR_QUOTE])
        if len(text) > _READ_FOR_QUOTE:  # the cut may have gone through the key
            quote = quote[: -self._redaction.longest or None]
        quote = " ".join("".join(c if c.isprintable() else " " for c in quote).split())
        return quote if len(quote) <= _LONGEST_QUOTE else f"{quote[:_LONGEST_QUOTE]} ..."


def api_key(variable: str | None) -> str:
    """The key in an environment variable; empty where none is needed.

    Raises:
        ValueError: there is none, or it cannot be one; names the variable, never the key.
    """
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(
            f"no API key: set the environment variable {variable} (chat.api_key_env; null for a server that takes none)"
        )
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError(
            f"the environment variable {variable} holds no API key: it has spaces, line breaks or letters outside ASCII"
        )
    return key


def _tokens(usage: object, name: str) -> int | None:
    """A count of an endpoint's `usage`; None where it is no count, so that a good reply is not lost for it."""
    count = usage.get(name) if isinstance(usage, Mapping) else None
    return int(count) if isinstance(count, int | float) and 0 < count < 2**53 else None
