# ruff: noqa: SIM905
r"""Text with mathematics in it -> the formulas that it states: sides of equations, items of lists, plain numbers.

`x^2 + 3 = 12` states `x^2+3` and `12`, and neither 2 nor 3: a number that is part of a formula is not stated. Works on
plain text, Markdown and LaTeX alike, in time linear in the text.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from guide_rl.guidance.leaks.formulas import FUNCTIONS, GREEK, balanced
from guide_rl.guidance.leaks.respelling import respelled

INEQUALITIES = ("<", ">", "≤", "≥")


class Formula(NamedTuple):
    """A formula that a text states."""

    spelled: str
    """Its tokens without spaces."""
    before: str
    """The word before the run of mathematics in which it stands, lower case."""
    other: str = ""
    """The side before it, where it is a side of an equation and not the first."""
    relation: str = ""
    """What stands before it, where it is such a side: one of `RELATIONS`."""
    group: int = 0
    """Formulas of one run of mathematics (a list, an equation) share it."""


MATH_NAMES = frozenset({*FUNCTIONS, "sqrt", "binom", "pi"})
_WORD = rf"(?!(?:{'|'.join(sorted(MATH_NAMES | GREEK))})\b)[A-Za-z]{{2,}}"
"""A word of prose; between spaces, no sign touches it."""
_TOKEN = re.compile(
    rf"""(?P<space>\s*)(?:
    (?<!\S)(?P<prose>{_WORD}(?:[ ]+{_WORD})*)(?=\s)
    |(?P<ordinal>[0-9]+(?:st|nd|rd|th)\b)
    |(?P<number>(?:[0-9]{{1,3}}(?:,[0-9]{{3}})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+(?![A-Za-z0-9]))?|\.[0-9]+)
    |(?P<name>\\[A-Za-z]+|[A-Za-z]'(?![a-z])|[A-Za-z]+(?:'[a-z]+)?)
    |(?P<relation>(?:[=<>≤≥:;&]|\\\\)+)
    |(?P<sign>\\[{{}}]|[-+±*/^!%(){{}}\[\]|,_])
    |(?P<other>.)
    )""",
    re.VERBOSE | re.DOTALL,
)
RELATIONS = ("=", *INEQUALITIES)
_SPELLINGS = {"<=": "≤", "=<": "≤", ">=": "≥"}
_WRAPPERS = (("(", ")"), ("{", "}"))
_UNITS = frozenset("cm mm km kg mg ml ft in lb oz hr min sec mph am pm m s g h".split())
_PUNCTUATION = frozenset(",;+-*/^!%_(){}[]=<>")
"""Signs that state nothing alone."""
_OPERAND_ENDS = frozenset(")}]!%")


@lru_cache(maxsize=64)
def stated(text: str) -> tuple[Formula, ...]:
    """The formulas that a text states, in its order."""
    return tuple(_formulas(respelled(text)))


def _formulas(text: str) -> Iterator[Formula]:
    """Runs of mathematics, cut into sides and items."""
    run: list[tuple[str, bool]] = []
    word, number = "", 0
    for kind, token, spaced in _tokens(text):
        if kind == "break":
            if run:
                yield from _sides(run, word, number)
                run, number = [], number + 1
            word = token or word
            continue
        run.append((token, spaced))
    yield from _sides(run, word, number)


def _tokens(text: str) -> Iterator[tuple[str, str, bool]]:
    """(math, relation or break; text; whether a space stands before it)."""
    matches = list(_TOKEN.finditer(text))
    marked = False
    for at, match in enumerate(matches):
        kind = match.lastgroup
        token = match[kind] if kind else ""
        if kind == "prose":
            yield "break", token[token.rfind(" ") + 1 :], False
            continue
        spaced = bool(match["space"]) and not marked
        if token in ("\x01", "\x02"):
            marked = token == "\x01"
            yield "math", ";", spaced
            continue
        if kind == "number" or kind == "sign":
            yield "math", token, spaced
        elif kind == "relation":
            yield "math", _relation(token), spaced
        elif kind == "name" and _is_math(token, bool(match["space"]), matches, at):
            yield "math", token, spaced
        else:
            yield "break", token if kind == "name" else "", spaced


def _relation(token: str) -> str:
    """One of `RELATIONS`, or a semicolon."""
    token = _SPELLINGS.get(token, token)
    return token if token in RELATIONS else "=" if token[0] in RELATIONS else ";"


def _is_math(name: str, spaced: bool, matches: list[re.Match[str]], at: int) -> bool:
    """Whether a name is part of a formula: a letter, a known function, or a product such as `ab` next to a sign."""
    if name.startswith("\\") or name in MATH_NAMES or name in GREEK:
        return True
    before = matches[at - 1] if at else None
    after = matches[at + 1] if at + 1 < len(matches) else None
    if not spaced and before is not None and before["number"] and name in _UNITS:
        return False
    if len(name) == 1:
        return not (name in "aAI" and spaced and after is not None and (after["name"] or after["number"]))
    if len(name) == 2 and name[1] == "'":
        return True
    if len(name) > 3 or "'" in name:
        return False
    touching = (before is not None and (before["number"] or before["sign"]) and not spaced) or (
        after is not None and after["sign"] and not after["space"] and after["sign"] in "^+-*/_"
    )
    return bool(touching)


def _sides(run: list[tuple[str, bool]], word: str, group: int) -> Iterator[Formula]:
    """The sides and items of one run."""
    if len(run) == 1 and run[0][0] in _PUNCTUATION:
        return
    word = word.lower()
    side: list[tuple[str, bool]] = []
    other, relation, depth, braces = "", "", 0, 0
    inside = _relation_in_brackets(run)
    for token, spaced in [*run, (";", False)]:
        depth += (token in ("(", "{", "[", "\\{")) - (token in (")", "}", "]", "\\}"))
        braces += (token == "{") - (token == "}")
        if token == ";" or (token in RELATIONS and braces <= 0) or (token == "," and (depth <= 0 or inside)):
            found = list(_pieces(side))
            for spelled in found:
                yield Formula(spelled, word, other, relation, group)
            other = found[-1] if found and token in RELATIONS else ""
            side, relation = [], token if token in RELATIONS else ""
        else:
            side.append((token, spaced))


def _relation_in_brackets(run: list[tuple[str, bool]]) -> bool:
    """Whether a bracket holds equations: the solutions (x = 8, y = 2)."""
    depth = 0
    for token, _ in run:
        depth += (token == "(") - (token == ")")
        if depth > 0 and token in RELATIONS:
            return True
    return False


def _pieces(side: list[tuple[str, bool]]) -> Iterator[str]:
    """One side, cut where two operands stand side by side in prose, at lone brackets, and at the items of brackets."""
    if not side:
        return
    texts = [token for token, _ in side]
    spaced = [gap for _, gap in side]
    start = 0
    chunks: list[list[str]] = []
    for at in range(1, len(texts) + 1):
        if at == len(texts) or (spaced[at] and _starts(texts[at]) and _ends(texts[at - 1])):
            chunks.append(texts[start:at])
            start = at
    seen = set()
    for chunk in chunks:
        for part in balanced(chunk):
            spelled = _trimmed(part)
            if spelled and spelled not in seen:
                seen.add(spelled)
                yield spelled
            if spelled and spelled[0] in "({[\\" and "," in spelled:
                yield from _items(part)
    if len(chunks) > 1:
        yield from (spelled for part in balanced(texts) if (spelled := _trimmed(part)) and spelled not in seen)


def _items(part: list[str]) -> Iterator[str]:
    """The items of a bracketed list."""
    depth, item = 0, list[str]()
    for token in [*part[1:-1], ","]:
        depth += (token in ("(", "{", "[")) - (token in (")", "}", "]"))
        if token == "," and depth <= 0:
            spelled = _trimmed(item)
            if spelled:
                yield spelled
            item = []
        else:
            item.append(token)


def _starts(token: str) -> bool:
    return token[0].isalnum() or token[0] in "(\\{"


def _ends(token: str) -> bool:
    return token[-1].isalnum() or token in _OPERAND_ENDS


def _trimmed(tokens: list[str]) -> str:
    """The tokens without signs that lead or trail to nothing."""
    tokens = list(tokens)
    while (
        tokens
        and tokens[0] in ("*", "/", "^", ",", "!", "%", "_", "|")
        and not (tokens[0] == "|" and "|" in tokens[1:])
    ):
        tokens.pop(0)
    while tokens and tokens[-1] in ("+", "-", "*", "/", "^", ",", "_", "("):
        tokens.pop()
    return _joined(tokens if "," in tokens else _unwrapped(tokens))


def _unwrapped(tokens: list[str]) -> list[str]:
    """The tokens without the brackets that stand around all of them."""
    levels = 0
    while 2 * levels + 2 < len(tokens) and (tokens[levels], tokens[-1 - levels]) in _WRAPPERS:
        levels += 1
    if levels:
        depths = list(accumulate((token in ("(", "{", "[")) - (token in (")", "}", "]")) for token in tokens))
        levels = 0 if depths[-1] else max(0, min(depths[levels - 1 : len(tokens) - levels]))
    return tokens[levels : len(tokens) - levels]


def _joined(tokens: list[str]) -> str:
    """The tokens as text, a space only where a letter follows a command."""
    text = before = ""
    for token in tokens:
        text += " " + token if before[:1] == "\\" and before[-1].isalpha() and token[0].isalpha() else token
        before = token
    return text
