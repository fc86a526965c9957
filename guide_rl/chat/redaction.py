"""An API key, found and replaced in whatever spelling an endpoint or a library repeats it."""

import base64
import logging
import re
from html.entities import codepoint2name

SHORTEST_SECRET = 16
"""Characters; what is shorter is a local server's placeholder ("EMPTY") and may be a word of a reply."""


class Redaction(logging.Filter):
    """Replaces a key by "[API key]", and as a filter keeps it out of what the HTTP libraries log.

    Found are the key itself, URL-encoded, JSON-escaped (once or twice, each), HTML-escaped and within base64 (as in `Basic`).

    Args:
        key: the key; an empty one is never found, a placeholder only as it is.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        spellings = [_spelled(key)] if len(key) >= SHORTEST_SECRET else [re.escape(key)]
        if len(key) >= SHORTEST_SECRET:
            standard = [_within_base64(key, before) for before in range(3)]
            spellings += [_spelled(code) for code in {*standard, *(c.translate(_URL_SAFE) for c in standard)}]
        self._pattern = re.compile("|".join(spellings) if key else "(?!)")
        self.longest = 12 * len(key)
        """The characters of the longest spelling, at most."""

    def redacted(self, text: str) -> str:
        """Text without the key."""
        return self._pattern.sub("[API key]", text)

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without the key."""
        message = record.getMessage()
        if self._pattern.search(message):
            record.msg, record.args = self.redacted(message), ()
        return True


_URL_SAFE = str.maketrans("+/", "-_")


def _spelled(text: str) -> str:
    """A pattern that finds a text however its signs are escaped: `/` is also `%2F`, `%252f`, `\\/`, `\\u002F` and `&#x2F;`."""

    def sign(char: str) -> str:
        code = ord(char)
        named = codepoint2name.get(code, "#")
        entity = rf"&(?:{named}|\#0{{0,4}}{code}|\#[xX]0{{0,4}}(?i:{code:x}));"
        return rf"(?:\\{{0,4}}{re.escape(char)}|%(?:25){{0,2}}(?i:{code:02x})|\\{{1,4}}u(?i:{code:04x})|{entity})"

    return "".join(char if char.isalnum() else sign(char) for char in text)


def _within_base64(key: str, before: int) -> str:
    """What base64 makes of a key after so many bytes (modulo 3), without the characters that its neighbours take part in."""
    code = base64.b64encode(b"\0" * before + key.encode()).decode()
    return code[-(-before * 8 // 6) : (before + len(key)) * 8 // 6]
