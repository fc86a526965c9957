# ruff: noqa: SIM905, RUF001
r"""Text with mathematics in it -> the formulas that it states: sides of equations, items of lists, plain numbers.

`x^2 + 3 = 12` states `x^2+3` and `12`, and neither 2 nor 3: a number that is part of a formula is not stated. Works on
plain text, Markdown and LaTeX alike, in time linear in the text.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from guide_rl.guidance.leaks.formulas import FUNCTIONS, GREEK, balanced


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula that a text states."""

    spelled: str
    """Its tokens without spaces."""
    before: str
    """The word before the run of mathematics in which it stands, lower case."""
    other: str = ""
    """The side before it, where it is a side of an equation and not the first."""
    strict: bool = False
    """Whether a strict inequality, and not an equation, stands before it."""
    group: int = 0
    """Formulas of one run of mathematics (a list, an equation) share it."""


_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_VULGAR = re.compile("([0-9]*)([¼-¾⅐-⅞])")
_BOX = re.compile(r"\\f?boxed\s*\{")
_COMMAND_LAST = re.compile(r"\\[A-Za-z]+\Z")
_SUBSCRIPT = re.compile("[₀₁₂₃₄₅₆₇₈₉ₙ]+")
_SYMBOLS = {
    **dict.fromkeys("−–‑‐", "-"),
    **dict.fromkeys("×·∙⋅∗", "*"),
    "÷": "/",
    "⁄": "/",
    "√": r"\sqrt ",
    "π": r"\pi ",
    "∞": r"\infty ",
    **dict.fromkeys("≤≥≠≈≡→⇒", "="),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("‘’", "'"),
}
_SPACE_IN_NUMBER = re.compile(r"(?<![0-9.])([0-9]{1,3}(?:(?:[ \u202f\u2009\xa0]|\\,|\{,\}|\\ )[0-9]{3})+)(?![0-9])")
_RESPELLED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\\$", " "),
        (r"\\%", "%"),
        (r"(?i)(?<=[0-9])[ -]?per ?cent\b", "%"),
        (r"((?<![A-Za-z\\])[A-Za-z]|[0-9)}])\s+squared\b", r"\1^2"),
        (r"((?<![A-Za-z\\])[A-Za-z]|[0-9)}])\s+cubed\b", r"\1^3"),
        (r"\^?\{?(?:\\circ|\\degree|°)(?![A-Za-z])\}?", ""),
        (r"\\(?:text|mathrm|mbox|textbf|textit|mathbf|operatorname)\*?\s*\{([^{}]*)\}", r" \1 "),
        (r"\\(?:left|right|displaystyle|limits|big|Big)(?![A-Za-z])|\\[,;:! ]|~|\\q?quad(?![A-Za-z])", " "),
        (r"\\[dt]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*([0-9])\s*([0-9])", r"\\frac{\1}{\2}"),
        (r"\\(?:cdot|times|ast)(?![A-Za-z])", "*"),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\\(?:pm|mp)(?![A-Za-z])", "±"),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\(?:leq?|geq?|neq?|approx|equiv|to|sim|in|iff|implies|(?:long)?[rR]ightarrow)(?![A-Za-z])", "="),
        (r"\\(?:c|l|v|d)?dots(?![A-Za-z])", " ... "),
        (r"(?<=[0-9A-Za-z)])\*\*(?=[0-9A-Za-z(])", "^"),
        (r"\*\*|__|`", " "),
        (r"\\[\[(](.*?)\\[\])]|\$\$?([^$]+)\$\$?", "\x01\\1\\2\x02"),
        (r"\$", " "),
        (r"(?<![0-9])([0-9]{1,9}) {1,3}([0-9]{1,9})/([0-9]{1,9})(?![0-9])", r"(\1+\2/\3)"),
    )
)
_MATH_NAMES = frozenset({*FUNCTIONS, "sqrt", "binom", "pi"})
_WORD = rf"(?!(?:{'|'.join(sorted(_MATH_NAMES | GREEK))})\b)[A-Za-z]{{2,}}"
"""A word of prose; between spaces, no sign touches it."""
_TOKEN = re.compile(
    rf"""(?P<space>\s*)(?:
    (?<!\S)(?P<prose>{_WORD}(?:[ ]+{_WORD})*)(?=\s)
    |(?P<ordinal>[0-9]+(?:st|nd|rd|th)\b)
    |(?P<number>(?:[0-9]{{1,3}}(?:,[0-9]{{3}})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+(?![A-Za-z0-9]))?|\.[0-9]+)
    |(?P<name>\\[A-Za-z]+|[A-Za-z]'(?![a-z])|[A-Za-z]+(?:'[a-z]+)?)
    |(?P<relation>(?:[=<>:;&]|\\\\)+)
    |(?P<sign>\\[{{}}]|[-+±*/^!%(){{}}\[\]|,_])
    |(?P<other>.)
    )""",
    re.VERBOSE | re.DOTALL,
)
_RELATIONS = ("=", "<", ">")
_WRAPPERS = (("(", ")"), ("{", "}"))
_UNITS = frozenset("cm mm km kg mg ml ft in lb oz hr min sec mph am pm m s g h".split())
_OPERAND_ENDS = frozenset(")}]!%")


def stated(text: str) -> list[Formula]:
    """The formulas that a text states, in its order."""
    return list(_formulas(respelled(text)))


def respelled(text: str) -> str:
    """The text with one spelling for what Unicode, LaTeX and Markdown spell in many ways; `$` and `\\(` are gone."""
    if not text.isascii():
        text = _SUPERSCRIPT.sub(lambda match: "^{" + match[0].translate(_SUPERSCRIPTS) + "}", text)
        text = _SUBSCRIPT.sub(lambda match: "_{" + unicodedata.normalize("NFKC", match[0]) + "}", text)
        text = _VULGAR.sub(
            lambda match: f"({match[1] + '+' if match[1] else ''}{unicodedata.normalize('NFKC', match[2])})", text
        )
    text = _SPACE_IN_NUMBER.sub(lambda match: re.sub(r"[^0-9]+", ",", match[1]), text)
    if not text.isascii():
        text = "".join(_SYMBOLS.get(character, character) for character in unicodedata.normalize("NFKC", text))
    text = _unboxed(text)
    for pattern, replacement in _RESPELLED:
        text = pattern.sub(replacement, text)
    return text


def _unboxed(text: str) -> str:
    r"""The text with the content of each `\boxed{...}` as a sentence of its own."""
    parts = _BOX.split(text)
    text = parts[0]
    for part in parts[1:]:
        depth = 1
        for at, character in enumerate(part):  # noqa: B007
            depth += (character == "{") - (character == "}")
            if not depth:
                break
        text += f" $ ; {part[:at]} ; $ {part[at + 1 :]}" if part and not depth else part
    return text


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
            yield "math", token if token in ("<", ">") else "=" if token[0] in "=<>" else ";", spaced
        elif kind == "name" and _is_math(token, bool(match["space"]), matches, at):
            yield "math", token, spaced
        else:
            yield "break", token if kind == "name" else "", spaced


def _is_math(name: str, spaced: bool, matches: list[re.Match[str]], at: int) -> bool:
    """Whether a name is part of a formula: a letter, a known function, or a product such as `ab` next to a sign."""
    if name.startswith("\\") or name in _MATH_NAMES or name in GREEK:
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
    word = word.lower()
    side: list[tuple[str, bool]] = []
    other, strict, depth, braces = "", False, 0, 0
    inside = _relation_in_brackets(run)
    for token, spaced in [*run, (";", False)]:
        depth += (token in ("(", "{", "[", "\\{")) - (token in (")", "}", "]", "\\}"))
        braces += (token == "{") - (token == "}")
        if token == ";" or (token in _RELATIONS and braces <= 0) or (token == "," and (depth <= 0 or inside)):
            found = list(_pieces(side))
            for spelled in found:
                yield Formula(spelled, word, other, strict, group)
            other = found[-1] if found and token in _RELATIONS else ""
            side, strict = [], token in ("<", ">")
        else:
            side.append((token, spaced))


def _relation_in_brackets(run: list[tuple[str, bool]]) -> bool:
    """Whether a bracket holds equations: the solutions (x = 8, y = 2)."""
    depth = 0
    for token, _ in run:
        depth += (token == "(") - (token == ")")
        if depth > 0 and token in _RELATIONS:
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
    while (
        "," not in tokens
        and len(tokens) > 2
        and (tokens[0], tokens[-1]) in _WRAPPERS
        and len(balanced(tokens[1:-1])) == 1
    ):
        tokens = tokens[1:-1]
    return _joined(tokens)


def _joined(tokens: list[str]) -> str:
    """The tokens as text, a space only where a letter follows a command."""
    text = ""
    for token in tokens:
        text += " " + token if token[0].isalpha() and _COMMAND_LAST.search(text) else token
    return text
