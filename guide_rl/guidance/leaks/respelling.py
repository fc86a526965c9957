# ruff: noqa: RUF001
r"""One spelling for what Unicode, LaTeX, Markdown and English spell in many ways."""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_SUBSCRIPT = re.compile("[₀₁₂₃₄₅₆₇₈₉ₙ]+")
_VULGAR = re.compile("([0-9]{0,20})([¼-¾⅐-⅞])")
_SYMBOLS = {
    **dict.fromkeys("−–‑‐", "-"),
    **dict.fromkeys("×·∙⋅∗", "*"),
    "÷": "/",
    "⁄": "/",
    "∶": ":",
    "√": r"\sqrt ",
    "π": r"\pi ",
    "∞": r"\infty ",
    **dict.fromkeys("≠≈≡→⇒", "="),
    **dict.fromkeys("⩽≦", "≤"),
    **dict.fromkeys("⩾≧", "≥"),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("‘’", "'"),
}
_BOX = re.compile(r"\\f?boxed\s*\{")
_SPACE_IN_NUMBER = re.compile(r"[0-9](?<![0-9.].)[0-9]{0,2}(?:(?:[ \u202f\u2009\xa0]|\\,|\{,\}|\\ )[0-9]{3})+(?![0-9])")


def _repeating(match: re.Match[str]) -> str:
    """A repeating decimal as a fraction."""
    whole, fixed, repeated = match.groups()
    nines = 10 ** len(repeated) - 1
    return f"({int(whole + fixed or 0) * nines + int(repeated)}/{nines * 10 ** len(fixed)})"


_Rule = tuple[str, re.Pattern[str], str | Callable[[re.Match[str]], str]]
_RULES: tuple[_Rule, ...] = tuple(
    (needle, re.compile(pattern), replacement)
    for needle, pattern, replacement in (
        ("\\", r"\\\$", " "),
        ("\\", r"\\%", "%"),
        ("", r"(?i)([0-9])[ -]?per ?cent\b", r"\1%"),
        ("squared", r"((?<![A-Za-z\\])[A-Za-z]|[0-9)}])\s+squared\b", r"\1^2"),
        ("cubed", r"((?<![A-Za-z\\])[A-Za-z]|[0-9)}])\s+cubed\b", r"\1^3"),
        ("\\degree", r"\\degree(?![A-Za-z])", r"\\circ"),
        ("\\circ", r"\^?\{?\\circ(?![A-Za-z])\}?", ""),
        ("°", r"\^?\{?°(?![A-Za-z])\}?", ""),
        ("\\", r"\\(?:text|mathrm|mbox|textbf|textit|mathbf|operatorname)\*?\s*\{([^{}]*)\}", r" \1 "),
        (
            "\\",
            r"\\(?:left|right|displaystyle|limits|big|Big)(?![A-Za-z])|\\[,;:! ]|\\q?quad(?![A-Za-z])",
            " ",
        ),
        ("~", "~", " "),
        ("\\", r"\\lfloor(?![A-Za-z])", "floor("),
        ("\\", r"\\rfloor(?![A-Za-z])", ")"),
        ("\\", r"\\[dt]frac(?![A-Za-z])", r"\\frac"),
        ("\\", r"\\frac\s*([0-9])\s*([0-9])", r"\\frac{\1}{\2}"),
        ("\\", r"\\(?:bar|dot)(?=\s*\{?[0-9])", r"\\overline"),
        (
            "\\overline",
            r"(?<![0-9])([0-9]{0,20})\.([0-9]{0,20})\\overline\s*\{?([0-9]{1,20})(?![0-9])\}?",
            _repeating,
        ),
        ("\\", r"\\(?:cdot|times|ast)(?![A-Za-z])", "*"),
        ("\\", r"\\div(?![A-Za-z])", "/"),
        ("\\", r"\\colon(?![A-Za-z])", ":"),
        ("\\", r"\\(?:pm|mp)(?![A-Za-z])", "±"),
        ("\\", r"\\lt(?![A-Za-z])", "<"),
        ("\\", r"\\gt(?![A-Za-z])", ">"),
        ("\\", r"\\leq?(?:slant)?(?![A-Za-z])", "≤"),
        ("\\", r"\\geq?(?:slant)?(?![A-Za-z])", "≥"),
        ("\\", r"\\(?:neq?|approx|equiv|to|sim|in|iff|implies|(?:long)?[rR]ightarrow)(?![A-Za-z])", "="),
        ("\\", r"\\(?:c|l|v|d)?dots(?![A-Za-z])", " ... "),
        ("**", r"(?<=[0-9A-Za-z)])\*\*(?=[0-9A-Za-z(])", "^"),
        ("", r"\*\*|__|`", " "),
        ("\\", r"\\[\[(]([^\\\n]*(?:\\(?![\[\]()])[^\\\n]*)*)\\[\])]", "\x01\\1\x02"),
        ("$", r"\$\$?([^$]+)\$\$?", "\x01\\1\x02"),
        ("$", r"\$", " "),
        ("/", r"([0-9](?<![0-9].)[0-9]{0,8}) {1,3}([0-9]{1,9})/([0-9]{1,9})(?![0-9])", r"(\1+\2/\3)"),
        # A ratio, and neither the time 3:04:05 nor "Step 3: 4 sides".
        (":", r"([0-9](?<![0-9:.].)[0-9]{0,8})( ?):\2([0-9]{1,9})(?![0-9:]|\.[0-9])", r"\1/\3"),
        ("ratio", r"(ratio\b[^.;:\n]{0,40}? )([0-9]{1,9}) to ([0-9]{1,9})\b", r"\1\2/\3"),
    )
)
"""(what every match holds, pattern, replacement); texts that do not hold it are not searched."""


@lru_cache(maxsize=64)
def respelled(text: str) -> str:
    """The text in one spelling; `$` and `\\(` are gone, \x01 and \x02 stand around what they marked."""
    if not text.isascii():
        text = _SUPERSCRIPT.sub(lambda match: "^{" + match[0].translate(_SUPERSCRIPTS) + "}", text)
        text = _SUBSCRIPT.sub(lambda match: "_{" + unicodedata.normalize("NFKC", match[0]) + "}", text)
        text = _VULGAR.sub(
            lambda match: f"({match[1] + '+' if match[1] else ''}{unicodedata.normalize('NFKC', match[2])})", text
        )
    text = _SPACE_IN_NUMBER.sub(lambda match: re.sub(r"[^0-9]+", ",", match[0]), text)
    if not text.isascii():
        text = "".join(_SYMBOLS.get(character, character) for character in unicodedata.normalize("NFKC", text))
    text = _unboxed(text)
    for needle, pattern, replacement in _RULES:
        if needle in text:
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
