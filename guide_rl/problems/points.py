"""Guidance as a list of points: read from a reply, numbered for a prompt, cut at a level."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from guide_rl.types import Problem

MOST_POINTS = 5
"""Points of guidance; further ones are dropped."""
POINTS = "guidance_points"
"""Key of a problem's metadata under which all points stand."""

_MARK = r"(?:\\?[.):]{1,2}(?=[\s*_]|$)|[\uff0e\uff09\uff1a\u3001])"
_NUMBERED = re.compile(
    rf"""(?P<indent>[ \t]*+)[#> \t]*+(?:[-*+\u2022][ \t]++)?(?P<open>[*_]*+)
    (?P<label>(?:hint|point|step)[ \t]*)?[(\uff08]?[0-9\uff10-\uff19]{{1,2}}
    (?:(?P<closed>{_MARK}(?P=open)|(?P=open)[ \t]*{_MARK}
        |(?(label)(?P=open)(?:[ \t]+[-\u2013\u2014](?=[ \t])|(?<=[*_])(?=[ \t])|[ \t]*$)|(?!)))
    |{_MARK})[ \t]*""",
    re.VERBOSE | re.IGNORECASE,
)
_BULLETED = re.compile(r"(?P<indent>[ \t]*+)[> \t]*+[-*+\u2022][ \t]++(?=\S)")
_RULE = re.compile(r"[-*_ \t]*")


def numbered(points: Sequence[str]) -> str:
    """Points in the paper's layout: a numbered list, one a line."""
    return "\n".join(f"{number}. {point}" for number, point in enumerate(points, start=1))


def guidance_at(problem: Problem, level: int | None) -> Problem:
    """The problem with its first `level` points as guidance (None: all); unchanged where it has no points."""
    points = problem.metadata.get(POINTS)
    return replace(problem, guidance=numbered(points[:level])) if points else problem


def parse_points(reply: str) -> tuple[str, ...]:
    """The points of a reply's list, at most five: a numbered one where there is one, else a bulleted one.

    What stands before the list and between <think> and </think> is dropped; thoughts without an end leave no point. All
    that stands between two points belongs to the first of them. To the last belong the lines next to it, indented
    paragraphs, and as many others as the longest point before it has.
    """
    text = reply.rpartition("</think>")[2]
    items = [] if "<think>" in text else _items(text)
    items = [item for item in items if item.numbered] or items
    longest = max((len(item.paragraphs) for item in items[:-1]), default=1)
    points = (" ".join(" ".join(item.paragraphs[:longest]).split()) for item in items[:MOST_POINTS])
    return tuple(point for point in points if point)


@dataclass
class _Item:
    """A point that is being read."""

    numbered: bool
    indent: int
    paragraphs: list[str]


def _items(text: str) -> list[_Item]:
    """All items of a text's lists, but those within items."""
    items: list[_Item] = []
    gap = False
    for line in text.expandtabs(4).splitlines():
        if _RULE.fullmatch(line):
            gap = True
            continue
        found = _NUMBERED.match(line) or _BULLETED.match(line)
        rest = line if found is None else line[found.end() :]
        current = items[-1] if items else None
        if found is not None and _starts_an_item(found, current):
            is_numbered = found.re is _NUMBERED
            opened = found["open"] if is_numbered and found["closed"] is None and found["open"] in rest else ""
            items.append(_Item(is_numbered, len(found["indent"]), [opened + rest]))
        elif current is not None:
            indented = len(line) - len(line.lstrip()) > current.indent
            if gap and not indented and current.paragraphs[0].strip():
                current.paragraphs.append("")
            current.paragraphs[-1] += f" {rest}"
        gap = False
    return items


def _starts_an_item(found: re.Match[str], current: _Item | None) -> bool:
    """Whether a list mark starts an item, and none within the current one."""
    if current is None:
        return True
    return len(found["indent"]) < current.indent + 2 and (found.re is _NUMBERED or not current.numbered)
