"""The official client's HTTP client with bounds: whatever an endpoint sends, memory is bounded and the key stays with it."""

import contextlib
import zlib
from typing import Any

import httpx2
import openai

LARGEST_BODY = 2**24
"""The bytes of a response's body that are read, as sent and unpacked."""
_HEADERS = ("location", "retry-after", "retry-after-ms")


class TooLarge(Exception):
    """A body beyond `LARGEST_BODY`."""


class BoundedClient(openai.DefaultAsyncHttpxClient):
    """Follows no redirect (the key would go along), keeps no cookies, reads bodies up to `LARGEST_BODY`.

    Of a response's headers only those that say where and when to ask are kept: a charset or an encoding can name a
    decoder that unpacks without bounds.
    """

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request and read its whole response.

        Raises:
            TooLarge: the body is.
            httpx2.RequestError: there is no whole response.
        """
        request.headers["accept-encoding"] = "gzip"
        response = await super().send(request, **options | {"stream": True, "follow_redirects": False})
        self.cookies.clear()
        body = bytearray()
        try:
            async for piece in response.aiter_raw():
                body += piece
                _check(body)
        finally:
            await response.aclose()
        if response.headers.get("content-encoding", "").lower() == "gzip":
            with contextlib.suppress(zlib.error):  # what is no gzip is read as it is
                body = bytearray(zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, LARGEST_BODY + 1))
                _check(body)
        headers = {name: response.headers[name] for name in _HEADERS if name in response.headers}
        return httpx2.Response(response.status_code, headers=headers, content=bytes(body), request=request)


def _check(body: bytearray) -> None:
    if len(body) > LARGEST_BODY:
        raise TooLarge(f"the response has more than {LARGEST_BODY >> 20} MiB")
